import assert from "node:assert/strict";
import { test } from "node:test";
import { rowOf, tokenAt, weightsOf } from "../../assets/ui/explain/rows.js";

const SHAPE = { frames: 3, places: 4, heads: 2, words: 5 };
const TOKEN = { frame: 2, place: 1 };

/** Weights that say where they lie: the last index of a nested array of this shape counts up. @param {number[]} shape */
const counted = (...shape) => Float64Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i);
/** @param {number[]} shape @param {number[]} index */
const offset = (shape, index) => index.reduce((at, i, axis) => at * (shape[axis] ?? 1) + i, 0);

test("rows begin where the arrays of Python have them", () => {
  const tokens = 12;
  const shapes = /** @type {const} */ ([
    ["space", [3, 2, 4, 4], [2, 1, 1, 0]],
    ["time", [4, 2, 3, 3], [1, 1, 2, 0]],
    ["all", [2, tokens, tokens], [1, 2 * 4 + 1, 0]],
    ["text", [2, tokens, 5], [1, 2 * 4 + 1, 0]],
  ]);
  for (const [kind, shape, index] of shapes) {
    const row = rowOf(kind, TOKEN, SHAPE);
    assert.equal(row.length, shape.at(-1), kind);
    assert.equal(row.starts[1], offset([...shape], [...index]), kind);
  }
});

test("one head, or the mean of all", () => {
  const weights = counted(2, 12, 5).map((i) => (i < 60 ? 65535 : 0)); // the first head sees all, the second nothing
  const row = rowOf("text", TOKEN, SHAPE);
  assert.deepEqual(weightsOf(weights, row, 0), [1, 1, 1, 1, 1]);
  assert.deepEqual(weightsOf(weights, row, 1), [0, 0, 0, 0, 0]);
  assert.deepEqual(weightsOf(weights, row, null), [0.5, 0.5, 0.5, 0.5, 0.5]);
});

test("which token a weight is about", () => {
  assert.deepEqual([0, 3].map((k) => tokenAt("space", TOKEN, SHAPE, k)), [8, 11]);
  assert.deepEqual([0, 2].map((k) => tokenAt("time", TOKEN, SHAPE, k)), [1, 9]);
  assert.deepEqual([0, 7].map((k) => tokenAt("all", TOKEN, SHAPE, k)), [0, 7]);
});
