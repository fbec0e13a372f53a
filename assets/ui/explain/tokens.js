// Tokens: the latent in patches, and what adaLN does in every block over flow time.
import { chartOf } from "../lib/chart.js";
import { button, make, vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintPixels } from "../lib/image.js";
import { largest, spread } from "../lib/maths.js";
import { blockOf, drawCurves, styleLine, TALL } from "./curves.js";
import { options, row, slider, tile, two } from "./parts.js";

/** @typedef {import("../types.js").CurveValue} Curve */

const TILES = 5;
const VECTORS = /** @type {const} */ (["gate", "scale", "shift"]);
const MODES = /** @type {const} */ (["size", "change"]);
const PARTS = /** @type {const} */ (["attention", "mlp", "both"]);

const partTitles = () => ({
  attention: say("ui.explain.part.attention"),
  mlp: say("ui.explain.part.mlp"),
  both: say("ui.explain.part.both"),
});
const vectorNames = () => [
  say("ui.explain.vector.gate"),
  say("ui.explain.vector.scale"),
  say("ui.explain.vector.shift"),
];

/** The run's own step nearest to a time. @param {number[]} times @param {number} t */
export function nearest(times, t) {
  return times.reduce((best, time, k) => (Math.abs(time - t) < Math.abs((times[best] ?? 0) - t) ? k : best), 0);
}

/** Lines between patches. @param {number} rows @param {number} columns */
function patches(rows, columns) {
  const viewBox = `0 0 ${columns} ${rows}`;
  const lines = vector("svg", { viewBox, preserveAspectRatio: "none", "aria-hidden": "true" });
  const down = Array.from({ length: columns - 1 }, (_, x) => `M${x + 1} 0V${rows}`);
  const across = Array.from({ length: rows - 1 }, (_, y) => `M0 ${y + 1}H${columns}`);
  lines.append(vector("path", { d: [...down, ...across].join("") }));
  return lines;
}

/** @param {import("./explain.js").Drawing<"tokens">} drawing */
export function drawTokens({ body, data, figures, pick }) {
  const { flow } = figures;
  const first = flow?.noisy[0];
  if (!flow || !first) return;
  const frames = make("div", "os-explain-frames");
  const shown = spread(first.frames, TILES).map((frame) => {
    const made = tile(first.height, first.width, say("ui.explain.latent_frame", { frame: frame + 1 }));
    made.frame.append(patches(data.grid[1], data.grid[2]));
    frames.append(made.box);
    return { frame, canvas: made.canvas };
  });
  const names = [...new Set(data.curves.map(blockOf))];
  const layers = Math.max(...data.curves.map((curve) => curve.layer)) + 1;
  const last = data.times.length - 1;
  const chartBox = make("div", "os-explain-charts");
  const keys = make("div", "os-explain-keys");
  if (pick.block !== undefined && pick.block >= names.length) delete pick.block;

  const vectorOf = () => VECTORS[pick.vector ?? 0] ?? "gate";
  const modeOf = () => MODES[pick.mode ?? 0] ?? "size";
  /** @param {Curve} curve */
  const numbers = (curve) => curve[vectorOf()][modeOf()];
  const chosen = () => (pick.block === undefined ? null : names[pick.block]);

  /** @param {string} part @param {number} top */
  const shownOf = (part, top) => ({
    lines: data.curves.flatMap((curve) => (curve.part === part ? [{ curve, numbers: numbers(curve) }] : [])),
    layers,
    top,
    time: pick.time ?? 0,
    chosen: chosen(),
  });

  /** @type {(() => void)[]} */
  let draws = [];
  function plot() {
    const top = Math.max(...data.curves.map((curve) => largest(numbers(curve)))) || 1;
    const titles = partTitles();
    const vectorName = vectorNames()[pick.vector ?? 0] ?? "";
    const parts = PARTS.filter((part) => data.curves.some((curve) => curve.part === part));
    const charts = parts.map((part) => {
      const label = say("ui.explain.vectors", { vector: vectorName, part: titles[part] });
      const { node, draw } = chartOf(TALL, label, (chart, width) => drawCurves(chart, width, shownOf(part, top)));
      const box = make("div", "os-explain-chart");
      box.append(make("span", "", titles[part]), node);
      return { box, draw };
    });
    chartBox.replaceChildren(...charts.map(({ box }) => box));
    draws = charts.map(({ draw }) => draw);
    follow();
  }

  const chips = names.map((name, i) => {
    const node = button("os-explain-option os-explain-key", "", () => {
      if (pick.block === i) delete pick.block;
      else pick.block = i;
      follow();
    });
    const value = make("small");
    const sample = vector("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" });
    const line = vector("path", { class: "os-explain-line", d: "M0 4H20" });
    const curve = data.curves.find((c) => blockOf(c) === name);
    if (curve) styleLine(line, curve, layers);
    sample.append(line);
    node.append(sample, make("span", "", name), value);
    keys.append(node);
    return { name, node, value };
  });

  function follow() {
    const i = pick.time ?? 0;
    const t = data.times[i] ?? 0;
    for (const draw of draws) draw();
    // Behind the run's last step stands where it arrived.
    const ended = t < (flow?.times.at(-1) ?? 0) / 2;
    const picture = ended ? flow?.clean.at(-1) : flow?.noisy[nearest(flow.times, t)];
    for (const { frame, canvas } of shown) if (picture) paintPixels(canvas, picture, frame);
    for (const { name, node, value } of chips) {
      const own = data.curves.filter((curve) => blockOf(curve) === name);
      value.textContent = own.map((curve) => two(numbers(curve)[i] ?? 0)).join(" / ");
      node.setAttribute("aria-pressed", String(name === chosen()));
    }
  }

  const modes = [say("ui.explain.shown.size"), say("ui.explain.shown.change")];
  body.append(
    frames,
    slider(pick, "time", {
      label: say("ui.explain.flow_time"),
      high: last,
      start: Math.round(last * 0.4),
      tell: (i) => `t = ${two(data.times[i] ?? 0)}`,
      act: follow,
    }),
    row(
      options(pick, "vector", { label: say("ui.explain.vector"), names: vectorNames(), start: 0, act: plot }),
      options(pick, "mode", { label: say("ui.explain.shown"), names: modes, start: 0, act: plot }),
    ),
    chartBox,
    keys,
    make("p", "os-explain-note", say("ui.explain.vectors.note")),
  );
  plot();
}
