// Where the weights of one token lie in a map of attention. Pure.

/** @typedef {import("../types.js").AttentionMap["kind"]} Kind */
/** @typedef {{ frame: number, place: number }} Token both from 0 */
/** @typedef {{ frames: number, places: number, heads: number, words: number }} Shape */

/**
 * How long a row is, and where the row of a token begins for each head.
 * @param {Kind} kind @param {Token} token @param {Shape} shape
 * @returns {{ length: number, starts: number[] }}
 */
export function rowOf(kind, { frame, place }, { frames, places, heads, words }) {
  const tokens = frames * places;
  const all = Array.from({ length: heads }, (_, head) => head);
  switch (kind) {
    case "space": // (frames, heads, places, places)
      return { length: places, starts: all.map((head) => ((frame * heads + head) * places + place) * places) };
    case "time": // (places, heads, frames, frames)
      return { length: frames, starts: all.map((head) => ((place * heads + head) * frames + frame) * frames) };
    case "all": // (heads, tokens, tokens)
      return { length: tokens, starts: all.map((head) => (head * tokens + frame * places + place) * tokens) };
    case "text": // (heads, tokens, words)
      return { length: words, starts: all.map((head) => (head * tokens + frame * places + place) * words) };
  }
}

/**
 * A token's weights, of one head or the mean over all.
 * @param {ArrayLike<number>} weights of 16 bits
 * @param {{ length: number, starts: number[] }} row
 * @param {number | null} head
 */
export function weightsOf(weights, { length, starts }, head) {
  const taken = head === null ? starts : starts.slice(head, head + 1);
  return Array.from({ length }, (_, k) => {
    const sum = taken.reduce((total, start) => total + (weights[start + k] ?? 0), 0);
    return sum / 65535 / taken.length;
  });
}

/**
 * The tokens of the clip that a row of weights is about.
 * @param {Exclude<Kind, "text">} kind @param {Token} token @param {Shape} shape @param {number} k
 */
export function tokenAt(kind, { frame, place }, { places }, k) {
  if (kind === "space") return frame * places + k;
  return kind === "time" ? k * places + place : k;
}
