// Curves of adaLN over flow time, a line for each block.
import { linear, linePath } from "../lib/chart.js";
import { vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";

/** @typedef {import("../types.js").CurveValue} Curve */

export const TALL = 168;
const LEFT = 32;
const TOP = 8;
const BOTTOM = 24;

/** @param {Curve} curve @returns {string} "3", "3 space" */
export function blockOf({ layer, kind }) {
  if (kind === null) return String(layer + 1);
  return say(kind === "space" ? "ui.explain.block_space" : "ui.explain.block_time", { block: layer + 1 });
}

/** The deeper the block, the stronger its line; dashed is over time. @param {SVGElement} node @param {Curve} curve @param {number} layers */
export function styleLine(node, curve, layers) {
  node.setAttribute("stroke-opacity", (0.35 + (0.65 * (curve.layer + 1)) / layers).toFixed(2));
  if (curve.kind === "time") node.setAttribute("stroke-dasharray", "4 3");
}

/**
 * @param {SVGElement} chart
 * @param {number} width
 * @param {object} shown
 * @param {{ curve: Curve, numbers: number[] }[]} shown.lines
 * @param {number} shown.layers of the network
 * @param {number} shown.top the largest number of all charts
 * @param {number} shown.time index of the marker
 * @param {string | null | undefined} shown.chosen the block that is followed
 */
export function drawCurves(chart, width, { lines, layers, top, time, chosen }) {
  const last = Math.max(...lines.map(({ numbers }) => numbers.length)) - 1;
  const x = linear([0, last], [LEFT, width - 4]);
  const y = linear([0, top * 1.05], [TALL - BOTTOM, TOP]);
  const axis = `M${LEFT} ${TOP}V${TALL - BOTTOM}H${width - 4}`;
  chart.replaceChildren(vector("path", { class: "os-explain-axis", d: axis }));
  for (const value of [0, top]) {
    const text = value.toFixed(value < 1 ? 2 : 1);
    chart.append(vector("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  const ticks = /** @type {const} */ ([
    [0, say("ui.explain.t_noise"), "start"],
    [0.5, "0.5", "middle"],
    [1, say("ui.explain.t_clip"), "end"],
  ]);
  for (const [share, text, anchor] of ticks) {
    chart.append(vector("text", { x: x(share * last), y: TALL - 6, "text-anchor": anchor }, text));
  }
  for (const { curve, numbers } of lines) {
    const line = vector("path", {
      class: "os-explain-line",
      d: linePath(numbers.map((value, i) => [x(i), y(value)])),
    });
    styleLine(line, curve, layers);
    line.classList.toggle("os-explain-on", blockOf(curve) === chosen);
    line.classList.toggle("os-explain-off", Boolean(chosen) && blockOf(curve) !== chosen);
    chart.append(line);
  }
  const at = x(time).toFixed(1);
  chart.append(vector("path", { class: "os-explain-marker", d: `M${at} ${TOP}V${TALL - BOTTOM}` }));
}
