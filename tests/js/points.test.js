// The points of a drawn curve.
import assert from "node:assert/strict";
import test from "node:test";
import { addPoint, movePoint, readPoints, scaleOf, shareAt, widestGap, writePoints } from "../../assets/ui/curve/points.js";

/** @type {[number, number][]} */
const CURVE = [
  [0, 0],
  [0.5, 1.5],
  [1, 0.25],
];

test("a text is read and written", () => {
  assert.deepEqual(readPoints("0:0, 0.5:1.5; 1:0.25"), CURVE);
  assert.equal(writePoints(CURVE), "0:0, 0.5:1.5, 1:0.25");
  assert.deepEqual(readPoints(""), []);
  for (const wrong of ["0:", "0:1, 0:2", "0.5", "2:1", "0:3", "0:1:2", "a:b", ":1", Array(13).fill("0:1").join()]) {
    assert.equal(readPoints(wrong), null, wrong);
  }
});

test("a point stays between its neighbours and in the plot", () => {
  assert.deepEqual(movePoint(CURVE, 1, 2, 5)[1], [0.99, 2]);
  assert.deepEqual(movePoint(CURVE, 1, -1, -1)[1], [0.01, 0]);
  assert.deepEqual(movePoint(CURVE, 0, -1, 0.333)[0], [0, 0.33]);
  assert.deepEqual(CURVE[1], [0.5, 1.5]);
});

test("the first point comes with both ends, a later one in order, one on another moves it", () => {
  assert.deepEqual(addPoint([], 0.3, 2), { points: [[0, 1], [0.3, 2], [1, 1]], index: 1 });
  assert.deepEqual(addPoint(CURVE, 0.75, 1)?.index, 2);
  assert.deepEqual(addPoint(CURVE, 0.5, 0), { points: [[0, 0], [0.5, 0], [1, 0.25]], index: 1 });
  const many = /** @type {[number, number][]} */ ([...Array(12).keys()].map((i) => [i / 20, 1]));
  assert.equal(addPoint(many, 0.9, 1), null);
});

test("shares lie on lines, with level ends", () => {
  const inner = CURVE.slice(1, 2);
  assert.deepEqual([0, 0.25, 0.5, 1].map((at) => shareAt(CURVE, at)), [0, 0.75, 1.5, 0.25]);
  assert.deepEqual([0, 1].map((at) => shareAt(inner, at)), [1.5, 1.5]);
  assert.equal(shareAt([], 0.4), 1);
  assert.equal(widestGap(CURVE), 0.25);
  assert.equal(widestGap([[0, 1], [0.2, 1]]), 0.6);
  assert.equal(scaleOf(0.5, 4), 2.5);
});
