// What Gradio's own parts lack for those who use a keyboard or a screen reader.
import { say } from "../lib/i18n.js";
import { roving } from "../lib/roving.js";

/** @type {Record<string, string>} id of a button -> what it does */
const HINTS = {
  "preset-quick": "ui.preset.quick.hint",
  "preset-standard": "ui.preset.standard.hint",
  "preset-fine": "ui.preset.fine.hint",
  "preset-strong": "ui.preset.strong.hint",
};

/** Tabs are one stop and follow the arrows; a fold says whether it is open; Stop says when there is nothing to stop. */
export function helpKeys() {
  const page = document.querySelector(".gradio-container") ?? document.body;
  new MutationObserver(settle).observe(page, { subtree: true, childList: true, attributeFilter: ["class"] });
  new MutationObserver(settle).observe(document.body, { attributeFilter: ["data-os-busy"] });
  settle();
}

const followed = new WeakSet();

// Gradio draws its tabs when it likes, and may draw them anew.
function followTabs() {
  for (const list of document.querySelectorAll(".os-tabs [role=tablist]")) {
    if (!(list instanceof HTMLElement) || followed.has(list)) continue;
    followed.add(list);
    roving(list, "[role=tab]");
    list.addEventListener("keydown", (event) => {
      const tab = document.activeElement;
      if (event.defaultPrevented && tab instanceof HTMLElement && tab.matches("[role=tab]")) tab.click();
    });
  }
}

function settle() {
  followTabs();
  for (const fold of document.querySelectorAll("button.label-wrap")) {
    const open = String(fold.classList.contains("open"));
    if (fold.getAttribute("aria-expanded") !== open) fold.setAttribute("aria-expanded", open);
    const arrow = fold.querySelector(".icon");
    if (arrow && !arrow.hasAttribute("aria-hidden")) arrow.setAttribute("aria-hidden", "true");
  }
  const idle = String(!document.body.hasAttribute("data-os-busy"));
  for (const id of ["stop", "stop-compare"]) {
    const node = document.getElementById(id);
    if (node && node.getAttribute("aria-disabled") !== idle) node.setAttribute("aria-disabled", idle);
  }
  for (const [id, code] of Object.entries(HINTS)) {
    const node = document.getElementById(id);
    if (node && !node.title) node.title = say(code);
  }
}
