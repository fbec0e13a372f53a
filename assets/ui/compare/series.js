// The chart's numbers as lines over an axis. Pure.

/** @typedef {import("../types.js").ColumnValue} Column */
/** @typedef {import("../types.js").PointValue} Point */
/** @typedef {import("../types.js").LineValue} Line */
/** @typedef {"sure" | "right" | "variety"} Metric */
/**
 * Points at places of the axis, from 0. `joined` where the axis is a number, the scale.
 * @typedef {{ line: number, rule: string | null, points: { x: number, column: number, point: Point }[] }} Series
 */

/**
 * The scales where there are several, with a series for each line and rule; else the rules, a series for each line.
 * @param {Column[]} columns @param {Line[]} lines @param {Metric} metric
 */
export function seriesOf(columns, lines, metric) {
  const scales = [...new Set(columns.map((column) => column.scale))];
  const rules = [...new Set(columns.map((column) => column.rule))];
  const byScale = scales.length > 1 || rules.length === 1;
  const groups = byScale ? rules : [null];
  /** @type {Series[]} */
  const series = [];
  lines.forEach((line, number) => {
    for (const rule of groups) {
      const points = line[metric].flatMap((point, column) => {
        const own = columns[column];
        if (!point || !own || (rule !== null && own.rule !== rule)) return [];
        return [{ x: byScale ? scales.indexOf(own.scale) : rules.indexOf(own.rule), column, point }];
      });
      if (points.length) series.push({ line: number, rule: rules.length > 1 ? rule : null, points });
    }
  });
  return { axis: byScale ? /** @type {const} */ ("scale") : /** @type {const} */ ("rule"), scales, rules, series };
}

/**
 * Heights of labels that would lie on each other, moved apart by at least `least`, in the order of the wanted ones.
 * @param {number[]} wanted @param {number} least @param {number} low @param {number} high
 */
export function apart(wanted, least, low, high) {
  const order = wanted.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y);
  let last = low - least;
  for (const place of order) last = place.y = Math.max(place.y, last + least);
  let next = high + least;
  for (const place of order.reverse()) next = place.y = Math.min(place.y, next - least);
  const places = wanted.slice();
  for (const { y, i } of order) places[i] = y;
  return places;
}

/** The next number above that begins with 1, 2, 4, 6 or 8: the end of an axis. @param {number} value above 0 */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const digit = [1, 2, 4, 6, 8, 10].find((d) => d * power >= value * (1 - 1e-9)) ?? 10;
  return Number((digit * power).toPrecision(3));
}
