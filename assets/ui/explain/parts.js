// What the figures are made of: rows of options, sliders, tiles for pictures.
import { button, make } from "../lib/dom.js";
import { clamp } from "../lib/maths.js";

/**
 * What was picked in the figures, kept from one run to the next.
 * @typedef {Record<string, number | undefined>} Pick
 */

/**
 * A row of buttons of which one is pressed, kept as `pick[key]`.
 * @param {Pick} pick @param {string} key
 * @param {{ label: string, names: string[], start: number, act: () => void }} setting
 */
export function options(pick, key, { label, names, start, act }) {
  const box = make("div", "os-explain-pick");
  const list = make("div", "os-explain-options");
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", label);
  /** @param {number} i */
  const press = (i) => {
    pick[key] = i;
    for (const [k, node] of nodes.entries()) node.setAttribute("aria-pressed", String(k === i));
  };
  const nodes = names.map((name, i) =>
    button("os-explain-option", name, () => {
      press(i);
      act();
    }),
  );
  press(clamp(pick[key] ?? start, 0, names.length - 1));
  list.append(...nodes);
  box.append(make("span", "", label), list);
  return box;
}

/**
 * A slider, kept as `pick[key]`; `tell` puts its value into words. Its coloured part lies `before` the handle, or `after`
 * it where the value is the first of what is meant.
 * `set` puts it to a value without acting.
 * @param {Pick} pick @param {string} key
 * @param {{ label: string, high: number, step?: number, start: number, fill?: "before" | "after", tell: (value: number) => string, act: () => void }} setting
 */
export function slider(pick, key, { label, high, step = 1, start, fill = "before", tell, act }) {
  const box = make("label", "os-explain-slide");
  const input = make("input");
  const out = make("output");
  input.dataset.fill = fill;
  Object.assign(input, { type: "range", min: "0", max: String(high), step: String(step), ariaLabel: label });
  /** @param {number} value */
  const show = (value) => {
    pick[key] = value;
    out.textContent = tell(value);
    input.style.setProperty("--at", `${(100 * value) / (high || 1)}%`);
    input.setAttribute("aria-valuetext", out.textContent);
  };
  show(clamp(pick[key] ?? start, 0, high));
  input.value = String(pick[key]);
  input.addEventListener("input", () => {
    show(Number(input.value));
    act();
  });
  box.append(make("span", "", label), input, out);
  return Object.assign(box, {
    /** @param {number} value */
    set(value) {
      input.value = String(value);
      show(value);
    },
  });
}

/** A picture with a name under it. @param {number} height @param {number} width @param {string} [label] */
export function tile(height, width, label = "") {
  const box = make("div", "os-explain-frame");
  const frame = make("div", "os-explain-tile");
  const canvas = make("canvas");
  const name = make("span", "", label);
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.append(canvas);
  box.append(frame, name);
  return { box, frame, canvas, name };
}

/** A row of controls. @param {Node[]} nodes */
export function row(...nodes) {
  const box = make("div", "os-explain-row");
  box.append(...nodes);
  return box;
}

/** @param {number} x */
export const two = (x) => x.toFixed(2);
