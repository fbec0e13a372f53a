// One clip of the comparison: its picture and its marks.
import { button, find, make, penOf } from "../lib/dom.js";
import { language, say, words } from "../lib/i18n.js";
import { cutSheet, isHere, load, put } from "../lib/image.js";
import { frameAt, latentAt } from "../lib/time.js";
import { stepOf } from "./steps.js";

/** @typedef {import("../types.js").CellValue} CellValue */
/** @typedef {import("../types.js").RowValue} RowValue */
/** @typedef {import("../types.js").ColumnValue} ColumnValue */
/** @typedef {import("../types.js").MarkValue} Mark */
/** @typedef {import("../types.js").SheetValue} Sheet */
/**
 * What the whole table shows: its clips, or at a share of the way through the steps (above 0 to 1) their estimates;
 * and of several seeds the first or all.
 * @typedef {{ step: number | null, all: boolean }} Look
 */
/**
 * @typedef {object} Cell
 * @property {HTMLElement} node
 * @property {HTMLButtonElement} box
 * @property {HTMLCanvasElement} canvas
 * @property {RowValue} row
 * @property {string} name
 * @property {CellValue} data
 * @property {{ index: number, image: HTMLImageElement }[]} estimates in the order of the steps
 * @property {HTMLImageElement | null} sheet all frames of the clip
 * @property {HTMLImageElement | null} mosaic all frames of the clips of all seeds
 * @property {string} drawn what the canvas shows, so that nothing is drawn twice
 */

const KINDS = /** @type {const} */ ({
  colour: "ui.compare.mark.colour",
  shape: "ui.compare.mark.shape",
  motion: "ui.compare.mark.motion",
  place: "ui.compare.mark.place",
});

/** @param {RowValue} row @param {ColumnValue} column */
export const nameOf = (row, column) =>
  [row.label, column.label].flatMap((label) => (label ? [words(label)] : [])).join(", ");

/** @param {RowValue} row @param {ColumnValue} column @param {() => void} choose @returns {Cell} */
export function buildCell(row, column, choose) {
  const node = make("div", "os-compare-cell");
  const box = button("os-compare-box", "", choose);
  const canvas = make("canvas");
  const name = nameOf(row, column);
  box.setAttribute("aria-pressed", "false");
  box.setAttribute("aria-label", name);
  box.title = say("ui.compare.choose");
  [canvas.width, canvas.height] = row.cell;
  box.style.aspectRatio = `${row.cell[0]} / ${row.cell[1]}`;
  box.append(canvas, make("span", "os-compare-state", ""));
  node.append(box, make("div", "os-compare-marks"));
  return {
    node,
    box,
    canvas,
    row,
    name,
    data: { state: "waiting" },
    estimates: [],
    sheet: null,
    mosaic: null,
    drawn: "",
  };
}

/** @param {CellValue} data */
function stateText(data) {
  switch (data.state) {
    case "waiting":
      return say("ui.compare.state.waiting");
    case "missing":
      return say("ui.compare.state.missing");
    case "denoising":
      return say("ui.compare.state.step", { step: data.step });
    case "done":
      return "";
  }
}

/**
 * @param {Cell} cell
 * @param {RowValue} row
 * @param {number} column
 * @param {CellValue} data
 * @param {() => void} arrived a picture is here
 */
export function updateCell(cell, row, column, data, arrived) {
  const before = cell.data;
  cell.row = row;
  cell.data = data;
  const redraw = () => {
    cell.drawn = "";
    arrived();
  };
  for (const step of row.steps.slice(cell.estimates.length)) {
    cell.estimates.push({ index: step.index, image: load(step.pictures[column] ?? "", redraw) });
  }
  find(cell.node, ".os-compare-state", HTMLElement).textContent = stateText(data);
  cell.node.dataset.state = data.state;
  if (data.state !== "done") return;
  const known = before.state === "done" ? before : null;
  if (known?.sheet.file.url !== data.sheet.file.url) {
    load(data.sheet.file.url, (image) => {
      cell.sheet = image;
      redraw();
    });
  }
  if (data.mosaic && !known?.mosaic) {
    load(data.mosaic.file.url, (image) => {
      cell.mosaic = image;
      redraw();
    });
  }
  const marks = () => (data.marks ?? []).map(mark);
  if (!known) find(cell.node, ".os-compare-marks", HTMLElement).replaceChildren(...marks());
}

/** How a mark is drawn, and the code of its sentence. @param {Mark} found */
export function verdict(found) {
  if (!found.asked.length) return /** @type {const} */ (["none", "–", "ui.compare.mark.free"]);
  if (found.unsure) return /** @type {const} */ (["unsure", "?", "ui.compare.mark.unsure"]);
  if (found.right) return /** @type {const} */ (["right", "✓", "ui.compare.mark.right"]);
  return /** @type {const} */ (["wrong", "✗", "ui.compare.mark.wrong"]);
}

/** @param {Mark} found */
function mark(found) {
  const what = say(KINDS[found.kind]);
  const [asked, seen] = [found.asked, found.seen].map((said) => said.map((word) => word[language]));
  const [state, sign, code] = verdict(found);
  const node = make("span", "os-compare-mark");
  const percent = Math.round((found.confidence ?? 0) * 100);
  const values = { what, asked, seen, percent };
  node.dataset.verdict = state;
  const text = state === "wrong" ? say("ui.compare.mark.instead", values) : what;
  node.append(make("b", "", sign), make("span", "", text));
  node.title = state === "none" ? say(code, values) : say("ui.compare.mark.seen", values);
  node.setAttribute("aria-label", say(code, values));
  node.setAttribute("role", "img");
  return node;
}

/** The estimate to be shown at a share of the steps, once it is here. @param {Cell} cell @param {number} share */
function estimateAt(cell, share) {
  const wanted = stepOf(share, cell.row.total);
  return cell.estimates.findLast(({ index, image }) => index <= wanted && isHere(image)) ?? null;
}

/**
 * @param {CanvasRenderingContext2D} pen @param {HTMLImageElement} image @param {Sheet} sheet @param {number} frame
 * @param {number} w @param {number} h
 */
function putFrame(pen, image, sheet, frame, w, h) {
  const [sh, sw] = sheet.size;
  const scale = Math.min(w / sw, h / sh); // a mosaic may have another shape than its clips
  const [tw, th] = [sw * scale, sh * scale];
  if (tw < w - 1 || th < h - 1) pen.clearRect(0, 0, w, h);
  put(pen, image, cutSheet(sheet, frame), [(w - tw) / 2, (h - th) / 2, tw, th]);
}

/**
 * Draw a clip's picture at a time of the clock into a pen of any size; false when there is none yet.
 * @param {Cell} cell
 * @param {CanvasRenderingContext2D} pen
 * @param {number} at seconds @param {number} w @param {number} h @param {Look} look
 */
export function paintCell(cell, pen, at, w, h, look) {
  const { data, row, sheet, mosaic } = cell;
  if (data.state === "done" && look.step === null) {
    const all = look.all && mosaic && data.mosaic;
    const [image, place] = all ? [mosaic, data.mosaic] : [sheet, data.sheet];
    if (image && place) {
      putFrame(pen, image, place, frameAt(at, row.fps, place.count), w, h);
      return true;
    }
  }
  const estimate = estimateAt(cell, look.step ?? 1);
  if (!estimate) return false;
  const { image } = estimate;
  const sw = image.naturalWidth / row.latent;
  const { first } = latentAt(Math.min(at, row.frames / row.fps - 1e-3), row.frames / row.fps, row.latent);
  put(pen, image, [first * sw, 0, sw, image.naturalHeight], [0, 0, w, h]);
  return true;
}

/** Draw a cell where its picture has changed since. @param {Cell} cell @param {number} at seconds @param {Look} look */
export function drawCell(cell, at, look) {
  const { data, row } = cell;
  const place = data.state === "done" && cell.sheet ? frameAt(at, row.fps, data.sheet.count) : at.toFixed(1);
  const key = `${data.state} ${place} ${look.step} ${look.all}`;
  if (key === cell.drawn) return;
  if (paintCell(cell, penOf(cell.canvas), at, cell.canvas.width, cell.canvas.height, look)) cell.drawn = key;
}
