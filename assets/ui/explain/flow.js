// From noise to data: the way of the run from noise to the clip, on a plane.
import { chartOf, linePath } from "../lib/chart.js";
import { make, vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintPixels } from "../lib/image.js";
import { slider, tile, two } from "./parts.js";
import { plane } from "./plane.js";

/** @typedef {import("./plane.js").Point} Point */

const TALL = 336;
const PAD = 32;
const FAR = 1.6; // from the middle of the way: estimates beyond do not make the picture smaller
/** @type {Point} */
const NOISE = [0, 0];
/** @type {Point} */
const CLIP = [1, 0];

/** @param {import("./explain.js").Drawing<"flow">} drawing */
export function drawFlow({ body, data, pick }) {
  const steps = data.times.length;
  const near = data.estimates.filter(([x, y]) => Math.hypot(x - 0.5, y) < FAR);
  const chart = chartOf(TALL, say("ui.explain.way"), (pen, width, height) => {
    const at = plane([...data.points, ...near, NOISE, CLIP], width, height, PAD);
    const places = data.points.map(at);
    const guesses = data.estimates.map(at);
    /** @param {string} name @param {(Point | undefined)[]} points */
    const line = (name, points) => vector("path", { class: name, d: linePath(points.map((point) => point ?? null)) });
    pen.replaceChildren(
      ...guesses.map((guess, k) => line("os-explain-faint", [places[k], guess])),
      line("os-explain-straight", [at(NOISE), at(CLIP)]),
      line("os-explain-way", places),
      ...places.slice(1).map(([cx, cy]) => vector("circle", { class: "os-explain-dot", cx, cy, r: 3 })),
      ...end(at(NOISE), say("ui.explain.way.noise")),
      ...end(at(CLIP), say("ui.explain.way.clip")),
    );
    const place = places[pick.step ?? 0];
    const guess = guesses[pick.step ?? 0];
    if (!place || !guess) return;
    pen.append(
      line("os-explain-ahead", [place, guess]),
      vector("circle", { class: "os-explain-guess", cx: guess[0], cy: guess[1], r: 5 }),
      vector("circle", { class: "os-explain-dot os-explain-now", cx: place[0], cy: place[1], r: 6 }),
    );
  });
  const first = data.noisy[0];
  const middle = (first?.frames ?? 0) >> 1;
  const noisy = tile(first?.height ?? 1, first?.width ?? 1);
  const clean = tile(first?.height ?? 1, first?.width ?? 1, say("ui.explain.way.expected"));

  function show() {
    const i = pick.step ?? 0;
    chart.draw();
    for (const [{ canvas }, picture] of /** @type {const} */ ([
      [noisy, data.noisy[i]],
      [clean, data.clean[i]],
    ])) {
      if (picture) paintPixels(canvas, picture, middle, true);
    }
    noisy.name.textContent = say("ui.explain.way.x", { t: two(data.times[i] ?? 0) });
  }

  const split = make("div", "os-explain-split");
  const main = make("div", "os-explain-main");
  const side = make("div", "os-explain-side");
  const tell = (/** @type {number} */ i) =>
    say("ui.explain.step_at", { step: i + 1, total: steps, t: two(data.times[i] ?? 0) });
  const setting = { label: say("ui.explain.step"), high: steps - 1, start: Math.round(steps / 4), tell, act: show };
  main.append(chart.node, slider(pick, "step", setting), make("p", "os-explain-note", say("ui.explain.way.note")));
  side.append(noisy.box, clean.box);
  split.append(main, side);
  body.append(split);
  show();
}

/** @param {Point} place @param {string} name */
const end = ([cx, cy], name) => [
  vector("circle", { class: "os-explain-end", cx, cy, r: 5 }),
  vector("text", { class: "os-explain-name", x: cx, y: cy + 22, "text-anchor": "middle" }, name),
];
