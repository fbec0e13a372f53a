// The points of a curve over the steps, as opensora_demo/request/curve.py has them: [fraction of the steps, share]. Pure.

/** @typedef {[number, number]} Point */

export const MOST_POINTS = 12;
export const MOST_SHARE = 2;
const APART = 0.01; // fractions of two points at least

/** @param {number} value @param {number} low @param {number} high */
const within = (value, low, high) => Math.min(Math.max(value, low), high);

/** @param {number} value */
const hundredths = (value) => Math.round(value * 100) / 100;

/**
 * What a text says; null where it says no curve that could be drawn (half typed, or wrong).
 * @param {string} text
 * @returns {Point[] | null}
 */
export function readPoints(text) {
  const parts = text.split(/[,;\s]+/).filter(Boolean);
  const points = parts.map((part) => part.split(":").map((number) => (number === "" ? Number.NaN : Number(number))));
  let before = -1;
  for (const [fraction = Number.NaN, share = Number.NaN, ...more] of points) {
    if (more.length || !(fraction > before && fraction <= 1 && share >= 0 && share <= MOST_SHARE)) return null;
    before = fraction;
  }
  return points.length > MOST_POINTS ? null : /** @type {Point[]} */ (points);
}

/** @param {Point[]} points */
export const writePoints = (points) => points.map(([fraction, share]) => `${fraction}:${share}`).join(", ");

/**
 * The points with one moved, as far as its neighbours and the edges let it.
 * @param {Point[]} points @param {number} index @param {number} fraction @param {number} share
 * @returns {Point[]}
 */
export function movePoint(points, index, fraction, share) {
  const low = index > 0 ? (points[index - 1]?.[0] ?? 0) + APART : 0;
  const high = index + 1 < points.length ? (points[index + 1]?.[0] ?? 1) - APART : 1;
  const moved = /** @type {Point} */ ([
    hundredths(within(fraction, low, Math.max(low, high))),
    hundredths(within(share, 0, MOST_SHARE)),
  ]);
  return points.map((point, i) => (i === index ? moved : point));
}

/**
 * The points with a new one, and which it is; with its ends where there was none. Null where there is no room.
 * @param {Point[]} points @param {number} fraction @param {number} share
 * @returns {{ points: Point[], index: number } | null}
 */
export function addPoint(points, fraction, share) {
  /** @type {Point[]} */
  const ends = [
    [0, 1],
    [1, 1],
  ];
  const before = points.length ? points : ends;
  const at = hundredths(within(fraction, 0, 1));
  const near = before.findIndex(([other]) => Math.abs(other - at) < APART - 1e-9);
  if (near >= 0) return { points: movePoint(before, near, at, share), index: near };
  if (before.length >= MOST_POINTS) return null;
  const index = before.filter(([other]) => other < at).length;
  const point = /** @type {Point} */ ([at, hundredths(within(share, 0, MOST_SHARE))]);
  return { points: [...before.slice(0, index), point, ...before.slice(index)], index };
}

/**
 * The fraction in the middle of the widest gap between points: where a new one helps most.
 * @param {Point[]} points
 */
export function widestGap(points) {
  const at = [0, ...points.map(([fraction]) => fraction), 1];
  let best = 0;
  for (let i = 1; i + 1 < at.length; i++) {
    if ((at[i + 1] ?? 0) - (at[i] ?? 0) > (at[best + 1] ?? 0) - (at[best] ?? 0)) best = i;
  }
  return hundredths(((at[best] ?? 0) + (at[best + 1] ?? 1)) / 2);
}

/**
 * The share at a fraction; 1 without points.
 * @param {Point[]} points @param {number} fraction
 */
export function shareAt(points, fraction) {
  const first = points[0];
  if (!first) return 1;
  if (fraction <= first[0]) return first[1];
  let before = first;
  for (const point of points) {
    if (fraction <= point[0]) {
      return before[1] + ((point[1] - before[1]) * (fraction - before[0])) / (point[0] - before[0] || 1);
    }
    before = point;
  }
  return before[1];
}

/** The scale that a share of the pull comes to. @param {number} share @param {number} guidance */
export const scaleOf = (share, guidance) => hundredths(1 + share * (guidance - 1));
