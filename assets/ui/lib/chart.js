// Lines over numbers.
import { vector } from "./dom.js";

/**
 * From [a, b] to [c, d], linearly.
 * @param {[number, number]} from @param {[number, number]} to
 */
export const linear =
  ([a, b], [c, d]) =>
  (/** @type {number} */ x) =>
    c + ((x - a) / (b - a || 1)) * (d - c);

/**
 * The `d` of a line through points, with a gap at every null; a point between two gaps is a dot.
 * @param {([number, number] | null)[]} points
 */
export function linePath(points) {
  return points
    .map((point, i) => {
      if (!point) return "";
      const place = `${point[0].toFixed(2)} ${point[1].toFixed(2)}`;
      return points[i - 1] ? `L${place}` : `M${place}h0.01`;
    })
    .join("");
}

/**
 * A chart that is drawn anew for every width, so that its text keeps its size; at most `tall` pixels high, lower where
 * it is narrow.
 * @param {number} tall
 * @param {string} label
 * @param {(node: SVGSVGElement, width: number, height: number) => void} act
 */
export function chartOf(tall, label, act) {
  const node = vector("svg", { class: "os-chart", role: "img", "aria-label": label, height: tall });
  let width = 0;
  const draw = () => {
    if (!node.clientWidth && !width) return;
    width = node.clientWidth || width;
    const height = Math.min(tall, Math.round(width * 0.56));
    node.setAttribute("height", String(height));
    node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    act(node, width, height);
  };
  new ResizeObserver(() => {
    if (node.clientWidth !== width) draw();
  }).observe(node);
  return { node, draw };
}
