// What the scope shows of one step at one latent frame: its quantities, and every channel of the guided estimate.
import { button, find, make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { cut, fit, isHere, put } from "../lib/image.js";
import { clamp } from "../lib/maths.js";

/** @typedef {import("../types.js").ScopeStep} ScopeStep */
/** @typedef {import("../types.js").Quantity | "channel"} Shown */
/** @typedef {{ quantities: ScopeStep["quantities"], image: HTMLImageElement }} Decoded */
/** @typedef {ScopeStep & { images: { pictures: HTMLImageElement, channels: HTMLImageElement }, decoded: Decoded | null }} Step */
/** @typedef {"latent" | "decoded"} Mode */
/** @typedef {{ latent: number, channels: number, aspect: number }} Size */

const SHEET_CELL_PX = 112;

/** @returns {{ key: Shown, name: string, about: string, hint: string }[]} */
const quantities = () => [
  { key: "noisy", name: say("ui.scope.noisy"), about: "x", hint: say("ui.scope.noisy.hint") },
  { key: "estimate", name: say("ui.scope.estimate"), about: "x0", hint: say("ui.scope.estimate.hint") },
  {
    key: "prompt",
    name: say("ui.scope.prompt"),
    about: say("ui.scope.prompt.about"),
    hint: say("ui.scope.prompt.hint"),
  },
  { key: "null", name: say("ui.scope.null"), about: say("ui.scope.null.about"), hint: say("ui.scope.null.hint") },
  { key: "difference", name: say("ui.scope.difference"), about: "", hint: say("ui.scope.difference.hint") },
  { key: "channel", name: "", about: say("ui.scope.channel.about"), hint: say("ui.scope.channel.hint") },
];

/**
 * The part of a step's pictures that shows a quantity at a latent frame; "missing" where there is none, null while the
 * browser still decodes it. What cannot be decoded, or has not been yet, is shown as the latent it is: `places` says that
 * its squares are to be seen.
 * @param {Step} step @param {Shown} shown @param {Size} size @param {number} frame @param {number} channel @param {Mode} mode
 */
export function partOf(step, shown, size, frame, channel, mode) {
  const { decoded } = step;
  const own = mode === "decoded" && shown !== "channel" && decoded ? decoded.quantities.indexOf(shown) : -1;
  if (decoded && own >= 0 && isHere(decoded.image)) {
    const part = cut(decoded.image, frame, size.latent, own, decoded.quantities.length);
    return { image: decoded.image, cut: part, places: false };
  }
  const rows = shown === "channel" ? size.channels : step.quantities.length;
  const row = shown === "channel" ? channel : step.quantities.indexOf(shown);
  if (row < 0) return "missing";
  const image = shown === "channel" ? step.images.channels : step.images.pictures;
  return isHere(image) ? { image, cut: cut(image, frame, size.latent, row, rows), places: true } : null;
}

/** Why a quantity is not there. @param {Shown} key @param {ScopeStep} step */
function absent(key, step) {
  if (key === "difference") return say("ui.scope.difference.absent");
  return say(key === "null" && step.guidance_asked === 1 ? "ui.scope.absent_at_one" : "ui.scope.absent");
}

/**
 * @param {HTMLElement} element
 * @param {(shown: Shown, channel: number) => void} choose
 * @param {() => Mode} mode
 */
export function startReadout(element, choose, mode) {
  const box = find(element, ".os-scope-readout", HTMLElement);
  const fold = find(element, ".os-scope-channels", HTMLDetailsElement);
  const sheet = find(element, ".os-scope-sheet", HTMLElement);
  const clipCanvas = find(element, ".os-scope-clip canvas", HTMLCanvasElement);
  const sheetCanvas = find(sheet, "canvas", HTMLCanvasElement);
  const sheetMark = find(sheet, ".os-scope-cell", HTMLElement);
  /** @type {{ shown: Shown, channel: number, size: Size }} */
  const state = { shown: "estimate", channel: 0, size: { latent: 1, channels: 1, aspect: 1 } };

  const figures = quantities().map((quantity) => {
    const node = button("os-scope-figure", "", () => pick(quantity.key));
    const screen = make("span", "os-scope-screen");
    const canvas = make("canvas");
    const missing = make("span", "os-scope-missing");
    const title = make("span", "os-scope-name", quantity.name);
    const small = make("span", "os-scope-small", quantity.about);
    node.setAttribute("role", "radio");
    node.title = quantity.hint;
    screen.append(canvas, missing);
    node.append(screen, title, small);
    return { ...quantity, node, screen, canvas, missing, title, small };
  });
  box.append(...figures.map(({ node }) => node));
  box.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const at = figures.findIndex(({ key }) => key === state.shown);
    const next = figures[(at + move + figures.length) % figures.length];
    if (!next) return;
    pick(next.key);
    next.node.focus();
  });

  /** @param {Shown} shown */
  function pick(shown, channel = state.channel) {
    state.shown = shown;
    state.channel = clamp(channel, 0, state.size.channels - 1);
    choose(state.shown, state.channel);
  }

  /** @param {Step} step @param {number} frame */
  function showFigures(step, frame) {
    for (const figure of figures) {
      const chosen = figure.key === state.shown;
      const part = partOf(step, figure.key, state.size, frame, state.channel, mode());
      figure.node.setAttribute("aria-checked", String(chosen));
      figure.node.tabIndex = chosen ? 0 : -1;
      if (figure.key === "difference") figure.small.textContent = peak(step);
      if (figure.key === "channel")
        figure.title.textContent = say("ui.scope.channel_number", { channel: state.channel + 1 });
      figure.missing.textContent = part === "missing" ? absent(figure.key, step) : "";
      const { clientWidth: w, clientHeight: h } = figure.screen;
      if (part === null || !w) continue;
      const pen = fit(figure.canvas, w, h);
      pen.clearRect(0, 0, w, h);
      if (part !== "missing") put(pen, part.image, part.cut, [0, 0, w, h], part.places);
    }
    const chosen = figures.find(({ key }) => key === state.shown);
    find(element, ".os-scope-hint", HTMLElement).textContent = chosen?.hint ?? "";
  }

  // --- the channels

  function sheetCells() {
    const { channels, aspect } = state.size;
    const columns = channels <= 4 ? channels : channels <= 32 ? 8 : 16;
    const room = fold.clientWidth / columns;
    const w = Math.floor(Math.min(room, SHEET_CELL_PX * Math.max(aspect, 1)));
    return { columns, w, h: Math.max(Math.round(w / aspect), 4) };
  }

  /** @param {Step} step @param {number} frame */
  function showChannels(step, frame) {
    const { columns, w, h } = sheetCells();
    const { channels } = state.size;
    const counted = { channel: state.channel + 1, channels };
    find(fold, ".os-scope-title", HTMLElement).textContent = say("ui.scope.channels", counted);
    if (!fold.open || w <= 0 || !isHere(step.images.channels)) return;
    const height = Math.ceil(channels / columns) * h;
    const pen = fit(sheetCanvas, columns * w, height);
    pen.clearRect(0, 0, columns * w, height);
    for (let k = 0; k < channels; k++) {
      const part = partOf(step, "channel", state.size, frame, k, "latent");
      if (part === null || part === "missing") continue;
      put(pen, part.image, part.cut, [(k % columns) * w, Math.floor(k / columns) * h, w - 1, h - 1], true);
    }
    sheet.style.width = `${columns * w}px`;
    sheet.style.height = `${height}px`;
    place(sheetMark, (state.channel % columns) * w, Math.floor(state.channel / columns) * h, w, h);
    sheet.setAttribute("aria-valuemax", String(channels));
    sheet.setAttribute("aria-valuenow", String(state.channel + 1));
    sheet.setAttribute("aria-valuetext", say("ui.scope.channel_of", counted));
  }

  /** @param {PointerEvent} event */
  function channelAt(event) {
    const bounds = sheet.getBoundingClientRect();
    const { columns, w, h } = sheetCells();
    const column = clamp(Math.floor((event.clientX - bounds.left) / w), 0, columns - 1);
    return Math.floor((event.clientY - bounds.top) / h) * columns + column;
  }
  sheet.addEventListener("pointerdown", (event) => {
    sheet.setPointerCapture(event.pointerId);
    pick("channel", channelAt(event));
  });
  sheet.addEventListener("pointermove", (event) => {
    if (event.buttons) pick("channel", channelAt(event));
  });
  sheet.addEventListener("keydown", (event) => {
    const { columns } = sheetCells();
    const { channels } = state.size;
    const at = state.channel;
    /** @type {Record<string, number>} */
    const keys = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns };
    const to = { ...keys, Home: 0, End: channels - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to < channels) pick("channel", to);
  });

  fold.addEventListener("toggle", () => choose(state.shown, state.channel));

  /** The finished clip at the latent frame. @param {HTMLImageElement | null} clip @param {number} frame */
  function showClip(clip, frame) {
    const box = find(element, ".os-scope-clip", HTMLElement);
    const screen = find(box, ".os-scope-screen", HTMLElement);
    box.hidden = !clip;
    const { clientWidth: w, clientHeight: h } = screen;
    if (!clip || !isHere(clip) || !w) return;
    clipCanvas.setAttribute("aria-label", say("ui.scope.clip.frame", { frame: frame + 1, frames: state.size.latent }));
    put(fit(clipCanvas, w, h), clip, cut(clip, frame, state.size.latent), [0, 0, w, h]);
  }

  return {
    /** @param {Size} size */
    resize(size) {
      state.size = size;
      state.channel = clamp(state.channel, 0, size.channels - 1);
    },
    /** @param {Step} step @param {number} frame @param {HTMLImageElement | null} clip */
    show(step, frame, clip) {
      showFigures(step, frame);
      showClip(clip, frame);
      showChannels(step, frame);
    },
    shown: () => state.shown,
    channel: () => state.channel,
  };
}

/** @param {ScopeStep} step */
const peak = ({ peak }) =>
  peak === null ? say("ui.scope.difference.about") : say("ui.scope.difference.peak", { peak: peak.toFixed(3) });

/** @param {HTMLElement} node @param {number} x @param {number} y @param {number} w @param {number} h */
export function place(node, x, y, w, h) {
  node.style.transform = `translate(${x}px,${y}px)`;
  node.style.width = `${w}px`;
  node.style.height = `${h}px`;
}
