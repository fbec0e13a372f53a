// Words inside of a text, and where they are once somebody has typed. Pure.

/** @typedef {import("../types.js").PromptWordValue} Word */
/** @typedef {{ start: number, end: number, text: string }} Change characters [start, end) of a text became `text` */

/**
 * The smallest change from one text to another.
 * @param {string} before @param {string} after
 * @returns {Change}
 */
export function changeOf(before, after) {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start++;
  let same = 0;
  while (same < most - start && before[before.length - 1 - same] === after[after.length - 1 - same]) same++;
  return { start, end: before.length - same, text: after.slice(start, after.length - same) };
}

/**
 * The words of a text that a change left whole, where they are now: until the new text is understood.
 * @param {Word[]} words @param {string} before @param {string} after
 */
export function moved(words, before, after) {
  if (before === after) return words;
  const { start, end, text } = changeOf(before, after);
  const by = text.length - (end - start);
  const first = words.filter((word) => word.end <= start && (word.end < start || !/^[\p{L}\p{N}]/u.test(text)));
  const last = words.filter((word) => word.start >= end && (word.start > end || !/[\p{L}\p{N}]$/u.test(text)));
  const behind = last.filter((word) => !first.includes(word));
  return [...first, ...behind.map((word) => ({ ...word, start: word.start + by, end: word.end + by }))];
}

/**
 * A text cut into its words and what is between them, null for that.
 * @param {string} text @param {Word[]} words in order, apart
 * @returns {{ text: string, word: Word | null }[]}
 */
export function pieces(text, words) {
  /** @type {{ text: string, word: Word | null }[]} */
  const found = [];
  let at = 0;
  for (const word of words) {
    if (word.start > at) found.push({ text: text.slice(at, word.start), word: null });
    found.push({ text: text.slice(word.start, word.end), word });
    at = word.end;
  }
  if (at < text.length) found.push({ text: text.slice(at), word: null });
  return found;
}

/** Words as they are shown: an unknown one at the caret is still being typed. @param {Word[]} words @param {number | null} caret */
export const finished = (words, caret) => words.filter((word) => word.kind !== "unknown" || word.end !== caret);
