// A small curve to draw: how much of guidance's pull is in force at each step.
import { linear, linePath } from "../lib/chart.js";
import { button, find, make, vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { addPoint, MOST_SHARE, movePoint, readPoints, scaleOf, shareAt, widestGap, writePoints } from "./points.js";

/** @typedef {import("./points.js").Point} Point */

const WIDTH = 320;
const HEIGHT = 146;
const LEFT = 40;
const TOP = 10;
const BOTTOM = 32;
const RIGHT = 10;
const FRACTION_STEP = 0.05;
const SHARE_STEP = 0.1;
const across = linear([0, 1], [LEFT, WIDTH - RIGHT]);
const up = linear([0, MOST_SHARE], [HEIGHT - BOTTOM, TOP]);

/** @param {import("../lib/host.js").Host<import("../types.js").GuidanceCurveValue>} host */
export function start({ element, trigger, props, watch }) {
  const box = find(element, ".os-curve", HTMLElement);
  const plot = vector("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "os-curve-plot" });
  const grid = vector("g", { "aria-hidden": "true" });
  const line = vector("path", { class: "os-curve-line", "aria-hidden": "true" });
  const dots = vector("g", { role: "group" });
  plot.append(grid, line, dots);

  /** @type {Point[]} */
  let points = [];
  let guidance = 1;
  let chosen = -1;
  let written = "";

  const add = button("os-curve-button", say("ui.curve.add"), () => {
    const at = points.length ? widestGap(points) : 0.5;
    put(at, shareAt(points, at));
  });
  const remove = button("os-curve-button", say("ui.curve.remove"), () => drop(chosen));
  const clear = button("os-curve-button", say("ui.curve.clear"), () => change([], -1));
  const buttons = make("div", "os-curve-buttons");
  buttons.append(add, remove, clear);
  const keys = make("p", "os-curve-keys", say("ui.curve.keys"));
  box.append(plot, buttons, keys);
  plot.setAttribute("aria-label", say("label.curve"));
  plot.setAttribute("role", "group");

  /** Where a pointer is: fraction and share. @param {PointerEvent} event @returns {Point} */
  function place(event) {
    const { left, top, width, height } = plot.getBoundingClientRect();
    const x = ((event.clientX - left) / (width || 1)) * WIDTH;
    const y = ((event.clientY - top) / (height || 1)) * HEIGHT;
    return [(x - LEFT) / (WIDTH - RIGHT - LEFT), ((HEIGHT - BOTTOM - y) / (HEIGHT - BOTTOM - TOP)) * MOST_SHARE];
  }

  /** Other points, drawn and sent. @param {Point[]} next @param {number} index */
  function change(next, index) {
    points = next;
    chosen = index;
    draw();
    send();
    if (index >= 0) focusDot(index);
  }

  function send() {
    const text = writePoints(points);
    if (text === written) return;
    written = text;
    trigger("draw", { curve: text });
  }

  /** @param {number} index */
  function focusDot(index) {
    const dot = dots.children[index];
    if (dot instanceof SVGElement) dot.focus();
  }

  /** @param {number} fraction @param {number} share */
  function put(fraction, share) {
    const added = addPoint(points, fraction, share);
    if (added) change(added.points, added.index);
  }

  /** @param {number} index */
  function drop(index) {
    const next = points.filter((_, i) => i !== index);
    change(next, Math.min(index, next.length - 1));
  }

  /** @param {number} index @returns {SVGCircleElement} */
  function dotOf(index) {
    const dot = vector("circle", { r: 7, class: "os-curve-dot", role: "slider", tabindex: 0 });
    dot.setAttribute("aria-valuemin", "0");
    dot.setAttribute("aria-valuemax", String(MOST_SHARE));
    dot.addEventListener("focus", () => {
      chosen = index;
      show();
    });
    dot.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      dot.setPointerCapture(event.pointerId);
      chosen = index;
    });
    dot.addEventListener("pointermove", (event) => {
      if (!dot.hasPointerCapture(event.pointerId)) return;
      points = movePoint(points, index, ...place(event));
      show();
    });
    dot.addEventListener("pointerup", send);
    dot.addEventListener("keydown", (event) => {
      const [fraction, share] = points[index] ?? [0, 1];
      /** @type {Record<string, [number, number]>} */
      const moves = {
        ArrowLeft: [-FRACTION_STEP, 0],
        ArrowRight: [FRACTION_STEP, 0],
        ArrowUp: [0, SHARE_STEP],
        ArrowDown: [0, -SHARE_STEP],
        Home: [0, -MOST_SHARE],
        End: [0, MOST_SHARE],
      };
      const move = moves[event.key];
      if (move) {
        points = movePoint(points, index, fraction + move[0], share + move[1]);
        show();
        send();
      } else if (event.key === "Delete" || event.key === "Backspace") {
        drop(index);
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    });
    return dot;
  }

  /** Everything as the points are; their dots made anew where there are others. */
  function draw() {
    if (dots.children.length !== points.length) dots.replaceChildren(...points.map((_, i) => dotOf(i)));
    show();
  }

  /** What there is, where it is now. */
  function show() {
    const rows = [0, 1, 2].map((share) => {
      const row = vector("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up(share), y2: up(share), class: "os-curve-grid" });
      const name = vector(
        "text",
        { x: LEFT - 14, y: up(share) + 4, "text-anchor": "end" },
        `${scaleOf(share, guidance)}`,
      );
      return [row, name];
    });
    grid.replaceChildren(
      ...rows.flat(),
      vector("text", { x: LEFT, y: HEIGHT - 6 }, say("ui.curve.first")),
      vector("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, say("ui.curve.last")),
    );
    /** @type {Point[]} */
    const ends = [[0, shareAt(points, 0)], ...points, [1, shareAt(points, 1)]];
    line.setAttribute("d", linePath(ends.map(([fraction, share]) => [across(fraction), up(share)])));
    line.classList.toggle("os-curve-none", !points.length);
    points.forEach(([fraction, share], i) => {
      const dot = dots.children[i];
      if (!dot) return;
      dot.setAttribute("cx", String(across(fraction)));
      dot.setAttribute("cy", String(up(share)));
      dot.setAttribute("aria-label", say("ui.curve.point", { n: i + 1, percent: Math.round(100 * fraction) }));
      dot.setAttribute("aria-valuenow", String(share));
      dot.setAttribute("aria-valuetext", say("ui.curve.value", { share, scale: scaleOf(share, guidance) }));
      dot.classList.toggle("os-curve-chosen", i === chosen);
    });
    remove.disabled = chosen < 0 || chosen >= points.length;
    clear.disabled = !points.length;
  }

  plot.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    put(...place(event));
  });

  /** What the form holds now. A text that is no curve yet leaves the drawing as it is. */
  function follow() {
    const value = props.value || { curve: "", guidance: 1 };
    guidance = Number(value.guidance) || 0;
    const read = readPoints(value.curve ?? "");
    if (read && value.curve !== written) {
      points = read;
      chosen = -1;
      written = value.curve;
    }
    draw();
  }

  watch("value", follow);
  follow();
}
