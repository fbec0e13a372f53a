// The latent scope: a map of the run (steps down, video time across), a readout of one point, curves with its cursor.
// A step's pictures are cut here, and everything one points at is answered without asking the server.
import { animation, calm } from "../lib/clock.js";
import { find, make } from "../lib/dom.js";
import { say, sayAll } from "../lib/i18n.js";
import { fit, load, put } from "../lib/image.js";
import { clamp } from "../lib/maths.js";
import { memoryOf } from "../lib/session.js";
import { storedRun, whenSeen } from "../lib/stored.js";
import { startCurves } from "./curves.js";
import { partOf, place, startReadout } from "./readout.js";

/** @typedef {import("../types.js").ScopeValue} ScopeValue */
/** @typedef {import("./readout.js").Step} Step */
/** @typedef {import("./readout.js").Mode} Mode */
/** @typedef {{ step: number, frame: number }} Place both from 0 */

const GUTTER = 32;
const ROW_MIN = 20;
const ROW_MAX = 56;
const WIDE = 760; // pixels from which map and readout stand side by side
const FASTEST_S = 0.04; // a latent frame, when playing
const CALM_S = 1; // where less motion is asked for

/** @param {import("../lib/host.js").Host<ScopeValue>} host */
export function start({ element, props, watch }) {
  sayAll(element);
  /** @param {string} selector */
  const $ = (selector) => find(element, selector, HTMLElement);
  const root = $(".os-scope");
  const box = $(".os-scope-box");
  const grid = $(".os-scope-grid");
  const play = $(".os-scope-play");
  const curvesBox = $(".os-scope-charts");
  const gridCanvas = find(grid, "canvas", HTMLCanvasElement);
  const mark = find(grid, ".os-scope-cell", HTMLElement);
  /** @type {ScopeValue | null} */
  let view = null;
  /** @type {Step[]} */
  let steps = [];
  // `at` is what is shown, `pin` where it was last put: pointing only borrows the view. `follow`: stay at the newest
  // step. `since`: when playing began.
  /** @type {{ at: Place, pin: Place, follow: boolean, since: number | null, waiting: boolean, cell: [number, number] }} */
  const state = {
    at: { step: 0, frame: 0 },
    pin: { step: 0, frame: 0 },
    follow: true,
    since: null,
    waiting: false,
    cell: [0, 0],
  };
  /** @type {{ mode: Mode }} */
  const memory = memoryOf("scope", { mode: "decoded" });
  const modes = [...element.querySelectorAll("[data-mode]")].filter((node) => node instanceof HTMLButtonElement);
  /** @type {HTMLImageElement | null} */
  let clip = null;
  const mode = () => (view?.decoded.length ? memory.mode : "latent");
  const again = () => {
    drawMap();
    update();
  };
  const readout = startReadout(element, again, mode);
  const curves = startCurves(curvesBox, (step, pin) => point(step, state.at.frame, pin), release);

  // --- the map: steps down, video time across

  // Room for every step of the run, from the first value on.
  function layOut() {
    const width = root.clientWidth;
    if (!view || !width) return;
    const { latent, total, aspect } = view;
    const wide = width >= WIDE;
    const height = wide ? 512 : 384;
    const room = (wide ? width / 2 : width) - GUTTER - 16;
    const tallest = clamp(Math.floor(height / total), ROW_MIN, ROW_MAX);
    const w = Math.max(Math.floor(Math.min(tallest * aspect, room / latent)), 2);
    const h = Math.max(Math.round(w / aspect), 6);
    state.cell = [w, h];
    root.classList.toggle("os-scope-narrow", !wide);
    root.classList.toggle("os-scope-tight", !wide || width - GUTTER - w * latent < WIDE); // the readout in two rows
    root.style.setProperty("--os-aspect", String(aspect));
    grid.style.width = `${w * latent}px`;
    grid.style.height = `${h * total}px`;
    box.style.maxHeight = `${height + 12}px`;
    fit(gridCanvas, w * latent, h * total);
    labelRows(total, h);
    drawMap();
  }

  /** @param {number} total @param {number} h */
  function labelRows(total, h) {
    const every = Math.ceil(16 / h);
    const labels = [];
    for (let i = 0; i < total; i += every) {
      const label = make("span", "", String(i + 1));
      label.style.top = `${(i + 0.5) * h}px`;
      labels.push(label);
    }
    $(".os-scope-rows").replaceChildren(...labels);
  }

  /** @param {Step} step */
  function drawRow(step) {
    const [w, h] = state.cell;
    if (!w || !view) return;
    const pen = fit(gridCanvas, w * view.latent, h * view.total);
    const gap = w >= 8 && h >= 8 ? 1 : 0;
    const top = (step.index - 1) * h;
    for (let frame = 0; frame < view.latent; frame++) {
      const part = partOf(step, readout.shown(), view, frame, readout.channel(), mode());
      if (part === null) return;
      pen.clearRect(frame * w, top, w, h);
      if (part !== "missing") put(pen, part.image, part.cut, [frame * w, top, w - gap, h - gap], part.places);
    }
  }

  function drawMap() {
    for (const step of steps) drawRow(step);
  }

  // The box scrolls by itself; the page stays where it is.
  function reveal() {
    const top = state.at.step * state.cell[1];
    const bottom = top + state.cell[1];
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
  }

  // --- the cursor

  // Everything that depends on the chosen step, frame, quantity or channel, at most once a frame of the screen.
  function update() {
    if (state.waiting) return;
    state.waiting = true;
    requestAnimationFrame(() => {
      state.waiting = false;
      const step = steps[state.at.step];
      if (view && step && root.clientWidth) show(view, step);
    });
  }

  /** @param {ScopeValue} view @param {Step} step */
  function show(view, step) {
    const { frame } = state.at;
    const [w, h] = state.cell;
    place(mark, frame * w, (step.index - 1) * h, w, h);
    const counted = { step: step.index, total: view.total, frame: frame + 1, frames: view.latent };
    const where = say(view.latent > 1 ? "ui.scope.at_frame" : "ui.scope.at", counted);
    const guidance = Number(step.guidance_asked.toFixed(2));
    const noise = say("ui.scope.noise", { percent: Math.round(step.noise_level * 100), scale: guidance });
    const numbers = step.reused ? `${noise}  ·  ${say("ui.scope.reused")}` : noise;
    $(".os-scope-at").textContent = `${where}  ·  ${numbers}`;
    grid.setAttribute("aria-valuemax", String(view.total));
    grid.setAttribute("aria-valuenow", String(step.index));
    grid.setAttribute("aria-valuetext", `${where}, ${numbers}`);
    readout.show(step, frame, clip);
    curves.show(step);
  }

  /** Look at a step and frame; `pin` to stay there. @param {number} step @param {number} frame @param {boolean} pin */
  function point(step, frame, pin) {
    if (!steps.length || !view) return;
    const last = steps.length - 1;
    state.at = { step: clamp(step, 0, last), frame: clamp(frame, 0, view.latent - 1) };
    if (pin) {
      state.pin = { ...state.at };
      state.follow = state.at.step === last;
    }
    update();
  }

  function release() {
    state.at = { ...state.pin, frame: state.since === null ? state.pin.frame : state.at.frame };
    update();
  }

  /** @param {PointerEvent} event @returns {[number, number]} */
  function cellAt(event) {
    const bounds = grid.getBoundingClientRect();
    const [w, h] = state.cell;
    const free = state.since === null || event.buttons > 0;
    const frame = free ? Math.floor((event.clientX - bounds.left) / w) : state.at.frame;
    return [Math.floor((event.clientY - bounds.top) / h), frame];
  }
  grid.addEventListener("pointermove", (event) => point(...cellAt(event), event.buttons > 0));
  grid.addEventListener("pointerdown", (event) => {
    grid.setPointerCapture(event.pointerId);
    stop();
    point(...cellAt(event), true);
  });
  grid.addEventListener("pointerleave", release);
  grid.addEventListener("keydown", (event) => {
    const { step, frame } = state.at;
    /** @type {Record<string, [number, number]>} */
    const keys = {
      ArrowUp: [step - 1, frame],
      ArrowDown: [step + 1, frame],
      ArrowLeft: [step, frame - 1],
      ArrowRight: [step, frame + 1],
      PageUp: [step - 10, frame],
      PageDown: [step + 10, frame],
      Home: [0, frame],
      End: [Infinity, frame],
    };
    const to = keys[event.key];
    if (!to) return;
    event.preventDefault();
    if (to[1] !== frame) stop();
    point(...to, true);
    reveal();
  });

  // --- playing: frame by frame at the clip's own pace; where less motion is asked for, a frame a second at most

  function stop() {
    state.since = null;
    play.setAttribute("aria-pressed", "false");
    play.textContent = say("ui.scope.play");
    state.pin.frame = state.at.frame;
  }

  const wake = animation([root], (now) => {
    if (state.since === null || !view) return false;
    const pace = Math.max(view.seconds / view.latent, calm.matches ? CALM_S : FASTEST_S);
    const frame = Math.floor(Math.max(now - state.since, 0) / 1000 / pace) % view.latent;
    if (frame !== state.at.frame) {
      state.at = { ...state.at, frame };
      update();
    }
    return true;
  });

  play.addEventListener("click", () => {
    if (state.since !== null) return stop();
    state.since = performance.now();
    play.setAttribute("aria-pressed", "true");
    play.textContent = say("ui.scope.pause");
    wake();
  });

  function showMode() {
    const can = Boolean(view?.decoded.length);
    $(".os-scope-modes").hidden = !can;
    for (const node of modes) node.setAttribute("aria-pressed", String(node.dataset.mode === mode()));
  }
  for (const node of modes) {
    node.addEventListener("click", () => {
      memory.mode = node.dataset.mode === "latent" ? "latent" : "decoded";
      showMode();
      again();
    });
  }

  // --- a value arrives

  /** @param {import("../types.js").ScopeStep} value @returns {Step} */
  function asStep(value) {
    const arrived = () => {
      if (steps[value.index - 1] !== step) return; // of an older run
      drawRow(step);
      if (state.at.step === value.index - 1) update();
    };
    const images = { pictures: load(value.pictures, arrived), channels: load(value.channels, arrived) };
    /** @type {Step} */
    const step = { ...value, images, decoded: null };
    return step;
  }

  /** Decoded pictures come after their steps. @param {ScopeValue} value */
  function takeDecoded({ decoded }) {
    for (const { index, quantities, pictures } of decoded) {
      const step = steps[index - 1];
      if (!step || step.decoded) continue;
      const arrived = () => {
        if (steps[index - 1] !== step) return; // of an older run
        drawRow(step);
        if (state.at.step === index - 1) update();
      };
      step.decoded = { quantities, image: load(pictures, arrived) };
    }
  }

  /** @param {ScopeValue} value */
  function begin(value) {
    stop();
    steps = [];
    clip = null;
    state.follow = true;
    state.at = { step: 0, frame: Math.floor((value.latent - 1) / 2) };
    state.pin = { ...state.at };
    box.scrollTop = 0;
  }

  function receive() {
    if (props.value) take(props.value);
  }

  /** @param {ScopeValue} value */
  function take(value) {
    // Until the first step of a new run is there, the run before it stays.
    if (!value.steps.length || (view && value.run < view.run)) return;
    const fresh = view?.run !== value.run;
    const grown = fresh || value.total !== view?.total;
    if (fresh) begin(value);
    view = value;
    readout.resize(value);
    root.dataset.state = value.stored ? "stored" : value.done ? "done" : "running";
    $(".os-scope-prompt").textContent = value.stored ? `${value.prompt} · ${say("ui.explain.stored")}` : value.prompt;
    play.hidden = value.latent < 2;
    for (const step of value.steps.slice(steps.length)) steps.push(asStep(step));
    takeDecoded(value);
    if (value.clip && !clip) clip = load(value.clip, update);
    showMode();
    if (grown) layOut();
    curves.draw(steps, value.total);
    if (state.follow) followNewest();
    update();
  }

  function followNewest() {
    state.pin.step = steps.length - 1;
    if (grid.matches(":hover") || curvesBox.matches(":hover")) return; // borrowed
    state.at.step = state.pin.step;
    reveal();
  }

  new ResizeObserver(() => {
    layOut();
    update();
  }).observe(root);
  stop();
  watch("value", receive);
  receive();
  whenSeen(root, async () => {
    const example = view ? null : await storedRun("scope");
    if (example && !view) take(example);
  });
}
