import assert from "node:assert/strict";
import { before, test } from "node:test";

before(() => {
  const element = { lang: "en" };
  const none = () => null;
  Object.assign(globalThis, { document: { documentElement: element, getElementById: none, addEventListener: none } });
});

const CLIP = { batch: 2, heads: 16, frames: 16, side: 512, words: 120, patches: false };

test("a mask that is written out, and from how many frames on it takes 1000 GB", async () => {
  const { bytesOf, bytesText, framesTo, shapeOf } = await import("../../assets/ui/explain/mask.js");
  assert.deepEqual(shapeOf(CLIP), [2, 16, 16384, 120]);
  assert.equal(bytesOf(CLIP), 4 * 2 * 16 * 16384 * 120);
  assert.deepEqual(shapeOf({ ...CLIP, patches: true }), [2, 16, 16384, 16504]);
  assert.equal(bytesText(bytesOf({ ...CLIP, patches: true })), "35 GB");
  // Either way, one frame fewer is not enough.
  for (const patches of [true, false]) {
    const frames = framesTo({ ...CLIP, patches });
    assert.ok(bytesOf({ ...CLIP, patches, frames }) >= 1e12);
    assert.ok(bytesOf({ ...CLIP, patches, frames: frames - 1 }) < 1e12);
  }
  assert.equal(framesTo({ ...CLIP, side: 1024, patches: true, words: 0 }), 22);
  assert.deepEqual([0, 999, 1500, 2.5e6, 1e12, 2.4e12].map(bytesText), [
    "0 B",
    "999 B",
    "1.5 kB",
    "2.5 MB",
    "1,000 GB",
    "2,400 GB",
  ]);
});

test("channels side by side, a line of dark places between them", async () => {
  const { sheetOf } = await import("../../assets/ui/explain/channels.js");
  const values = Uint8Array.of(9, 1, 2, 3); // of 1 x 1 places; the first is not shown
  const { rgb, width, height } = sheetOf(values, 1, 4, 1, 1, 2);
  assert.deepEqual([width, height], [3, 3]);
  const grey = Array.from({ length: 9 }, (_, i) => rgb[3 * i]);
  assert.deepEqual(grey, [1, 20, 2, 20, 20, 20, 3, 20, 20]);
  assert.deepEqual([...rgb.subarray(0, 3)], [1, 1, 1]);
});

test("what an output of a causal convolution reads: three places, none of them later", async () => {
  const { placesOf } = await import("../../assets/ui/explain/causal.js");
  const third = 1 / 3;
  assert.deepEqual(placesOf([third, 0, 0], 0), [true, true, true, false, false]);
  assert.deepEqual(placesOf([third, third, 0], 1), [false, true, true, true, false]);
  assert.deepEqual(placesOf([third, third, third], 2), [false, false, true, true, true]);
});

test("a bar is seen unless its number is zero", async () => {
  const { heightOf, short } = await import("../../assets/ui/explain/gates.js");
  assert.deepEqual([heightOf(0, 2), heightOf(2, 2), heightOf(1e-6, 2), heightOf(0, 0)], [0, 72, 1, 0]);
  assert.deepEqual([0, 0.012, 0.094, 0.095, 1.26].map(short), ["0", ".01", ".09", "0.1", "1.3"]);
});
