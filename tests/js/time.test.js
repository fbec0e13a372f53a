import assert from "node:assert/strict";
import { test } from "node:test";
import { advanced, decodedAt, frameAt, latentAt, longest } from "../../assets/ui/lib/time.js";

test("the frame at a time; a clip that is shorter holds its last", () => {
  assert.deepEqual([0, 0.12, 0.125, 0.26, 9].map((s) => frameAt(s, 8, 17)), [0, 0, 1, 2, 16]);
  assert.equal(frameAt((5 + 0.5) / 8, 8, 17), 5);
  for (let i = 0; i < 17; i++) assert.equal(frameAt(i / 24, 24, 17), i); // i / 24 * 24 may fall short of i
});

test("between which latent frames a time lies", () => {
  assert.deepEqual(latentAt(0, 2, 5), { first: 0, blend: 0 });
  assert.deepEqual(latentAt(0.5, 2, 5), { first: 1, blend: 0.25 });
  assert.deepEqual(latentAt(1.9, 2, 5), { first: 4, blend: 0 }); // the last is followed by none
  assert.deepEqual(latentAt(4.5, 2, 5), latentAt(0.5, 2, 5)); // round and round
  assert.deepEqual(latentAt(3, 2, 1), { first: 0, blend: 0 });
});

test("decoded frames stand in the place of their estimates, and both are one loop", () => {
  const clip = { fps: 8, start: 0, frames: 16 };
  const parts = [
    { first: 0, count: 4 },
    { first: 4, count: 4 },
  ];
  const frame = (/** @type {number} */ k) => decodedAt((k + 0.5) / 8, clip, parts);
  assert.deepEqual(frame(0), { part: parts[0], frame: 0 });
  assert.deepEqual(frame(3), { part: parts[0], frame: 3 });
  assert.deepEqual(frame(5), { part: parts[1], frame: 1 });
  assert.deepEqual(frame(8), { part: null, seconds: 8.5 / 8 });
  assert.deepEqual(frame(16 + 5), frame(5)); // round and round
  assert.deepEqual(decodedAt(1, clip, []), { part: null, seconds: 1 });
});

test("the estimate of a later scene stands where its frames will", () => {
  const scene = { fps: 8, start: 8, frames: 17 }; // the first 9 are those of the scene before
  const parts = [{ first: 0, count: 17 }];
  assert.deepEqual(decodedAt(16.5 / 8, scene, parts), { part: parts[0], frame: 16 });
  assert.deepEqual(decodedAt(17.5 / 8, scene, parts), { part: null, seconds: 9.5 / 8 });
  assert.deepEqual(decodedAt(25.5 / 8, scene, parts), decodedAt(0.5 / 8, scene, parts));
});

test("a clock goes on, round, or to the end", () => {
  assert.deepEqual(advanced(1, 0.5, 2, true), { at: 1.5, ended: false });
  assert.deepEqual(advanced(1.5, 1, 2, true), { at: 0.5, ended: false });
  assert.deepEqual(advanced(1.5, 1, 2, false), { at: 2, ended: true });
});

test("the longest clip is the one that lasts longest, not the one with most frames", () => {
  const slow = { frames: 9, fps: 4 };
  assert.equal(longest([{ frames: 17, fps: 8 }, slow, { frames: 17, fps: 24 }]), slow);
});
