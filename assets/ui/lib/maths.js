// Numbers that more than one component needs. Pure.

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The largest of a list that may be long; 0 of an empty one. @param {ArrayLike<number>} list */
export function largest(list) {
  let most = 0;
  for (let i = 0; i < list.length; i++) most = Math.max(most, list[i] ?? 0);
  return most;
}

/** At most `most` of n indices, evenly spread, ends included. @param {number} n @param {number} most */
export function spread(n, most) {
  const count = Math.min(n, most);
  return Array.from({ length: count }, (_, i) => Math.round((i * (n - 1)) / Math.max(count - 1, 1)));
}

/** @param {string} text base64 */
export const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
/** @param {string} text base64 of numbers of 16 bits, 0..65535 */
export const fractions = (text) => new Uint16Array(bytes(text).buffer);
/** @param {string} text base64 of signed numbers of 16 bits */
export const whole = (text) => new Int16Array(bytes(text).buffer);
