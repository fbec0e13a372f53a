import assert from "node:assert/strict";
import { test } from "node:test";
import { arrowHead, level, plane, roundLength } from "../../assets/ui/explain/plane.js";

/** @param {[number, number]} a @param {[number, number]} b */
const near = (a, b) => a.every((x, i) => Math.abs(x - (b[i] ?? NaN)) < 1e-9);

test("points lie inside the box, both axes alike, y upwards", () => {
  const at = plane([[0, 0], [2, 1]], 240, 140, 20);
  const [ax, ay] = at([0, 0]);
  const [bx, by] = at([2, 1]);
  assert.deepEqual([ax, ay, bx, by], [20, 120, 220, 20]);
  const tall = plane([[0, 0], [1, 5]], 240, 140, 20);
  const [cx, cy] = tall([0, 0]);
  const [dx, dy] = tall([1, 5]);
  assert.deepEqual([cy - dy, dx - cx, cx + dx], [100, 20, 240]);
});

test("points that fall together are no division by zero", () => {
  assert.ok(plane([[1, 1], [1, 1]], 100, 100, 10)([1, 1]).every(Number.isFinite));
});

test("the difference of two predictions lies level, lengths and angle kept", () => {
  for (const prompt of /** @type {[number, number][]} */ ([[0.8, 0.3], [1.2, -0.5], [0.2, 0], [-1, 0.1]])) {
    const { u, mixed } = level(1, prompt);
    assert.ok(Math.abs(Math.hypot(...u) - 1) < 1e-9);
    assert.ok(Math.abs(Math.hypot(...mixed(1)) - Math.hypot(...prompt)) < 1e-9);
    assert.equal(mixed(1)[1], u[1]);
    assert.ok(mixed(1)[0] > u[0]);
    assert.ok(near(mixed(0), u));
  }
});

test("a short arrow has no head", () => {
  assert.equal(arrowHead([0, 0], [1, 1], 12), "");
  assert.equal(arrowHead([0, 0], [10, 0], 4), "M10 0L6 1.8L6 -1.8Z");
});

test("a scale bar has a round length near the wanted one", () => {
  assert.deepEqual([1000, 100, 48, 0.3].map((unit) => Number(roundLength(unit, 96).toPrecision(1))), [0.05, 0.5, 2, 200]);
});
