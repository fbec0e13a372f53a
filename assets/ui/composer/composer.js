// The prompt as it is understood: its words coloured by kind, chips that are one state with it, and what could stand
// in the place of words that the model does not know. What words mean is Python's to say; here they are drawn.
import { button, find, make, onDocument } from "../lib/dom.js";
import { language, say } from "../lib/i18n.js";
import { roving } from "../lib/roving.js";
import { memoryOf } from "../lib/session.js";
import { colour, type } from "./field.js";
import { finished, moved } from "./spans.js";

/** @typedef {import("../types.js").ChipKind} ChipKind */
/** @typedef {import("../types.js").ChipsValue} ChipsValue */
/** @typedef {import("../types.js").PromptValue} PromptValue */
/** @typedef {import("../types.js").PromptWordValue} Word */
/** @typedef {{ text: string, words: Word[] }} Reading */
/** @typedef {{ chips: ChipsValue["chips"] | null, fewer: ChipsValue["fewer"], reading: Reading, seen: string, model: string, act: Notice }} Memory */
/** @typedef {(text: string, model: string) => void} Notice */

/** @type {Record<ChipKind, string>} */
const TITLES = {
  colour: "ui.chips.colour",
  shape: "ui.chips.shape",
  motion: "ui.chips.motion",
  place: "ui.chips.place",
};
const FIELDS = "#prompt textarea, #compare-prompt textarea";
const MOST_UNREAD = 6;
const PAUSE_MS = 120; // of typing, before Python is asked

/** @returns {Memory} */
const memory = () =>
  memoryOf("composer", {
    chips: null,
    fewer: {},
    reading: { text: "", words: [] },
    seen: "",
    model: "",
    act: () => {},
  });

const prompt = () => document.querySelector("#prompt textarea");

/** The prompt or the model has changed, whoever changed it. @param {string} text @param {string} model */
export function notice(text, model) {
  memory().act(text, model);
  return [];
}

/** @param {import("../lib/host.js").Host<ChipsValue | PromptValue>} host */
export function start({ element, trigger, props, watch }) {
  const box = find(element, ".os-chooser", HTMLElement);
  const unread = find(element, ".os-unread", HTMLElement);
  const kept = memory();
  /** @type {Record<string, unknown>[]} */
  const waiting = []; // chips pressed before the one before them is in the sentence
  let turn = 0;
  let busy = false;
  let asking = 0;

  // --- chips

  /** @param {ChipKind} kind @param {string} value @param {string} word */
  function chip(kind, value, word) {
    const node = button("os-word", word, () =>
      edit({ kind, value, pressed: node.getAttribute("aria-pressed") === "true" }),
    );
    node.dataset.kind = kind;
    node.dataset.value = value;
    node.setAttribute("aria-pressed", "false");
    return node;
  }

  function drawChips() {
    const rows = /** @type {[ChipKind, Record<string, import("../types.js").WordValue>][]} */ (
      Object.entries(kept.chips ?? {})
    ).map(([kind, values]) => {
      const row = make("div", "os-words");
      row.dataset.kind = kind;
      const list = make("div", "os-list");
      list.setAttribute("role", "group");
      list.setAttribute("aria-label", say(TITLES[kind]));
      list.append(...Object.entries(values).map(([value, words]) => chip(kind, value, words[language])));
      const title = make("span", "os-kind", say(TITLES[kind]));
      title.dataset.kind = kind;
      row.append(title, list);
      return row;
    });
    box.replaceChildren(...rows);
    roving(box, ".os-word", ".os-list");
  }

  // --- the sentence

  /** @param {Record<string, unknown>} change */
  function edit(change) {
    const field = prompt();
    if (!(field instanceof HTMLTextAreaElement)) return;
    if (busy) {
      waiting.push(change);
      return;
    }
    busy = true;
    turn += 1;
    trigger("edit", { text: field.value, turn, at: field.selectionStart, language, ...change });
  }

  function understand() {
    clearTimeout(asking);
    asking = window.setTimeout(() => {
      if (kept.seen === kept.reading.text) return;
      turn += 1;
      trigger("understand", { text: kept.seen, turn });
    }, PAUSE_MS);
  }

  /** What the page shows of the words it knows: exact once Python has answered, moved along until then. */
  function show() {
    const words = moved(kept.reading.words, kept.reading.text, kept.seen);
    for (const field of document.querySelectorAll(FIELDS)) {
      if (!(field instanceof HTMLTextAreaElement)) continue;
      const caret = field === document.activeElement ? field.selectionEnd : null;
      colour(field, field.value === kept.seen ? finished(words, caret) : []);
    }
    showRows();
    for (const list of box.querySelectorAll(".os-list")) light(/** @type {HTMLElement} */ (list), words);
    showUnread(words);
  }

  /** The rows of words that the model reads. */
  function showRows() {
    const kinds = kept.fewer[kept.model];
    for (const row of /** @type {NodeListOf<HTMLElement>} */ (box.querySelectorAll(".os-words")))
      row.hidden = Boolean(kinds && !kinds.some((kind) => kind === row.dataset.kind));
  }

  /** Press the chips of a row that are in the sentence; one that was not pressed before comes into sight.
   * @param {HTMLElement} list @param {Word[]} words */
  function light(list, words) {
    for (const node of /** @type {NodeListOf<HTMLElement>} */ (list.querySelectorAll(".os-word"))) {
      const { kind, value } = node.dataset;
      const pressed = String(words.some((word) => word.kind === kind && word.value === value));
      if (node.getAttribute("aria-pressed") === pressed) continue;
      node.setAttribute("aria-pressed", pressed);
      if (pressed === "true" && list.scrollWidth > list.clientWidth)
        list.scrollLeft = node.offsetLeft - list.offsetLeft - (list.clientWidth - node.offsetWidth) / 2;
    }
  }

  /** @param {Word[]} words */
  function showUnread(words) {
    const field = prompt();
    const caret = field instanceof HTMLTextAreaElement && field === document.activeElement ? field.selectionEnd : null;
    const unknown = finished(words, caret).filter((word) => word.kind === "unknown");
    const all = kept.seen.trim() ? "ui.prompt.all_read" : "ui.prompt.hint";
    const text = say(unknown.length ? "ui.prompt.not_read" : all);
    const more = unknown.length - MOST_UNREAD;
    const nodes = unknown.slice(0, MOST_UNREAD).map((word) => {
      const typed = kept.seen.slice(word.start, word.end);
      if (!word.near) return make("span", "os-lost", typed);
      const node = button("os-near", "", () => edit({ at: word.start }));
      node.append(make("span", "os-lost", typed), ` → ${word.near}`);
      node.title = say("ui.prompt.take", { word: typed, near: word.near });
      return node;
    });
    const shown = `${text} ${nodes.map((node) => node.textContent)}`;
    if (unread.dataset.shown === shown) return; // or a screen reader would say it at every letter
    unread.dataset.shown = shown;
    unread.classList.toggle("os-some", unknown.length > 0);
    const rest = more > 0 ? [make("span", "", say("ui.prompt.more", { count: more }))] : [];
    unread.replaceChildren(make("span", "", text), ...nodes, ...rest);
  }

  kept.act = (text, model) => {
    const field = prompt();
    if (field instanceof HTMLTextAreaElement && text !== kept.seen && field.value === text) undoable(field, text);
    kept.seen = text;
    if (model !== kept.model) kept.reading = { text: "", words: [] };
    kept.model = model;
    show();
    understand();
  };

  /** Gradio has put another text into the field, which empties its history: put it there as if it were typed. */
  function undoable(/** @type {HTMLTextAreaElement} */ field, /** @type {string} */ text) {
    const typing = document.activeElement?.matches("input, textarea");
    if (!kept.seen || typing || field.offsetParent === null) return;
    field.value = kept.seen;
    type(field, text);
  }

  onDocument(element, "input", (event) => {
    const field = event.target;
    if (!(field instanceof HTMLTextAreaElement) || !field.matches(FIELDS)) return;
    kept.seen = field.value;
    show();
    if (!(event instanceof InputEvent && event.isComposing)) understand();
  });
  onDocument(element, "compositionend", () => understand());
  onDocument(element, "selectionchange", () => {
    if (document.activeElement === prompt()) show();
  });
  onDocument(element, "focusout", (event) => {
    if (event.target === prompt()) requestAnimationFrame(show);
  });

  function receive() {
    const value = props.value;
    if (!value) return;
    if ("chips" in value) {
      kept.chips = value.chips;
      kept.fewer = value.fewer;
      return;
    }
    const field = prompt();
    if (value.before !== null) {
      busy = false;
      if (field instanceof HTMLTextAreaElement && field.value === value.before) {
        kept.reading = { text: value.text, words: value.words };
        if (value.text !== value.before) type(field, value.text);
      }
      const next = waiting.shift();
      if (next) edit(next);
    } else if (value.text === kept.seen) {
      kept.reading = { text: value.text, words: value.words };
    }
    show();
  }
  watch("value", receive);
  receive();
  drawChips();
  show();
}
