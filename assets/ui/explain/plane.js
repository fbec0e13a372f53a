// Points of a plane on the screen. Pure.

/** @typedef {[number, number]} Point */

/**
 * Places points in a box of `width` by `height`, both axes alike, `pad` from its sides; y goes up.
 * @param {Point[]} points @param {number} width @param {number} height @param {number} pad
 * @returns {(point: Point) => Point}
 */
export function plane(points, width, height, pad) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const unit = Math.min((width - 2 * pad) / Math.max(x1 - x0, 1e-6), (height - 2 * pad) / Math.max(y1 - y0, 1e-6));
  const left = (width - unit * (x1 - x0)) / 2;
  return ([x, y]) => [left + unit * (x - x0), height / 2 + unit * ((y0 + y1) / 2 - y)];
}

/** The head of an arrow, as the `d` of a path; empty where the arrow is too short. @param {Point} from @param {Point} to @param {number} size */
export function arrowHead([ax, ay], [bx, by], size) {
  const long = Math.hypot(bx - ax, by - ay);
  if (long < 2) return "";
  const ux = (bx - ax) / long;
  const uy = (by - ay) / long;
  const s = Math.min(size, long);
  const left = `${bx - s * ux - 0.45 * s * uy} ${by - s * uy + 0.45 * s * ux}`;
  const right = `${bx - s * ux + 0.45 * s * uy} ${by - s * uy - 0.45 * s * ux}`;
  return `M${bx} ${by}L${left}L${right}Z`;
}

/**
 * The null and the prompt prediction turned so that their difference lies to the right: every mix stands on one level
 * line. `u` is the null one, `mixed(s)` the mix for a scale.
 * @param {number} nullNorm @param {Point} prompt
 * @returns {{ u: Point, mixed: (scale: number) => Point }}
 */
export function level(nullNorm, [x, y]) {
  const far = Math.hypot(x - nullNorm, y) || 1;
  const [rx, ry] = [(x - nullNorm) / far, y / far];
  const side = nullNorm * ry < 0 ? -1 : 1;
  /** @type {Point} */
  const u = [nullNorm * rx, side * nullNorm * ry];
  return { u, mixed: (scale) => [u[0] + scale * far, u[1]] };
}

/**
 * A round length of which `unit` pixels each come near to `wanted` pixels, for a scale bar: 1, 2 or 5 times a power of ten.
 * @param {number} unit pixels of the length 1 @param {number} wanted pixels
 */
export function roundLength(unit, wanted) {
  const power = 10 ** Math.floor(Math.log10(wanted / unit));
  const most = wanted / unit / power;
  return power * (most >= 5 ? 5 : most >= 2 ? 2 : 1);
}
