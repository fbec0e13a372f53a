import assert from "node:assert/strict";
import { test } from "node:test";
import { linear, linePath } from "../../assets/ui/lib/chart.js";
import { clamp, fractions, largest, spread, whole } from "../../assets/ui/lib/maths.js";

test("a scale maps ends to ends, also upside down", () => {
  const y = linear([0, 2], [100, 0]);
  assert.deepEqual([0, 1, 2].map(y), [100, 50, 0]);
  assert.equal(linear([3, 3], [0, 1])(3), 0);
});

test("a line has gaps where there is no number, and dots between gaps", () => {
  assert.equal(linePath([[0, 1], [1, 2], null, [3, 4], null]), "M0.00 1.00h0.01L1.00 2.00M3.00 4.00h0.01");
  assert.equal(linePath([]), "");
});

test("indices are evenly spread, ends included, each once", () => {
  assert.deepEqual(spread(3, 5), [0, 1, 2]);
  assert.deepEqual(spread(9, 5), [0, 2, 4, 6, 8]);
  assert.deepEqual(spread(1, 5), [0]);
});

test("numbers of 16 bits, little end first", () => {
  assert.deepEqual([...fractions(btoa("\x01\x00\xff\xff"))], [1, 65535]);
  assert.deepEqual([...whole(btoa("\xff\xff\x00\x80"))], [-1, -32768]);
});

test("the largest of many, and of none", () => {
  assert.equal(largest(new Uint16Array(300_000).fill(3, 5, 6)), 3);
  assert.equal(largest([]), 0);
  assert.equal(clamp(5, 0, 3), 3);
});
