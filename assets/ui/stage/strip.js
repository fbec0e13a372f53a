// The strip of steps under the picture: one cell a step, and a mark where somebody points.
import { find, penOf } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { cut, isHere, put } from "../lib/image.js";
import { clamp } from "../lib/maths.js";
import { cells, pictureAt, stepAt } from "./steps.js";

/** @typedef {import("./steps.js").View} View */
/** @typedef {Partial<Record<View, HTMLImageElement | null>>} Pictures */
/** @typedef {{ index: number, noiseLevel: number, pictures: Pictures }} Step */
/** @typedef {{ steps: Step[], total: number, latent: number, view: View, branch: number | null, scenes: number }} Run */

const GAP_PX = 2;
const TICKS_PX = 5; // of the line of ticks beneath, where steps share cells

/**
 * @param {HTMLElement} element
 * @param {() => Run} run what is shown
 * @param {(index: number | null, pinned: boolean) => void} scrub somebody looks at a step, or no longer; it is pinned once
 *   it was clicked
 */
export function startStrip(element, run, scrub) {
  const strip = find(element, ".os-strip", HTMLCanvasElement);
  const badge = find(element, ".os-badge", HTMLElement);
  const pen = penOf(strip);
  /** @type {number | null} */
  let at = null;
  /** @type {number | null} */
  let pinned = null;

  function draw() {
    const w = strip.clientWidth;
    const h = strip.clientHeight;
    const scale = window.devicePixelRatio || 1;
    if (!w) return;
    if (strip.width !== Math.round(w * scale) || strip.height !== Math.round(h * scale)) {
      strip.width = Math.round(w * scale);
      strip.height = Math.round(h * scale);
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, w, h);
    const style = getComputedStyle(element);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name);
    const { total, steps, branch, scenes } = run();
    const list = cells(total);
    const ticks = list.length < total ? TICKS_PX : 0;
    const width = (w + GAP_PX) / list.length;
    list.forEach(([first, last], k) => {
      drawCell(first, last, [k * width, 0, width - GAP_PX, h - ticks], colour("--os-cell"));
    });
    if (ticks) drawTicks(total, steps.length, w, h, colour("--os-accent"), colour("--os-line"));
    for (let k = 1; k < scenes; k++) drawLine((k / scenes) * w, h, colour("--os-accent"));
    if (branch !== null) drawLine((branch / total) * w, h, colour("--os-accent"));
    if (at !== null) drawMark(((at + 0.5) / total) * w, h, colour("--os-accent"));
  }

  /** @param {number} first @param {number} last @param {[number, number, number, number]} to @param {string} empty */
  function drawCell(first, last, to, empty) {
    const { steps, latent, view } = run();
    const [x, y, w, h] = to;
    const known = steps.length > first;
    const image = known
      ? pictureAt(
          steps.map((step) => step.pictures),
          last,
          view,
          isHere,
        )
      : null;
    if (!image) {
      pen.fillStyle = empty;
      pen.fillRect(x, y, w, h);
      return;
    }
    const [left, , sw, sh] = cut(image, Math.floor(latent / 2), latent);
    const ratio = Math.max(w / sw, h / sh);
    put(pen, image, [left + (sw - w / ratio) / 2, (sh - h / ratio) / 2, w / ratio, h / ratio], to, view === "latent");
  }

  /** @param {number} total @param {number} done @param {number} w @param {number} h @param {string} on @param {string} off */
  function drawTicks(total, done, w, h, on, off) {
    for (let i = 0; i < total; i++) {
      pen.fillStyle = i < done ? on : off;
      pen.fillRect((i / total) * w, h - TICKS_PX + 2, Math.max(w / total - 1, 1), TICKS_PX - 2);
    }
  }

  /** Where a branch leaves, or a scene begins. @param {number} x @param {number} h @param {string} colour */
  function drawLine(x, h, colour) {
    pen.fillStyle = colour;
    pen.fillRect(x - 2, 0, 2, h);
  }

  /** @param {number} x @param {number} h @param {string} colour */
  function drawMark(x, h, colour) {
    pen.fillStyle = colour;
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = 2;
    pen.strokeRect(x - 2, -2, 4, h + 4);
    pen.fillRect(x - 2, 0, 4, h);
  }

  /** @param {number | null} index */
  function lookAt(index) {
    const { steps, total } = run();
    if (!steps.length) return;
    at = index === null ? pinned : clamp(index, 0, steps.length - 1);
    const step = at === null ? undefined : steps[at];
    badge.hidden = !step;
    if (step) {
      badge.textContent = say("ui.stage.step", { step: step.index, total, percent: Math.round(step.noiseLevel * 100) });
      strip.setAttribute("aria-valuenow", String(step.index));
      strip.setAttribute("aria-valuetext", badge.textContent);
    }
    scrub(at, at !== null && at === pinned);
    draw();
  }

  /** @param {number | null} index */
  function pin(index) {
    pinned = index;
    lookAt(index);
  }

  /** @param {PointerEvent} event */
  const pointed = (event) => {
    const box = strip.getBoundingClientRect();
    return stepAt((event.clientX - box.left) / box.width, run().total);
  };
  strip.addEventListener("pointermove", (event) => {
    const index = pointed(event);
    if (event.buttons && pinned !== null) pin(Math.min(index, run().steps.length - 1));
    else lookAt(index);
  });
  strip.addEventListener("pointerdown", (event) => {
    strip.setPointerCapture(event.pointerId);
    if (run().steps.length) pin(Math.min(pointed(event), run().steps.length - 1));
  });
  for (const kind of ["pointerleave", "pointercancel"]) strip.addEventListener(kind, () => lookAt(null));
  strip.addEventListener("keydown", (event) => {
    const last = run().steps.length - 1;
    const now = at ?? last;
    /** @type {Record<string, number | null>} */
    const keys = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null };
    const to = keys[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    pin(to === null ? null : clamp(to, 0, last));
  });
  new ResizeObserver(draw).observe(strip);
  return {
    draw,
    lookAt,
    pin,
    /** A new run: nobody looks at one of its steps yet. */
    reset() {
      at = null;
      pinned = null;
      badge.hidden = true;
    },
    /** Whether somebody looks at a step. */
    scrubbed: () => at !== null,
  };
}
