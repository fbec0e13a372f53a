// The VAE: the clip through the codec and back, and what of it feels a change of later frames.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { cut, fit, isHere, load, stripOf } from "../lib/image.js";
import { clamp, largest } from "../lib/maths.js";
import { slider, two } from "./parts.js";

/** @typedef {import("../types.js").CodingValue} CodingValue */
/** @typedef {import("../types.js").CodingStage} Stage */

const LOWEST = 20; // pixels of a lane
const TALLEST = 64;
const BARS = 72; // pixels of the largest move

/** @returns {Record<string, string>} */
const titles = () => ({
  clip: say("ui.explain.stage.clip"),
  "2-D latents": say("ui.explain.stage.latents_2d"),
  latents: say("ui.explain.stage.latents"),
  decoded: say("ui.explain.stage.decoded"),
});

/** How far a latent moves, short. @param {number} moved */
export function movedText(moved) {
  if (moved === 0) return "0";
  if (moved < 0.005) return "<.01";
  return moved < 9.95 ? moved.toFixed(1) : moved.toFixed(0);
}

/** @param {string} title @param {string[]} lines */
function laneName(title, ...lines) {
  const name = make("div", "os-explain-lane-name");
  name.append(make("b", "", title), ...lines.map((line) => make("span", "", line)));
  return name;
}

/**
 * What a stage holds: of the clip as it is, or with its end turned to the negative. The clip's own negative is made where
 * it is drawn.
 * @param {Stage} stage @param {import("../types.js").ChangeValue | undefined} change
 */
export const pictureOf = (stage, change) => change?.pictures[stage.name] ?? stage.picture;

/**
 * One stage of the way as a lane under the clip's frames.
 * @param {Stage} stage @param {CodingValue} data @param {number} frames of the clip
 * @param {() => import("../types.js").ChangeValue | undefined} change the end of the clip that is turned
 */
function buildLane(stage, data, frames, change) {
  const canvas = make("canvas", "os-explain-lane");
  const title = titles()[stage.name] ?? stage.name;
  canvas.setAttribute("role", "img");
  canvas.dataset.stage = stage.name;
  canvas.setAttribute("aria-label", say("ui.explain.stage.frames", { stage: title, frames: stage.picture.frames }));
  const each = Array.from({ length: stage.picture.frames }, (_, i) => /** @type {[number, number]} */ ([i, i + 1]));
  const spans = stage.name === "latents" ? data.spans : each;
  const smooth = stage.name === "clip" || stage.name === "decoded";
  /** @type {Map<Stage["picture"], HTMLImageElement | HTMLCanvasElement>} */
  const sources = new Map();

  /** @param {Stage["picture"]} picture */
  function sourceOf(picture) {
    const known = sources.get(picture);
    if (known) return known;
    const source = "uri" in picture ? load(picture.uri, paint) : stripOf(picture);
    sources.set(picture, source);
    return source;
  }

  function paint() {
    const width = canvas.clientWidth;
    const picture = pictureOf(stage, change());
    const source = sourceOf(picture);
    if (!width || (source instanceof HTMLImageElement && !isHere(source))) return;
    const cell = width / frames;
    const side = clamp(cell * (picture.height / picture.width), LOWEST, TALLEST);
    canvas.style.width = "";
    const pen = fit(canvas, width, side);
    canvas.style.width = ""; // as wide as its column
    pen.imageSmoothingEnabled = smooth;
    for (const [i, [first, end]] of spans.entries()) {
      const x = first * cell;
      const w = (end - first) * cell - 1;
      const wide = Math.min(w, side * (picture.width / picture.height));
      if (end - first > 1) {
        pen.fillStyle = "rgb(127 140 150 / 25%)";
        pen.fillRect(x, 0, w, side);
      }
      pen.drawImage(source, ...cut(source, i, picture.frames), x + (w - wide) / 2, 0, wide, side);
      if (stage.name === "clip" && first >= (change()?.frame ?? frames)) invert(pen, x, w, side);
    }
  }

  const values = say("ui.explain.stage.numbers", { numbers: stage.values.toLocaleString("en") });
  return { name: laneName(title, stage.size.join(" x "), values), canvas, paint };
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} w @param {number} h */
function invert(pen, x, w, h) {
  pen.globalCompositeOperation = "difference"; // from white: the negative
  pen.fillStyle = "#ffffff";
  pen.fillRect(x, 0, w, h);
  pen.globalCompositeOperation = "source-over";
}

/** Bars over the latent frames. @param {CodingValue} data @param {number} frames */
function buildBars(data, frames) {
  const node = make("div", "os-explain-moves");
  const most = largest(data.changes.flatMap((change) => change.latents)) || 1;
  const columns = data.spans.map(([first, end]) => {
    const column = make("div", "os-explain-move");
    const fill = make("i");
    const text = make("span", "os-explain-note os-explain-num");
    column.style.left = `${(100 * first) / frames}%`;
    column.style.width = `calc(${(100 * (end - first)) / frames}% - 1px)`;
    column.append(text, fill);
    node.append(column);
    return { column, fill, text };
  });
  node.setAttribute("role", "img");
  /** @param {number[]} latents */
  const show = (latents) => {
    columns.forEach(({ column, fill, text }, j) => {
      const moved = latents[j] ?? 0;
      fill.style.height = `${(BARS * moved) / most}px`;
      text.textContent = movedText(moved);
      column.dataset.moved = String(moved);
    });
    node.setAttribute("aria-label", say("ui.explain.moved_by", { values: latents.map(two) }));
  };
  return { node, show };
}

// One observer for each figure: the one of an older run is let go, and its pictures with it.
/** @type {WeakMap<Element, ResizeObserver>} */
const sizes = new WeakMap();

/** @param {import("./explain.js").Drawing<"coding">} drawing */
export function drawCoding({ body, data, pick }) {
  const frames = data.stages[0]?.picture.frames ?? 1;
  const box = make("div", "os-explain-lanes");
  // One place of the slider more than there are changes: the clip as it is.
  const change = () => data.changes[pick.change ?? data.changes.length];
  const lanes = data.stages.map((stage) => buildLane(stage, data, frames, change));
  box.append(...lanes.flatMap(({ name, canvas }) => [name, canvas]));
  body.append(box);
  const paint = () => {
    for (const lane of lanes) lane.paint();
  };
  sizes.get(body)?.disconnect();
  const observer = new ResizeObserver(paint);
  observer.observe(body);
  sizes.set(body, observer);
  if (!data.changes.length) return;

  const bars = buildBars(data, frames);
  const show = () => {
    bars.show(change()?.latents ?? []);
    note.textContent = change() ? say("ui.explain.negative.note") : "";
    paint();
  };
  const note = make("p", "os-explain-note");
  const last = data.changes.length;
  const tell = (/** @type {number} */ i) => {
    const at = data.changes[i];
    return at ? say("ui.explain.frame", { frame: at.frame + 1 }) : say("ui.explain.negative.none");
  };
  box.append(
    laneName(say("ui.explain.moved"), say("ui.explain.moved.hint")),
    bars.node,
    make("span"),
    slider(pick, "change", {
      label: say("ui.explain.negative_from"),
      high: last,
      start: last - 1,
      fill: "after",
      tell,
      act: show,
    }),
    make("span"),
    note,
  );
  show();
}
