// A flow of points on a plane that is trained here, in the visitor's browser, and bent by guidance.
import { chartOf, linear, linePath } from "../lib/chart.js";
import { animation, calm } from "../lib/clock.js";
import { button, find, make, penOf, vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { clamp } from "../lib/maths.js";
import { BATCH, dataOf, HIDDEN, judge, noiseOf, paths, trainerOf, velocity } from "./flow2d.js";
import { options, row, slider, two } from "./parts.js";

/** @typedef {import("./flow2d.js").Point} Point */
/** @typedef {import("./flow2d.js").Class} Class */
/** @typedef {import("./flow2d.js").Data} Data */
/** @typedef {import("./flow2d.js").Trainer} Trainer */

const DATA = /** @type {const} */ (["moons", "rings", "islands", "own"]);
const HIDDEN_SHARES = [0, 0.1, 0.5];
const ENOUGH = 500; // steps of one training
const SLICE_MS = 9; // of every frame of the screen are for training
const LOOK_MS = 200; // between two looks at it meanwhile
const REACH = 2.4; // half the side of the plane that is shown
const GRID = 13; // arrows a side
const FEW = { points: 60, steps: 8 }; // while it learns
const MANY = { points: 150, steps: 20 };
const PLAY_MS = 2400; // from noise to data
const LEAST = 5; // drawn points of each class
const DRAWN_APART = 0.06;
const LOSS_TALL = 120;
const SMOOTH = 20; // steps over which the loss is averaged
const NOISE_SEED = 11;

/** @param {number[]} losses mean over the last few steps, at each */
export function smoothed(losses) {
  return losses.map((_, i) => {
    const part = losses.slice(Math.max(i - SMOOTH + 1, 0), i + 1);
    return part.reduce((a, b) => a + b, 0) / part.length;
  });
}

/** @param {HTMLElement} figure */
export function startTrained(figure) {
  const body = find(figure, ".os-explain-body", HTMLElement);
  /** @type {import("./parts.js").Pick} */
  const pick = {};
  /** @type {Data} */
  const own = { points: [], classes: [] };
  const canvas = make("canvas", "os-explain-plane");
  canvas.setAttribute("role", "img");
  const pen = penOf(canvas);
  const facts = make("dl", "os-explain-facts");
  const note = make("p", "os-explain-note");
  const train = button("os-explain-option", "", () => (state.learning ? pause() : resume()));
  const again = button("os-explain-option", say("ui.explain.trained.again"), () => {
    state.seed += 1;
    begin();
    resume();
  });
  const play = button("os-explain-option", say("ui.scope.play"), () => {
    state.since = performance.now();
    wake();
  });
  const wipe = button("os-explain-option", say("ui.explain.trained.wipe"), () => {
    own.points.length = 0;
    own.classes.length = 0;
    begin();
  });
  /** @type {{ data: Data, trainer: Trainer | null, seed: number, learning: boolean, goal: number, way: Point[][], looked: number, since: number | null, begun: boolean }} */
  const state = {
    data: own,
    trainer: null,
    seed: 1,
    learning: false,
    goal: ENOUGH,
    way: [],
    looked: 0,
    since: null,
    begun: false,
  };
  const dataName = () => DATA[pick.data ?? 0] ?? "moons";
  const chosen = () => /** @type {Class} */ (pick.class ?? 0);
  const scale = () => pick.scale ?? 1;
  const time = () => 1 - (pick.time ?? 100) / 100;

  const loss = chartOf(LOSS_TALL, say("ui.explain.trained.loss"), (chart, width, height) => {
    const losses = smoothed(state.trainer?.losses ?? []);
    const x = linear([0, Math.max(losses.length, ENOUGH)], [28, width - 4]);
    const top = Math.max(...losses, 1.5);
    const y = linear([0, top], [height - 20, 6]);
    chart.replaceChildren(
      vector("path", { class: "os-explain-axis", d: `M28 6V${height - 20}H${width - 4}` }),
      vector("path", { class: "os-explain-line", d: linePath(losses.map((value, i) => [x(i), y(value)])) }),
      vector("text", { x: 24, y: y(0) + 4, "text-anchor": "end" }, "0"),
      vector("text", { x: 24, y: y(top) + 8, "text-anchor": "end" }, top.toFixed(1)),
      vector("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, say("ui.explain.trained.axis")),
    );
  });

  // --- what is drawn

  /** @param {Point} point @param {number} side @returns {Point} */
  const at = ([x, y], side) => [((x + REACH) / (2 * REACH)) * side, ((REACH - y) / (2 * REACH)) * side];

  function colours() {
    const style = getComputedStyle(figure);
    /** @param {string} name */
    const of = (name) => style.getPropertyValue(name).trim();
    return { classes: [of("--os-accent"), of("--os-other")], ink: of("--os-ink"), muted: of("--os-muted") };
  }

  function draw() {
    const side = canvas.clientWidth;
    if (!side) return;
    const sharp = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * sharp);
    pen.setTransform(sharp, 0, 0, sharp, 0, 0);
    pen.clearRect(0, 0, side, side);
    const colour = colours();
    drawData(side, colour);
    if (!state.trainer || state.way.length < 2) return;
    drawField(state.trainer, side, colour.muted);
    drawWays(side, colour);
  }

  /** @param {number} side @param {ReturnType<typeof colours>} colour */
  function drawData(side, colour) {
    for (const [i, point] of state.data.points.entries()) {
      const [x, y] = at(point, side);
      pen.fillStyle = colour.classes[state.data.classes[i] ?? 0] ?? "";
      pen.globalAlpha = state.data.classes[i] === chosen() || !state.way.length ? 0.45 : 0.2;
      pen.beginPath();
      pen.arc(x, y, 2.5, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  // Where a point that stands there goes: against the velocity, for time runs down.
  /** @param {Trainer} trainer @param {number} side @param {string} colour */
  function drawField({ net }, side, colour) {
    const places = Array.from({ length: GRID * GRID }, (_, k) => {
      const [i, j] = [k % GRID, Math.floor(k / GRID)];
      return /** @type {Point} */ ([i, j].map((n) => REACH * ((2 * (n + 0.5)) / GRID - 1)));
    });
    const found = velocity(net, places, Math.max(time(), 0.02), chosen(), scale());
    const unit = side / GRID / 6;
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.globalAlpha = 0.7;
    for (const [k, place] of places.entries()) {
      const [vx, vy] = found[k] ?? [0, 0];
      const long = Math.hypot(vx, vy);
      const by = clamp(unit * long, 0, side / GRID) / (long || 1);
      const [x, y] = at(place, side);
      const [tx, ty] = [x - by * vx, y + by * vy];
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(tx, ty);
      pen.stroke();
      pen.beginPath();
      pen.arc(x, y, 1, 0, 7);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  /** @param {number} side @param {ReturnType<typeof colours>} colour */
  function drawWays(side, colour) {
    const last = state.way.length - 1;
    const reached = (1 - time()) * last;
    const whole = Math.floor(reached);
    const count = state.way[0]?.length ?? 0;
    pen.lineWidth = 1;
    for (let i = 0; i < count; i++) {
      const ways = state.way.map((step) => at(step[i] ?? [0, 0], side));
      const [from, to] = [ways[whole] ?? [0, 0], ways[Math.min(whole + 1, last)] ?? [0, 0]];
      const now = [0, 1].map((k) => (from[k] ?? 0) + (reached - whole) * ((to[k] ?? 0) - (from[k] ?? 0)));
      pen.strokeStyle = colour.ink;
      pen.globalAlpha = 0.13;
      pen.beginPath();
      for (const [x, y] of [...ways.slice(0, whole + 1), now]) pen.lineTo(x ?? 0, y ?? 0);
      pen.stroke();
      pen.globalAlpha = 1;
      pen.fillStyle = colour.classes[chosen()] ?? "";
      pen.strokeStyle = colour.ink;
      pen.beginPath();
      pen.arc(now[0] ?? 0, now[1] ?? 0, 3, 0, 7);
      pen.fill();
      pen.stroke();
    }
  }

  // --- what it says

  /** Paths of the network as it is, and what has become of them. */
  function look() {
    const { trainer } = state;
    if (trainer) {
      const { points, steps } = state.learning ? FEW : MANY;
      state.way = paths(trainer.net, noiseOf(points, NOISE_SEED), chosen(), scale(), steps);
    }
    tellFacts();
    loss.draw();
    draw();
  }

  function tellFacts() {
    const { trainer, data } = state;
    const ended = state.way.at(-1);
    const losses = trainer?.losses ?? [];
    const judged = ended && losses.length ? judge(ended, data, chosen()) : null;
    const right = judged ? `${Math.round(100 * judged.right)} %` : "–";
    const spread = judged ? two(judged.spread) : "–";
    facts.replaceChildren();
    for (const [name, value] of /** @type {const} */ ([
      [say("ui.explain.trained.seed"), String(state.seed)],
      [say("ui.explain.trained.numbers"), String(trainer?.net.values.length ?? 0)],
      [say("ui.explain.trained.steps", { batch: BATCH }), String(losses.length)],
      [say("ui.explain.trained.loss_now"), losses.length ? two(smoothed(losses.slice(-SMOOTH)).at(-1) ?? 0) : "–"],
      [say("ui.explain.trained.right"), right],
      [say("ui.explain.trained.spread"), spread],
    ])) {
      facts.append(make("dt", "", name), make("dd", "", value));
    }
    canvas.setAttribute("aria-label", say("ui.explain.trained.plane", { right, spread, scale: scale() }));
    figure.dataset.steps = String(losses.length);
    figure.dataset.right = judged ? judged.right.toFixed(3) : "";
    figure.dataset.spread = judged ? judged.spread.toFixed(3) : "";
    const going = state.learning ? "ui.explain.trained.pause" : "ui.explain.trained.train";
    train.textContent = say(losses.length >= ENOUGH && !state.learning ? "ui.explain.trained.on" : going);
    const lacks = dataName() === "own" && !trainer;
    train.disabled = again.disabled = lacks;
    wipe.hidden = dataName() !== "own";
    note.textContent = say(
      lacks ? "ui.explain.trained.draw" : pick.hidden === 0 ? "ui.explain.trained.never" : "ui.explain.trained.note",
      { hidden: HIDDEN, least: LEAST },
    );
  }

  // --- what it does

  function begin() {
    const name = dataName();
    state.learning = false;
    state.goal = ENOUGH;
    state.way = [];
    state.data = name === "own" ? own : dataOf(name, 1);
    const enough = [0, 1].every((c) => state.data.classes.filter((found) => found === c).length >= LEAST);
    state.trainer = enough ? trainerOf(state.data, state.seed, HIDDEN_SHARES[pick.hidden ?? 1] ?? 0) : null;
    look();
  }

  function pause() {
    state.learning = false;
    look();
  }

  function resume() {
    const { trainer } = state;
    if (!trainer) return;
    state.goal = (Math.floor(trainer.losses.length / ENOUGH) + 1) * ENOUGH;
    state.learning = true;
    state.begun = true;
    tellFacts();
    wake();
  }

  /** @param {number} now */
  function learnOn(now) {
    const { trainer } = state;
    if (!trainer) return;
    const until = performance.now() + SLICE_MS;
    while (trainer.losses.length < state.goal && performance.now() < until) trainer.step();
    if (trainer.losses.length >= state.goal) return pause();
    if (now - state.looked < LOOK_MS) return;
    state.looked = now;
    look();
  }

  const wake = animation([canvas], (now) => {
    if (state.learning) learnOn(now);
    if (state.since !== null) {
      const share = clamp((now - state.since) / PLAY_MS, 0, 1);
      times.set(Math.round(100 * share));
      if (share === 1) state.since = null;
      draw();
    }
    return state.learning || state.since !== null;
  });

  // --- drawing one's own

  /** @param {PointerEvent} event */
  function drawOwn(event) {
    if (dataName() !== "own" || !event.buttons) return;
    const bounds = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - bounds.left) / bounds.width, (event.clientY - bounds.top) / bounds.height];
    /** @type {Point} */
    const point = [REACH * (2 * x - 1), REACH * (1 - 2 * y)];
    const [before] = own.points.slice(-1);
    if (before && Math.hypot(before[0] - point[0], before[1] - point[1]) < DRAWN_APART) return;
    own.points.push(point);
    own.classes.push(chosen());
    begin();
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (dataName() !== "own") return;
    canvas.setPointerCapture(event.pointerId);
    drawOwn(event);
  });
  canvas.addEventListener("pointermove", drawOwn);

  const hidden = HIDDEN_SHARES.map((share) => `${100 * share} %`);
  const times = slider(pick, "time", {
    label: say("ui.explain.trained.time"),
    high: 100,
    start: 100,
    tell: (value) => `t = ${two(1 - value / 100)}`,
    act: () => {
      state.since = null;
      draw();
    },
  });
  const data = [
    say("ui.explain.trained.data.moons"),
    say("ui.explain.trained.data.rings"),
    say("ui.explain.trained.data.islands"),
    say("ui.explain.trained.data.own"),
  ];
  const classes = [say("ui.explain.trained.class.a"), say("ui.explain.trained.class.b")];
  const fresh = () => {
    canvas.classList.toggle("os-explain-drawn", dataName() === "own");
    begin();
    if (dataName() !== "own") resume();
  };
  const split = make("div", "os-explain-split os-explain-trained");
  const main = make("div", "os-explain-main");
  const side = make("div", "os-explain-side");
  main.append(
    canvas,
    slider(pick, "scale", {
      label: say("ui.explain.scale"),
      high: 8,
      step: 0.5,
      start: 1,
      tell: (s) => `s = ${s}`,
      act: look,
    }),
    row(times, play),
  );
  side.append(row(train, again, wipe), loss.node, facts);
  split.append(main, side);
  body.dataset.state = "full";
  body.replaceChildren(
    row(
      options(pick, "data", { label: say("ui.explain.trained.data"), names: data, start: 0, act: fresh }),
      options(pick, "class", { label: say("ui.explain.trained.class"), names: classes, start: 0, act: look }),
      options(pick, "hidden", { label: say("ui.explain.trained.hidden"), names: hidden, start: 1, act: fresh }),
    ),
    split,
    note,
  );
  begin();
  new ResizeObserver(draw).observe(canvas);
  // It trains once by itself when it comes into sight, unless less motion is asked for.
  new IntersectionObserver((entries, observer) => {
    if (state.begun) return observer.disconnect();
    if (calm.matches || !entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    resume();
  }).observe(canvas);
}
