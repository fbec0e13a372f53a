// What Gradio's controls do not say: what a button does, and that a number was out of range before it was moved into it.
import { make, onDocument } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { memoryOf } from "../lib/session.js";

const SAID_MS = 6000;
const BUTTONS = {
  "preset-quick": "ui.preset.quick.hint",
  "preset-standard": "ui.preset.standard.hint",
  "preset-fine": "ui.preset.fine.hint",
  "preset-strong": "ui.preset.strong.hint",
  "random-seed": "ui.random.hint",
  "no-seed": "ui.no_seed",
};

export function nameButtons() {
  for (const [id, code] of Object.entries(BUTTONS)) {
    const node = document.getElementById(id);
    if (!node) continue;
    node.title = say(code);
    if (id === "no-seed") node.setAttribute("aria-label", say(code));
  }
}

/**
 * What is to be said of a number that a control with limits does not take; null where it does.
 * @param {string} typed @param {string} min @param {string} max
 */
export function outOfRange(typed, min, max) {
  const number = Number(typed);
  if (typed === "" || min === "" || max === "" || (number >= Number(min) && number <= Number(max))) return null;
  return { low: Number(min), high: Number(max) };
}

/**
 * What stands in the box of a setting that was emptied: its default, as in a link or call that does not name it. Gradio
 * would put the least that there is. @type {{ of: Record<string, number> }}
 */
const defaults = memoryOf("defaults", { of: {} });

/** @param {FocusEvent} event */
function fillEmpty(event) {
  const field = event.target;
  if (!(field instanceof HTMLInputElement) || field.type !== "number" || field.value || field.validity.badInput) return;
  const usual = defaults.of[field.closest(".block[id]")?.id ?? ""];
  if (usual === undefined) return;
  field.value = String(usual);
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

const PICTURES = "image/png,image/jpeg,image/webp,image/avif,image/gif";
const ASKING = "#reference input[type=file], #last-frame input[type=file]";

/** A phone that is asked for any image hands over its own kind, HEIC; asked for these it converts. */
export function askForPictures() {
  const ask = () => {
    for (const node of document.querySelectorAll(ASKING))
      if (node.getAttribute("accept") !== PICTURES) node.setAttribute("accept", PICTURES);
  };
  const page = document.querySelector(".gradio-container") ?? document.body;
  new MutationObserver(ask).observe(page, { subtree: true, childList: true, attributeFilter: ["accept"] });
  ask();
}

/** A slider's number is moved into its range as soon as one leaves it: say so beneath. @param {HTMLElement} element */
export function watchRanges(element) {
  /** @type {WeakMap<HTMLInputElement, string>} */
  const typed = new WeakMap();
  const numberOf = (/** @type {Event} */ event) =>
    event.target instanceof HTMLInputElement && event.target.type === "number" ? event.target : null;
  onDocument(element, "input", (event) => {
    const field = numberOf(event);
    if (field) typed.set(field, field.value);
  });
  document.addEventListener("blur", fillEmpty, true); // before Gradio hears of it
  onDocument(element, "focusout", (event) => {
    const field = numberOf(event);
    const limits = field && outOfRange(typed.get(field) ?? "", field.min, field.max);
    if (!field || !limits) return;
    typed.delete(field);
    const note = make("p", "os-range-note", say("ui.range", limits));
    note.setAttribute("role", "status");
    const block = field.closest(".block") ?? field.parentElement;
    block?.querySelector(".os-range-note")?.remove();
    block?.append(note);
    setTimeout(() => note.remove(), SAID_MS);
  });
}
