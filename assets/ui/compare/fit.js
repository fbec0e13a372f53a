// How large a clip may be so that the whole table is in the window, and no larger than its width allows. Pure.

/**
 * The width of a clip that fills the width of the table.
 * @param {object} room
 * @param {number} room.width of the table @param {number} room.columns @param {number} room.gap between clips
 * @param {number} room.side taken by the labels of the rows, with its gap
 */
export const fillingWidth = ({ width, columns, gap, side }) =>
  Math.floor((width - side - gap * (columns - 1)) / columns);

/**
 * The largest whole number from `low` to `high` that fits; `low` where none does. What fits is asked, since marks under
 * smaller clips take more lines.
 * @param {number} low @param {number} high @param {(n: number) => boolean} fits
 */
export function largestThat(low, high, fits) {
  if (high <= low || fits(high)) return Math.max(low, high);
  let [good, bad] = [low, high];
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2);
    if (fits(middle)) good = middle;
    else bad = middle;
  }
  return good;
}
