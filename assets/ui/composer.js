// The body of a function (element, trigger, props, ...): rows of chips from props.value, {language: {kind: [words]}}.
const { language, say, sayAll } = window.openSora;
sayAll(element);
const box = element.querySelector(".os-composer"), chosen = {};

function chip(kind, word) {
  const node = document.createElement("button");
  node.type = "button";
  node.className = "os-word";
  node.textContent = word;
  node.setAttribute("aria-pressed", "false");
  node.addEventListener("click", () => {
    chosen[kind] = chosen[kind] === word ? undefined : word;
    for (const other of node.parentElement.children) other.setAttribute("aria-pressed", String(other.textContent === chosen[kind]));
    if (Object.values(chosen).some(Boolean)) trigger("compose", { ...chosen, language });
  });
  return node;
}

for (const [kind, words] of Object.entries((props.value || {})[language] || {})) {
  const row = document.createElement("div"), label = document.createElement("span"), list = document.createElement("div");
  row.className = "os-words";
  label.className = "os-kind";
  label.textContent = say(kind);
  list.className = "os-list";
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", say(kind));
  list.append(...words.map((word) => chip(kind, word)));
  row.append(label, list);
  box.append(row);
}
