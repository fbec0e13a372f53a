// How many bytes an attention mask takes that is written out for every patch. The arithmetic is pure.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { clamp } from "../lib/maths.js";
import { options, row, slider } from "./parts.js";

/**
 * What attention goes over: entries of the batch, heads, frames of the clip, its side in pixels, text tokens, and
 * whether patches read patches too or only words.
 * @typedef {{ batch: number, heads: number, frames: number, side: number, words: number, patches: boolean }} Clip
 */

const PATCH_PX = 16; // a patch of 2 x 2 latent places of 8 x 8 pixels
const FLOAT = 4; // bytes
export const FAMOUS = 1e12; // 1000 GB
const SIDES = [128, 256, 512, 768, 1024];
const FRAMES = [1, 4, 8, 16, 32, 64, 128, 256];
const WORDS = [8, 64, 120, 200, 300, 512];
const HEADS = 16;

/** The shape of a mask that is written out: batch, heads, patches, keys. @param {Clip} clip @returns {[number, number, number, number]} */
export function shapeOf({ batch, heads, frames, side, words, patches }) {
  const count = frames * (side / PATCH_PX) ** 2;
  return [batch, heads, count, patches ? count + words : words];
}

/** Its bytes, 32 bits a number. @param {Clip} clip */
export const bytesOf = (clip) => FLOAT * shapeOf(clip).reduce((a, b) => a * b, 1);

/** How many frames it takes until such a mask has 1000 GB. @param {Clip} clip */
export function framesTo(clip) {
  const each = (clip.side / PATCH_PX) ** 2;
  const rest = FAMOUS / (FLOAT * clip.batch * clip.heads); // patches x keys
  const { words } = clip;
  const count = clip.patches ? (Math.sqrt(words ** 2 + 4 * rest) - words) / 2 : rest / words;
  return Math.max(1, Math.ceil(count / each - 1e-9));
}

/** Bytes as one says them. @param {number} count */
export function bytesText(count) {
  const units = ["B", "kB", "MB", "GB"];
  const power = clamp(Math.floor(Math.log10(Math.max(count, 1)) / 3), 0, units.length - 1);
  const value = count / 1000 ** power;
  const digits = value < 10 && power ? 1 : 0;
  return `${Number(value.toFixed(digits)).toLocaleString("en")} ${units[power]}`;
}

/** @param {number[]} shape */
const shapeText = (shape) => `(${shape.map((n) => n.toLocaleString("en")).join(", ")})`;

/** @param {import("./explain.js").Drawing<"mask">} drawing */
export function drawMask({ body, pick }) {
  const big = make("p", "os-explain-big");
  const [shape, used, reached] = [0, 1, 2].map(() => make("p", "os-explain-num"));
  big.setAttribute("aria-live", "polite");

  /** @returns {Clip} */
  const clip = () => ({
    batch: 2 * ((pick.maskBatch ?? 0) + 1),
    heads: HEADS,
    frames: FRAMES[pick.maskFrames ?? 0] ?? 1,
    side: SIDES[pick.maskSide ?? 0] ?? 512,
    words: WORDS[pick.maskWords ?? 0] ?? 120,
    patches: pick.maskKeys === 1,
  });

  function show() {
    const bytes = bytesOf(clip());
    big.textContent = bytesText(bytes);
    big.dataset.bytes = String(bytes);
    big.dataset.far = String(bytes >= FAMOUS);
    if (shape) shape.textContent = `${say("ui.explain.mask.shape")}: ${shapeText(shapeOf(clip()))}`;
    const { batch, words } = clip();
    if (used) used.textContent = say("ui.explain.mask.used", { shape: shapeText([batch, 1, 1, words]) });
    const frames = framesTo(clip()).toLocaleString("en");
    if (reached) reached.textContent = say("ui.explain.mask.reached", { frames });
  }

  /** @param {string} key @param {string} label @param {number[]} values @param {number} start @param {(value: number) => string} tell */
  const choice = (key, label, values, start, tell) =>
    slider(pick, key, {
      label,
      high: values.length - 1,
      start: values.indexOf(start),
      tell: (i) => tell(values[i] ?? 0),
      act: show,
    });
  const keys = [say("ui.explain.mask.keys.words"), say("ui.explain.mask.keys.all")];
  body.append(
    row(
      choice("maskFrames", say("ui.explain.mask.frames"), FRAMES, 16, String),
      choice("maskSide", say("ui.explain.mask.size"), SIDES, 512, (side) => say("ui.explain.mask.pixels", { side })),
      choice("maskWords", say("ui.explain.mask.words"), WORDS, 120, String),
    ),
    row(
      options(pick, "maskKeys", { label: say("ui.explain.mask.keys"), names: keys, start: 0, act: show }),
      options(pick, "maskBatch", {
        label: say("ui.explain.mask.batch"),
        names: ["1", "2", "3", "4"],
        start: 0,
        act: show,
      }),
    ),
    make("span", "os-explain-note", say("ui.explain.mask.bytes")),
    big,
    ...[shape, used, reached].flatMap((node) => (node ? [node] : [])),
    make("p", "os-explain-note", say("ui.explain.mask.note")),
  );
  show();
}
