// A causal convolution on a strip of frames: what stands in front of them, and which reach the picked output.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintPixels, paintPlaces } from "../lib/image.js";
import { options, row, tile } from "./parts.js";

/** @typedef {import("../types.js").CausalValue} CausalValue */

export const FRONT = 2; // frames in front, of a convolution that sees three

/**
 * Which places of the padded strip an output frame reads, the front first: of the front what the kernel covers, of the
 * frames those that were measured to reach it.
 * @param {number[]} reach of the output, a frame each @param {number} frame the output, from 0
 */
export const placesOf = (reach, frame) => [
  ...Array.from({ length: FRONT }, (_, k) => k >= frame),
  ...reach.map((share) => share > 0),
];

/** @param {CausalValue} data @param {"constant" | "replicate"} padding @param {boolean} one */
const filteredBy = (data, padding, one) =>
  data.filtered.find((f) => f.padding === padding && (one ? f.frames === 1 : f.frames === data.strip.frames));

/** @param {import("./explain.js").Drawing<"causal">} drawing */
export function drawCausal({ body, data, pick }) {
  const { strip } = data;
  const grid = make("div", "os-explain-strip");
  const note = make("p", "os-explain-note os-explain-num");
  note.setAttribute("aria-live", "polite");
  const padding = () => (pick.padding ? "replicate" : "constant");

  function show() {
    const filtered = filteredBy(data, padding(), pick.strip === 0);
    if (!filtered) return;
    const { frames, picture, reach } = filtered;
    const frame = Math.min(pick.output ?? 0, frames - 1);
    const places = placesOf(reach[frame] ?? [], frame);
    const focused = grid.contains(document.activeElement);
    grid.replaceChildren(make("b", "", say("ui.explain.causal.in")));
    for (let k = 0; k < FRONT + strip.frames; k++) grid.append(inputOf(k - FRONT, frames, places[k] ?? false));
    grid.append(make("b", "", say("ui.explain.causal.out")));
    for (let k = 0; k < FRONT; k++) grid.append(make("span"));
    for (let i = 0; i < frames; i++) grid.append(outputOf(picture, i, i === frame));
    if (focused) grid.querySelector("[aria-pressed=true]")?.closest("button")?.focus();
    note.textContent = sentence(reach[frame] ?? [], frame);
  }

  /** @param {number} at the frame, below 0 in front @param {number} frames @param {boolean} read */
  function inputOf(at, frames, read) {
    if (at >= frames) return make("span");
    const { frame, canvas } = tile(strip.height, strip.width);
    if (at >= 0) paintPixels(canvas, strip, at, true);
    else if (pick.padding) paintPixels(canvas, strip, 0, true);
    else paintPlaces(canvas, new Uint8Array(3), 1, 1);
    frame.dataset.read = String(read);
    return frame;
  }

  /** @param {CausalValue["strip"]} picture @param {number} i @param {boolean} pressed */
  function outputOf(picture, i, pressed) {
    const { canvas } = tile(picture.height, picture.width);
    const node = make("button", "os-explain-tile");
    node.type = "button";
    node.style.aspectRatio = `${picture.width} / ${picture.height}`;
    node.setAttribute("aria-pressed", String(pressed));
    node.setAttribute("aria-label", `${say("ui.explain.causal.output")} ${i + 1}`);
    node.addEventListener("click", () => {
      pick.output = i;
      show();
    });
    paintPixels(canvas, picture, i, true);
    node.append(canvas);
    return node;
  }

  /** @param {number[]} reach @param {number} frame */
  function sentence(reach, frame) {
    const percent = (/** @type {number} */ share) => Math.round(100 * share);
    const weights = reach.flatMap((share, j) =>
      share > 0 ? [say("ui.explain.causal.of_frame", { frame: j + 1, percent: percent(share) })] : [],
    );
    const zeros = percent(1 - reach.reduce((a, b) => a + b, 0));
    if (zeros) weights.unshift(say("ui.explain.causal.of_zeros", { percent: zeros }));
    return say("ui.explain.causal.reads", { frame: frame + 1, weights });
  }

  const paddings = [say("ui.explain.causal.zeros"), say("ui.explain.causal.copies")];
  const controls = [
    options(pick, "padding", { label: say("ui.explain.causal.padding"), names: paddings, start: 0, act: show }),
  ];
  if (strip.frames > 1) {
    const names = [say("ui.explain.causal.one"), say("ui.explain.causal.many", { frames: strip.frames })];
    controls.push(options(pick, "strip", { label: say("ui.explain.causal.strip"), names, start: 1, act: show }));
  }
  body.append(row(...controls), grid, note);
  show();
}
