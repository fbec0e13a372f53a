import assert from "node:assert/strict";
import { before, test } from "node:test";

// Modules that also draw look at the page when they are loaded; here there is none.
before(() => {
  const element = { lang: "en" };
  const none = () => null;
  const media = { matches: false };
  Object.assign(globalThis, {
    document: { documentElement: element, getElementById: none, addEventListener: none },
    matchMedia: () => media,
  });
});

test("the mix of two pictures", async () => {
  const { mix } = await import("../../assets/ui/explain/guidance.js");
  const [u, c] = [Int16Array.of(-4096, 0, 4096), Int16Array.of(4096, 2048, 4096)];
  assert.deepEqual([...mix(u, c, 0, 4096)], [0, 128, 255]);
  assert.deepEqual([...mix(u, c, 1, 4096)], [255, 191, 255]);
  assert.deepEqual([...mix(u, c, 2, 4096)], [255, 255, 255]); // beyond white is white
});

test("the run's own step nearest to a time", async () => {
  const { nearest } = await import("../../assets/ui/explain/tokens.js");
  assert.deepEqual([1, 0.72, 0.6, 0].map((t) => nearest([1, 0.75, 0.5, 0.25], t)), [0, 1, 2, 3]);
});

test("keys go over the patches, and over the edge of a frame to the next", async () => {
  const { moved } = await import("../../assets/ui/explain/patches.js");
  const grid = /** @type {[number, number, number]} */ ([2, 3, 4]);
  const at = (/** @type {string} */ key, /** @type {number[]} */ ...[frame = 0, y = 0, x = 0]) => {
    const to = moved(key, { frame, y, x }, grid);
    return to && [to.frame, to.y, to.x];
  };
  assert.deepEqual(at("ArrowRight", 0, 1, 3), [1, 1, 0]);
  assert.deepEqual(at("ArrowLeft", 1, 1, 0), [0, 1, 3]);
  assert.deepEqual(at("ArrowRight", 1, 1, 3), [1, 1, 3]); // the last
  assert.deepEqual(at("ArrowUp", 0, 0, 2), [0, 0, 2]);
  assert.deepEqual(at("PageDown", 0, 2, 2), [1, 2, 2]);
  assert.equal(at("Enter"), null);
});

test("which words are marks behind the prompt", async () => {
  const { isMark } = await import("../../assets/ui/explain/words.js");
  const marks = (/** @type {string[]} */ words) => words.map((_, k) => isMark(words, k));
  assert.deepEqual(marks(["the", "end", "end"]), [false, false, true]);
  assert.deepEqual(marks(["the", "end", "padding"]), [false, true, true]);
  assert.deepEqual(marks(["the", "ball"]), [false, false]);
});

test("how far a latent moved, short", async () => {
  const { movedText } = await import("../../assets/ui/explain/coding.js");
  assert.deepEqual([0, 0.004, 0.3, 9.96].map(movedText), ["0", "<.01", "0.3", "10"]);
});

test("every stage of the codec follows a change of the clip; without one it is as it was", async () => {
  const { pictureOf } = await import("../../assets/ui/explain/coding.js");
  const picture = { frames: 1, height: 1, width: 1, rgb: "AAAA" };
  const changed = { ...picture, rgb: "////" };
  const stage = { name: "decoded", size: [3, 1, 1, 1], values: 3, picture };
  assert.equal(pictureOf(stage, undefined), picture);
  assert.equal(pictureOf(stage, { frame: 0, latents: [1], pictures: { decoded: changed } }), changed);
  assert.equal(pictureOf({ ...stage, name: "clip" }, { frame: 0, latents: [1], pictures: { decoded: changed } }), picture);
});

test("arrows whose tips lie close together are shown from near", async () => {
  const { isClose } = await import("../../assets/ui/explain/guidance.js");
  /** @type {any} */
  const pull = { null_norm: 1, prompt: [1, 0.01] };
  assert.ok(isClose(pull, 8));
  assert.ok(!isClose({ ...pull, prompt: [0.9, 0.4] }, 8));
});

test("figures of another prompt or model are older; an empty field stands for the example", async () => {
  const { isOlder } = await import("../../assets/ui/explain/explain.js");
  /** @type {any} */
  const view = { prompt: "a ball", model_id: "nano" };
  const older = (/** @type {string} */ prompt, model = "nano") => isOlder(view, { prompt, model });
  assert.deepEqual([older("a ball "), older(""), older("a star"), older("a ball", "nano-dit")], [false, false, true, true]);
  assert.equal(isOlder(view, undefined), false);
});

test("what a patch looks at glows, the rest lies in the shade, out of reach in a deeper one", async () => {
  const { veil } = await import("../../assets/ui/explain/patches.js");
  assert.equal(veil(1), "rgb(79 191 178 / 0.700)");
  assert.equal(veil(0.5), "rgb(79 191 178 / 0.000)");
  assert.equal(veil(0), "rgb(7 9 11 / 0.350)");
  assert.equal(veil(null), "rgb(7 9 11 / 0.550)");
});

test("a scope's picture is the decoded one where there is one, else the latent's squares", async () => {
  class HTMLImageElement {
    complete = true;
    naturalWidth = 30;
    naturalHeight = 40;
  }
  Object.assign(globalThis, { HTMLImageElement });
  const { partOf } = await import("../../assets/ui/scope/readout.js");
  const [pictures, channels, image] = [1, 2, 3].map(() => new HTMLImageElement());
  /** @type {any} */
  const step = { quantities: ["noisy", "estimate", "difference"], images: { pictures, channels } };
  const size = { latent: 3, channels: 4, aspect: 1 };
  const decoded = { quantities: ["noisy", "estimate"], image };
  /** @param {any} step @param {"latent" | "decoded"} mode @param {any} shown */
  const part = (step, mode, shown = "estimate") => /** @type {any} */ (partOf(step, shown, size, 1, 0, mode));
  assert.equal(part({ ...step, decoded }, "decoded").image, image);
  assert.deepEqual(part({ ...step, decoded }, "decoded").cut, [10, 20, 10, 20]);
  assert.equal(part({ ...step, decoded }, "latent").image, pictures);
  assert.equal(part({ ...step, decoded: null }, "decoded").places, true);
  assert.equal(part({ ...step, decoded }, "decoded", "difference").image, pictures);
  assert.equal(part({ ...step, decoded }, "decoded", "null"), "missing");
});

test("guidance that does everywhere what it was asked for has a flat curve", async () => {
  const { isFlat } = await import("../../assets/ui/scope/curves.js");
  const step = (/** @type {number} */ guidance_asked, /** @type {number | null} */ guidance_measured) => ({
    guidance_asked,
    guidance_measured,
  });
  assert.ok(isFlat([step(4, 4.001), step(4, 3.999), step(4, null)]));
  assert.ok(!isFlat([step(4, 4), step(1, null)]));
  assert.ok(!isFlat([step(4, 3)]));
});

test("the loss is shown as a mean over the last steps", async () => {
  const { smoothed } = await import("../../assets/ui/explain/trained.js");
  assert.deepEqual(smoothed([2, 4]), [2, 3]);
  assert.equal(smoothed([...Array(20).fill(0), ...Array(20).fill(1)]).at(-1), 1);
});

test("the difference of two pictures is black where they agree, white from 96 of 255 on", async () => {
  const { difference } = await import("../../assets/ui/compare/pair.js");
  const picture = (/** @type {number[]} */ ...data) => /** @type {any} */ ({ data: Uint8ClampedArray.from(data) });
  const a = picture(10, 10, 10, 255, 200, 200, 200, 255);
  const rms = difference(a, picture(10, 10, 10, 255, 100, 100, 100, 255));
  assert.ok(Math.abs(rms - Math.sqrt(1e4 / 2)) < 1e-9);
  assert.deepEqual([...a.data], [0, 0, 0, 255, 255, 255, 255, 255]);
});

test("times in words, and what is left", async () => {
  const { duration, timeText } = await import("../../assets/ui/lib/clock.js");
  const log = console.error;
  console.error = () => {};
  assert.equal(duration(3), "ui.time.s"); // no catalog here: the code
  assert.equal(duration(99.6), "ui.time.min_s");
  assert.equal(timeText({ elapsed: 1, left: 4 }, 1), "ui.time.left");
  assert.equal(timeText({ elapsed: 1, left: 4 }, null), "ui.time.s");
  console.error = log;
});
