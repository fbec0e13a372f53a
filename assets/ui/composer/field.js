// A text field of Gradio's with its words coloured: a layer behind it holds the same text in the same place, invisible
// but for what marks its words. What is read, typed and heard is the field itself.
import { make } from "../lib/dom.js";
import { changeOf, pieces } from "./spans.js";

/** @typedef {import("../types.js").PromptWordValue} Word */

// All that decides where a letter stands.
const SHAPE = /** @type {const} */ ([
  "fontFamily",
  "fontSize",
  "fontWeight",
  "fontStyle",
  "fontStretch",
  "fontVariant",
  "lineHeight",
  "letterSpacing",
  "wordSpacing",
  "textIndent",
  "textAlign",
  "direction",
  "tabSize",
  "padding",
]);

/** @type {WeakMap<HTMLTextAreaElement, (words: Word[]) => void>} */
const layers = new WeakMap();

/** Colour the words of a field. @param {HTMLTextAreaElement} field @param {Word[]} words */
export function colour(field, words) {
  const show = layers.get(field) ?? layer(field);
  layers.set(field, show);
  show(words);
}

/** @param {HTMLTextAreaElement} field */
function layer(field) {
  const behind = make("div", "os-behind");
  behind.setAttribute("aria-hidden", "true");
  field.classList.add("os-over");

  function place() {
    if (!behind.isConnected) field.before(behind);
    if (field.parentElement) field.parentElement.style.position = "relative";
    const style = getComputedStyle(field);
    for (const name of SHAPE) behind.style[name] = style[name];
    // Without its scroll bar and border, and by the fraction of a pixel, so that lines break at the same place.
    const { width, height } = field.getBoundingClientRect();
    Object.assign(behind.style, {
      left: `${field.offsetLeft + field.clientLeft}px`,
      top: `${field.offsetTop + field.clientTop}px`,
      width: `${width - (field.offsetWidth - field.clientWidth)}px`,
      height: `${height - (field.offsetHeight - field.clientHeight)}px`,
    });
    follow();
  }
  const follow = () => {
    behind.scrollTop = field.scrollTop;
    behind.scrollLeft = field.scrollLeft;
  };
  field.addEventListener("scroll", follow, { passive: true });
  new ResizeObserver(place).observe(field);

  return (/** @type {Word[]} */ words) => {
    const nodes = pieces(field.value, words).map(({ text, word }) => {
      if (!word) return text;
      const node = make("span", "", text);
      node.dataset.kind = word.kind;
      return node;
    });
    behind.replaceChildren(...nodes, "\n"); // or a last line that is empty would have no height
    place();
  };
}

/**
 * Give a field another text as if somebody had typed it, so that Ctrl+Z brings the old one back. The focus stays where
 * it is; without a keyboard (a phone would show its own for a moment) there is no Ctrl+Z either.
 * @param {HTMLTextAreaElement} field @param {string} text
 */
export function type(field, text) {
  const { start, end, text: put } = changeOf(field.value, text);
  const focused = document.activeElement;
  const typing = field.offsetParent !== null && !matchMedia("(pointer: coarse)").matches;
  if (typing) {
    field.focus({ preventScroll: true });
    field.setSelectionRange(start, end);
    const done = put ? document.execCommand("insertText", false, put) : document.execCommand("delete");
    if (focused instanceof HTMLElement && focused !== field) focused.focus({ preventScroll: true });
    if (done && field.value === text) return;
  }
  field.setRangeText(put, start, end, "end");
  if (field.value !== text) field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
