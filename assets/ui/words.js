// Words for the visitor's language. A key is the English text with every number as #; numbers keep their order.
(() => {
  const words = navigator.language.toLowerCase().startsWith("zh") ? WORDS : {};
  const say = (text) => {
    const exact = words[text];
    if (exact !== undefined) return exact;
    const numbers = [], key = String(text).replace(/\d+(\.\d+)?/g, (n) => (numbers.push(n), "#")), found = words[key];
    return found === undefined ? text : found.replace(/#/g, () => numbers.shift());
  };
  // The fixed words of a template, before anything a person wrote is in it.
  const sayAll = (element) => {
    const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (nodes.nextNode()) {
      const text = nodes.currentNode.data.trim();
      if (text) nodes.currentNode.data = nodes.currentNode.data.replace(text, () => say(text));
    }
    for (const node of element.querySelectorAll("[aria-label], [title], [data-empty]")) {
      for (const name of ["aria-label", "title", "data-empty"]) if (node.hasAttribute(name)) node.setAttribute(name, say(node.getAttribute(name)));
    }
  };
  window.openSoraWords = { say, sayAll };

  // The tab's title belongs to whatever runs; once that has ended it says so until somebody looks.
  const TITLE = "Open-Sora Demo", told = new Map();
  const show = () => {
    const running = [...told.values()].find((text) => text.running), done = [...told.values()].find((text) => !text.running);
    document.title = running ? running.text + " · " + TITLE : done && document.hidden ? done.text + " · " + TITLE : TITLE;
  };
  window.openSoraTitle = (name, text, running) => {
    if (text) told.set(name, { text, running });
    else told.delete(name);
    show();
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) for (const [name, text] of told) if (!text.running) told.delete(name);
    show();
  });
})();
