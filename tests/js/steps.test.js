import assert from "node:assert/strict";
import { test } from "node:test";
import { cells, MOST_CELLS, pictureAt, replayStepMs, sceneAt, stepAt, trunkOf } from "../../assets/ui/stage/steps.js";

test("a strip has a cell a step, and beyond some several steps a cell, each in one", () => {
  assert.deepEqual(cells(3), [[0, 0], [1, 1], [2, 2]]); // biome-ignore format: a row
  assert.equal(cells(16).length, 16);
  assert.equal(cells(24).length, 24);
  const many = cells(100);
  assert.equal(many.length, MOST_CELLS);
  const steps = many.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
  assert.deepEqual(steps, [...Array(100).keys()]);
});

test("a place of the strip is a step", () => {
  assert.deepEqual([0, 0.24, 0.26, 0.999, 1, 1.2, -0.1].map((share) => stepAt(share, 4)), [0, 0, 1, 3, 3, 3, 0]); // biome-ignore format: a row
});

test("of a step without a picture the one before it is seen", () => {
  const here = (/** @type {string} */ picture) => picture !== "on its way";
  const steps = [{ guess: "a", noise: "n" }, { guess: null }, { guess: "on its way" }, { guess: "d" }];
  assert.equal(pictureAt(steps, 0, "guess", here), "a");
  assert.equal(pictureAt(steps, 2, "guess", here), "a");
  assert.equal(pictureAt(steps, 3, "guess", here), "d");
  assert.equal(pictureAt(steps, 9, "guess", here), "d");
  assert.equal(pictureAt(steps, 3, "noise", here), "n");
  assert.equal(pictureAt(steps, 3, "latent", here), null);
});

test("a branched clip finds the one it left", () => {
  const base = { prompt: "a ball", seed: 3, steps: 16, guidance: 4 };
  const clips = [
    { settings: { ...base, seed: 4 } },
    { settings: { ...base, branch_step: 3, branch_guidance: 7 } },
    { settings: { ...base, seconds: { text: 1 }, unknown: [], peak_gb: 1 } },
  ];
  assert.equal(trunkOf({ ...base, branch_step: 5, branch_prompt: "a star", seconds: {} }, clips), clips[2]);
  assert.equal(trunkOf({ ...base, guidance: 7, branch_step: 5 }, clips), undefined);
  assert.equal(trunkOf(base, clips), undefined);
});

test("a replay shows every step and ends in time", () => {
  for (const total of [1, 16, 100]) assert.ok(replayStepMs(total) * total <= 4000 && replayStepMs(total) >= 20);
});

test("a second of a clip belongs to one of its scenes", () => {
  const scenes = [{ start: 0 }, { start: 2.125 }, { start: 3.125 }];
  assert.deepEqual([0, 2.1, 2.125, 3.1, 9, -1].map((seconds) => sceneAt(scenes, seconds)), [0, 0, 1, 1, 2, 0]); // biome-ignore format: a row
});
