// What the page's own components share, as window.openSora: it is in the head, before any of them starts.
// Words for the visitor's language: a key is the English text with every number as #, in order, and {} for anything.
(() => {
  const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en", words = language === "zh" ? WORDS : {};
  const say = (text) => {
    const exact = words[text];
    if (exact !== undefined) return exact;
    const numbers = [], key = String(text).replace(/\d+(\.\d+)?/g, (n) => (numbers.push(n), "#")), found = words[key];
    if (found !== undefined) return found.replace(/#/g, () => numbers.shift());
    const [, field, rest] = language === "zh" ? /^(\w+): (.*)$/s.exec(text) || [] : []; // an error names its field
    if (field) return say(field) + "：" + say(rest);
    for (const [pattern, said] of templates) {
      const parts = pattern.exec(text);
      if (parts) return said.replace(/\{\}/g, () => parts.splice(1, 1)[0].split("; ").map(say).join("；"));
    }
    return text;
  };
  const plain = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), longest = (a, b) => b.length - a.length;
  const templates = Object.keys(words).filter((key) => key.includes("{}")).sort(longest)
    .map((key) => [new RegExp("^" + plain(key).replaceAll("\\{\\}", "(.+?)") + "$", "s"), words[key]]);
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

  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const vector = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const seconds = (s) => say(s < 9.95 ? s.toFixed(1) + " s" : s < 100 ? Math.round(s) + " s" : Math.floor(s / 60) + " min " + Math.round(s % 60) + " s");
  const running = (view) => Boolean(view && ["loading", "waiting", "encoding", "denoising", "decoding"].includes(view.phase));

  // The runs that a reloaded page asks for again, newest first.
  const runs = (name, most) => {
    const place = "open-sora-demo-" + name;
    const known = () => {
      try {
        const found = JSON.parse(sessionStorage.getItem(place) || "[]");
        return Array.isArray(found) ? found : [];
      } catch {
        return [];
      }
    };
    const remember = (job) => {
      if (!job || known()[0] === job) return;
      try {
        sessionStorage.setItem(place, JSON.stringify([job, ...known().filter((id) => id !== job)].slice(0, most)));
      } catch {
        // A browser that keeps nothing: the run is only lost with the page.
      }
    };
    return { known, remember };
  };

  // What Gradio says of an error.
  if (language === "zh") {
    new MutationObserver((changes) => {
      for (const node of changes.flatMap((change) => [...change.addedNodes])) {
        const toasts = node.nodeType === 1 ? node.querySelectorAll(".toast-title, .toast-message-text") : [];
        for (const part of toasts) part.textContent = say(part.textContent.trim());
      }
    }).observe(document.documentElement, { childList: true, subtree: true });
  }

  // The tab's title belongs to whatever runs; once that has ended it says so until somebody looks.
  const TITLE = "Open-Sora Demo", told = new Map();
  const show = () => {
    const running = [...told.values()].find((text) => text.running), done = [...told.values()].find((text) => !text.running);
    document.title = running ? running.text + " · " + TITLE : done && document.hidden ? done.text + " · " + TITLE : TITLE;
  };
  const title = (name, text, running) => {
    if (text) told.set(name, { text, running });
    else told.delete(name);
    show();
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) for (const [name, text] of told) if (!text.running) told.delete(name);
    show();
  });
  window.openSora = { language, say, sayAll, make, vector, clamp, seconds, running, runs, title };
})();
