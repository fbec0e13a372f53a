// The steps of the process under the clock: which one the table shows. Pure.
import { clamp } from "../lib/maths.js";

/**
 * The step of a run at a share of its way: rows of 4 and of 16 steps go side by side.
 * @param {number} share above 0, to 1 @param {number} total
 */
export const stepOf = (share, total) => clamp(Math.ceil(share * total - 1e-9), 1, total);

/**
 * Steps that go on by themselves: the step after `seconds` more, and whether they are at their end, the clip
 * (`total` + 1).
 * @param {number} at @param {number} seconds @param {number} rate steps per second @param {number} total
 */
export function stepped(at, seconds, rate, total) {
  const next = at + seconds * rate;
  return next >= total + 1 ? { at: total + 1, ended: true } : { at: next, ended: false };
}
