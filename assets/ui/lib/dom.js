// Elements: made and found here, filled only with textContent.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with a class and a text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {string} [text]
 */
export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * The same for SVG, with attributes.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {string} [text]
 */
export function vector(tag, attributes = {}, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * A button that acts.
 * @param {string} className
 * @param {string} text
 * @param {() => void} act
 */
export function button(className, text, act) {
  const node = make("button", className, text);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}

/**
 * The first element a selector finds, which must be there and of that type.
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T}
 */
export function find(root, selector, type) {
  const node = root.querySelector(selector);
  if (!(node instanceof type)) throw new Error(`no ${selector}`);
  return node;
}

/**
 * Give an element a text where it has another: a text that is set draws the page anew, even the same one.
 * @param {Element} node
 * @param {string} text
 */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The language of what somebody typed, for those who have it read aloud. @param {string} text */
export const languageOf = (text) => (/[\u3400-\u9fff]/.test(text) ? "zh" : "en");

/** @param {HTMLCanvasElement} canvas */
export function penOf(canvas, willReadFrequently = false) {
  const pen = canvas.getContext("2d", { willReadFrequently });
  if (!pen) throw new Error("this browser has no 2-D canvas");
  return pen;
}

/**
 * Listen on the document for as long as an element is part of it.
 * @template {keyof DocumentEventMap} K
 * @param {Element} element
 * @param {K} type
 * @param {(event: DocumentEventMap[K]) => void} act
 */
export function onDocument(element, type, act) {
  /** @param {DocumentEventMap[K]} event */
  const listener = (event) => {
    if (element.isConnected) act(event);
    else document.removeEventListener(type, listener);
  };
  document.addEventListener(type, listener);
}

/**
 * Whether a key is for the input method that somebody writes Chinese, Japanese or Korean with: Enter and Escape are
 * answers to it. Some browsers end the composition before the key comes, and say so by 229.
 * @param {KeyboardEvent} event
 */
export const composes = (event) => event.isComposing || event.keyCode === 229;

const TYPING = "input, textarea, select, [contenteditable], [role=slider], [role=combobox]";

/**
 * Keys of a component while it can be seen: not while somebody types, and not where they mean something already.
 * @param {HTMLElement} element
 * @param {() => boolean} shown
 * @param {Record<string, () => void>} acts
 */
export function onKeys(element, shown, acts) {
  onDocument(element, "keydown", (event) => {
    const act = acts[event.key];
    const target = event.target instanceof Element ? event.target : document.body;
    if (!act || composes(event) || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !shown())
      return;
    if (target.closest(TYPING) || (event.key === " " && target.closest("button, a, summary"))) return;
    event.preventDefault();
    act();
  });
}
