// Guidance: both predictions of a step as arrows, and their mix for any scale.
import { chartOf, linePath } from "../lib/chart.js";
import { make, vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintPlaces } from "../lib/image.js";
import { clamp, whole } from "../lib/maths.js";
import { row, slider, tile, two } from "./parts.js";
import { arrowHead, level, plane, roundLength } from "./plane.js";

/** @typedef {import("../types.js").GuidanceValue} GuidanceValue */
/** @typedef {import("../types.js").PullValue} Pull */
/** @typedef {import("./plane.js").Point} Point */

const TALL = 224;
const PAD = 40;
const BAR = 96; // pixels of the scale bar, at most
const CLOSE = 0.5; // a mix that moves the tip by less than this share of |u| is shown from near
/** @type {Point} */
const ORIGIN = [0, 0];

/** Whether the tips lie so close together that only they are shown, and not where the arrows begin. @param {Pull} pull @param {number} most */
export function isClose({ null_norm: length, prompt: [x, y] }, most) {
  return most * Math.hypot(x - length, y) < CLOSE * length;
}

/** The picture of u + s (c - u), one frame. @param {Int16Array} u @param {Int16Array} c @param {number} scale @param {number} unit */
export function mix(u, c, scale, unit) {
  return Uint8Array.from(u, (from, k) => {
    const value = (from + scale * ((c[k] ?? 0) - from)) / unit;
    return clamp(Math.round(((value + 1) * 255) / 2), 0, 255);
  });
}

/** @param {SVGSVGElement} pen @param {Pull} pull @param {number} scale @param {number} most @param {[number, number]} size */
function drawArrows(pen, pull, scale, most, [width, height]) {
  const { u, mixed } = level(pull.null_norm, pull.prompt);
  const close = isClose(pull, most);
  const tips = [u, mixed(1), mixed(most)];
  const at = close ? plane(tips, width, height, PAD) : plane([ORIGIN, ...tips], width, height, PAD);
  const o = at(ORIGIN); // far below the picture, where it is shown from near
  const [ux, uy] = at(u);
  const [cx, cy] = at(mixed(1));
  pen.replaceChildren(vector("path", { class: "os-explain-straight", d: linePath([at(u), at(mixed(most))]) }));
  for (let k = 0; k <= most; k++) {
    const [x, y] = at(mixed(k));
    pen.append(vector("circle", { class: "os-explain-fill-null", cx: x, cy: y, r: 2 }));
    if (k < 2 || (cx - ux <= 24 && k !== most)) continue;
    const text = k === most ? `s = ${k}` : String(k);
    pen.append(vector("text", { x, y: y - 12, "text-anchor": "middle" }, text));
  }
  const arrows = /** @type {const} */ ([
    ["null", u, 12],
    ["prompt", mixed(1), 12],
    ["mix", mixed(scale), 14],
  ]);
  for (const [name, tip, size] of arrows) {
    pen.append(
      vector("path", { class: `os-explain-arrow os-explain-${name}`, d: linePath([o, at(tip)]) }),
      vector("path", { class: `os-explain-fill-${name}`, d: arrowHead(o, at(tip), size) }),
    );
  }
  const unit = at([1, 0])[0] - o[0] || 1;
  const bar = roundLength(unit, BAR);
  const low = height - 8;
  pen.append(
    vector("path", { class: "os-explain-bar-line", d: `M4 ${low - 4}V${low}H${4 + bar * unit}V${low - 4}` }),
    vector("text", { x: 10 + bar * unit, y: low }, say("ui.explain.arrows.length", { length: bar })),
    vector("circle", { class: "os-explain-end", cx: o[0], cy: o[1], r: 4 }),
    vector("text", { class: "os-explain-name", x: ux - 8, y: uy - 8, "text-anchor": "end" }, "u"),
    vector("text", { class: "os-explain-name", x: cx + 2, y: cy - 12 }, "c"),
  );
}

/** @param {Pull} pull @param {number} s */
function numbersOf(pull, s) {
  const [x, y] = pull.prompt;
  const apart = x - pull.null_norm;
  const list = make("dl", "os-explain-facts");
  for (const [name, value] of /** @type {const} */ ([
    ["|u|", two(pull.null_norm)],
    ["|c|", two(pull.prompt_norm)],
    ["|c \u2212 u|", two(Math.hypot(apart, y))],
    ["|u + s (c \u2212 u)|", two(Math.hypot(pull.null_norm + s * apart, s * y))],
    [say("ui.explain.arrows.cosine"), pull.cosine.toFixed(3)],
  ])) {
    list.append(make("dt", "", name), make("dd", "", value));
  }
  return list;
}

/** @param {import("./explain.js").Drawing<"guidance">} drawing */
export function drawGuidance({ body, data, pick }) {
  const { pulls, width, height, most } = data;
  const size = height * width * 3;
  const from = (data.frames >> 1) * size;
  /** @type {WeakMap<Pull, [Int16Array, Int16Array]>} */
  const decoded = new WeakMap();
  const names = [say("ui.explain.arrows.null"), say("ui.explain.arrows.prompt"), ""];
  const tiles = names.map((name) => tile(height, width, name));
  const numbers = make("div");
  const near = make("p", "os-explain-note");
  const scale = () => pick.scale ?? 1;
  const pullOf = () => pulls[pick.pull ?? 0];
  const chart = chartOf(TALL, say("ui.explain.arrows"), (pen, ...box) => {
    const pull = pullOf();
    if (pull) drawArrows(pen, pull, scale(), most, box);
  });

  /** @param {Pull} pull */
  function pictures(pull) {
    /** @param {string} text */
    const frame = (text) => whole(text).subarray(from, from + size);
    /** @type {[Int16Array, Int16Array]} */
    const both = decoded.get(pull) ?? [frame(pull.null_picture), frame(pull.prompt_picture)];
    decoded.set(pull, both);
    return both;
  }

  function show() {
    const pull = pullOf();
    if (!pull) return;
    chart.draw();
    const [u, c] = pictures(pull);
    tiles.forEach(({ canvas }, i) => {
      paintPlaces(canvas, mix(u, c, [0, 1, scale()][i] ?? 0, data.unit), width, height, true);
    });
    const mixed = tiles[2];
    if (mixed) mixed.name.textContent = `s = ${scale()}`;
    numbers.replaceChildren(numbersOf(pull, scale()));
    near.textContent = isClose(pull, most) ? say("ui.explain.arrows.near") : "";
  }

  const said = make("div", "os-explain-said");
  said.append(...tiles.map(({ box }) => box), numbers);
  const tellTime = (/** @type {number} */ i) =>
    say("ui.explain.step_at", { step: i + 1, total: pulls.length, t: two(pulls[i]?.noise_level ?? 0) });
  body.append(
    chart.node,
    near,
    row(
      slider(pick, "scale", {
        label: say("ui.explain.scale"),
        high: most,
        step: 0.5,
        start: data.scale,
        tell: (s) => `s = ${s}`,
        act: show,
      }),
      slider(pick, "pull", {
        label: say("ui.explain.step"),
        high: pulls.length - 1,
        start: data.start,
        tell: tellTime,
        act: show,
      }),
    ),
    said,
  );
  show();
}
