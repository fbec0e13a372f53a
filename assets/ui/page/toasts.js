// Gradio's notices are headed by the name of their kind in English, and so is their button; here in the visitor's words.
import { say } from "../lib/i18n.js";

const KINDS = { error: "ui.toast.error", warning: "ui.toast.warning", info: "ui.toast.info" };

/** @param {Element} toast */
function translate(toast) {
  const title = toast.querySelector(".toast-title");
  const text = title?.firstChild;
  for (const [kind, code] of Object.entries(KINDS)) {
    if (text && title.classList.contains(kind)) text.nodeValue = `${say(code)} `;
  }
  toast.querySelector(".toast-close")?.setAttribute("aria-label", say("ui.toast.close"));
}

/** @type {Set<Element>} */
const seen = new Set();

/** An older notice speaks of what was asked before: it goes when a newer one of its kind comes. @param {Element[]} toasts */
function keepNewest(toasts) {
  const fresh = toasts.filter((toast) => !seen.has(toast));
  for (const toast of toasts) {
    const replaced = fresh.some((newer) => newer !== toast && kindOf(newer) === kindOf(toast));
    const close = toast.querySelector(".toast-close");
    if (seen.has(toast) && replaced && close instanceof HTMLElement) close.click();
  }
  seen.clear();
  for (const toast of toasts) seen.add(toast);
}

/** @param {Element} toast */
const kindOf = (toast) =>
  Object.keys(KINDS).find((kind) => toast.querySelector(".toast-title")?.classList.contains(kind));

/** Where Gradio puts its notices is there before the page's own components. */
export function translateToasts() {
  const place = document.querySelector(".toast-wrap") ?? document.body;
  new MutationObserver(() => {
    const toasts = [...place.querySelectorAll(".toast-body")];
    for (const toast of toasts) translate(toast);
    keepNewest(toasts);
  }).observe(place, { childList: true, subtree: true });
}
