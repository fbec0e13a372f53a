// Two clips laid on each other: one wipes over the other, or their difference.
import { find, make, penOf } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintCell } from "./cells.js";

/** @typedef {import("./cells.js").Cell} Cell */

const SIDE_PX = 128; // of the pictures whose difference is taken
const WHITE = 96; // of 255: a difference as large is drawn white

/**
 * Difference of two pictures as heat, in place of the first; its root mean square of 255.
 * @param {ImageData} a @param {ImageData} b
 */
export function difference(a, b) {
  let sum = 0;
  const x = a.data;
  const y = b.data;
  for (let i = 0; i < x.length; i += 4) {
    const [red = 0, green = 0, blue = 0] = [0, 1, 2].map((k) => Math.abs((x[i + k] ?? 0) - (y[i + k] ?? 0)));
    sum += red ** 2 + green ** 2 + blue ** 2;
    const v = Math.min((red + green + blue) / 3 / WHITE, 1);
    x[i] = 255 * Math.min(1, v * 2.2);
    x[i + 1] = 255 * Math.max(0, Math.min(1, v * 2 - 0.6));
    x[i + 2] = 255 * Math.max(0.1 * v, Math.min(1, v * 3 - 2));
  }
  return Math.sqrt(sum / (x.length * 0.75));
}

/**
 * @param {HTMLElement} element
 * @param {() => number} at seconds of the clock
 * @param {() => import("./cells.js").Look} look
 */
export function startPair(element, at, look) {
  const box = find(element, ".os-compare-pair-box", HTMLElement);
  const modes = find(element, ".os-compare-modes", HTMLElement);
  const hint = find(element, ".os-compare-pair-hint", HTMLElement);
  const distance = find(element, ".os-compare-distance", HTMLElement);
  const canvas = find(element, ".os-compare-pair-canvas", HTMLCanvasElement);
  const wipe = find(element, ".os-compare-wipe", HTMLInputElement);
  const buttons = [...element.querySelectorAll("button.os-compare-overlay")].filter(
    (node) => node instanceof HTMLElement,
  );
  const pen = penOf(canvas);
  const sheets = [make("canvas"), make("canvas")].map((sheet) => penOf(sheet, true));
  let mode = "wipe";
  /** @type {[Cell, Cell] | null} */
  let pair = null;

  function draw() {
    if (!pair) return;
    const [a, b] = pair;
    const [w, h] = [a.row.cell[0] * 2, a.row.cell[1] * 2];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    box.style.aspectRatio = `${w} / ${h}`;
    if (mode === "wipe") drawWipe(a, b, w, h);
    else drawDifference(a, b, w, h);
  }

  /** @param {Cell} a @param {Cell} b @param {number} w @param {number} h */
  function drawWipe(a, b, w, h) {
    const edge = (w * Number(wipe.value)) / 100;
    paintCell(a, pen, at(), w, h, look());
    pen.save();
    pen.beginPath();
    pen.rect(edge, 0, w, h);
    pen.clip();
    paintCell(b, pen, at(), w, h, look());
    pen.restore();
    pen.fillStyle = "#ffffff";
    pen.fillRect(edge - 1, 0, 2, h);
    distance.textContent = "";
  }

  /** @param {Cell} a @param {Cell} b @param {number} w @param {number} h */
  function drawDifference(a, b, w, h) {
    const tall = Math.round((SIDE_PX * h) / w);
    const [x, y] = [a, b].map((cell, i) => {
      const sheet = /** @type {CanvasRenderingContext2D} */ (sheets[i]);
      sheet.canvas.width = SIDE_PX;
      sheet.canvas.height = tall;
      paintCell(cell, sheet, at(), SIDE_PX, tall, look());
      return { sheet, image: sheet.getImageData(0, 0, SIDE_PX, tall) };
    });
    if (!x || !y) return;
    const rms = difference(x.image, y.image);
    x.sheet.putImageData(x.image, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(x.sheet.canvas, 0, 0, w, h);
    distance.textContent = say("ui.compare.distance", { rms: rms.toFixed(1) });
  }

  wipe.addEventListener("input", draw);
  for (const node of buttons) {
    node.addEventListener("click", () => {
      mode = node.dataset.mode ?? "wipe";
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === node));
      wipe.hidden = mode !== "wipe";
      draw();
    });
  }
  return {
    draw,
    /** @param {Cell[]} cells none, one or two that are chosen */
    choose([a, b]) {
      pair = a && b ? [a, b] : null;
      box.hidden = !pair;
      modes.hidden = !pair;
      hint.textContent = a && b ? say("ui.compare.pair_named", { a: a.name, b: b.name }) : say("ui.compare.pair_hint");
      draw();
    },
  };
}
