import assert from "node:assert/strict";
import { test } from "node:test";
import { fillingWidth, largestThat } from "../../assets/ui/compare/fit.js";
import { apart, roundUp, seriesOf } from "../../assets/ui/compare/series.js";
import { stepOf, stepped } from "../../assets/ui/compare/steps.js";

test("rows with different numbers of steps go side by side", () => {
  assert.deepEqual([1, 8, 9, 16].map((step) => stepOf(step / 16, 16)), [1, 8, 9, 16]);
  assert.deepEqual([1, 4, 5, 8, 16].map((step) => stepOf(step / 16, 4)), [1, 1, 2, 2, 4]);
  assert.deepEqual([1, 49, 100].map((step) => stepOf(step / 100, 100)), [1, 49, 100]);
});

test("steps that go on by themselves end with the clip", () => {
  assert.deepEqual(stepped(3, 0.5, 4, 16), { at: 5, ended: false });
  assert.deepEqual(stepped(16.5, 1, 1, 16), { at: 17, ended: true });
});

test("clips fill the width where the window is tall enough, else they are the largest that fit", () => {
  const wide = fillingWidth({ width: 1840, columns: 4, gap: 12, side: 0 });
  assert.equal(wide, 451);
  assert.equal(fillingWidth({ width: 1840, columns: 4, gap: 12, side: 100 }), 426);
  assert.equal(largestThat(120, wide, () => true), 451);
  /** @type {number[]} */
  const asked = [];
  const fits = (/** @type {number} */ n) => asked.push(n) > 0 && n <= 207;
  assert.equal(largestThat(120, wide, fits), 207);
  assert.ok(asked.length < 12);
  assert.equal(largestThat(120, wide, () => false), 120); // no clip is smaller than that
  assert.equal(largestThat(132, 78, () => true), 132); // nor on a phone, where the table scrolls
});

const point = (/** @type {number} */ mean) => ({ mean, error: null, each: [mean] });
const message = { code: "x", params: {} };
const column = (/** @type {number} */ scale, /** @type {string} */ rule) => ({ label: message, scale, rule, rule_title: message });
const line = (/** @type {(number | null)[]} */ ...means) => {
  const points = means.map((mean) => (mean === null ? null : point(mean)));
  return { label: null, sure: points, right: points, variety: points.map(() => null) };
};

test("a line for each row and rule over the scales", () => {
  const columns = [column(1, "plain"), column(4, "plain"), column(1, "apg"), column(4, "apg")];
  const { axis, series } = seriesOf(columns, [line(0.1, 0.2, 0.3, null), line(0.5, 0.6, 0.7, 0.8)], "sure");
  assert.equal(axis, "scale");
  assert.deepEqual(series.map((s) => [s.line, s.rule, s.points.map((p) => [p.x, p.point.mean])]), [
    [0, "plain", [[0, 0.1], [1, 0.2]]],
    [0, "apg", [[0, 0.3]]],
    [1, "plain", [[0, 0.5], [1, 0.6]]],
    [1, "apg", [[0, 0.7], [1, 0.8]]],
  ]);
  assert.deepEqual(seriesOf(columns, [line(1, 1, 1, 1)], "variety").series, []);
});

test("rules are the axis where there is one scale", () => {
  const { axis, series } = seriesOf([column(4, "plain"), column(4, "apg")], [line(0.1, 0.2)], "sure");
  assert.equal(axis, "rule");
  assert.deepEqual(series.map((s) => [s.rule, s.points.map((p) => p.x)]), [[null, [0, 1]]]);
  assert.equal(seriesOf([column(4, "plain")], [line(1)], "sure").axis, "scale");
});

test("labels keep their distance and their order", () => {
  assert.deepEqual(apart([50, 52, 10], 14, 0, 100), [50, 64, 10]);
  const low = apart([99, 98, 97], 10, 0, 100);
  assert.deepEqual(low, [100, 90, 80]);
});

test("an axis ends at a round number", () => {
  assert.deepEqual([0.317, 0.1, 0.11, 0.081, 7].map(roundUp), [0.4, 0.1, 0.2, 0.1, 8]);
});
