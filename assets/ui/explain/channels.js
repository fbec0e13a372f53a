// Every output channel of one step: the mean's half, and the variance's where there is one.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintPlaces } from "../lib/image.js";
import { bytes } from "../lib/maths.js";

/** @typedef {import("../types.js").ChannelsValue} ChannelsValue */

const ACROSS = 8; // channels in a row
const GAP = 1; // places between two channels
const DARK = 20; // between them

/**
 * Channels [first, end) in rows of `across`, as grey rgb places with a gap between them.
 * @param {Uint8Array} values channels x height x width @param {number} first @param {number} end
 * @param {number} height @param {number} width @param {number} across
 */
export function sheetOf(values, first, end, height, width, across) {
  const rows = Math.ceil((end - first) / across);
  const wide = across * (width + GAP) - GAP;
  const tall = rows * (height + GAP) - GAP;
  const rgb = new Uint8Array(tall * wide * 3).fill(DARK);
  for (let k = first; k < end; k++) {
    const top = Math.floor((k - first) / across) * (height + GAP);
    const left = ((k - first) % across) * (width + GAP);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = 3 * ((top + y) * wide + left + x);
        rgb.fill(values[(k * height + y) * width + x] ?? 0, at, at + 3);
      }
    }
  }
  return { rgb, width: wide, height: tall };
}

/** What becomes of the second half. @param {ChannelsValue["use"]} use */
function useText(use) {
  if (use === "variance") return say("ui.explain.channels.use.variance");
  return use === "cut" ? say("ui.explain.channels.use.cut") : say("ui.explain.channels.use.ignored");
}

/** @param {import("./explain.js").Drawing<"channels">} drawing */
export function drawChannels({ body, data }) {
  const values = bytes(data.values);
  const across = Math.min(ACROSS, data.latent);
  const two = make("div", "os-explain-two");
  /** @param {string} title @param {string} note @param {number} first @param {number} end */
  function half(title, note, first, end) {
    const box = make("div", "os-explain-half");
    const canvas = make("canvas");
    const sheet = sheetOf(values, first, end, data.height, data.width, across);
    paintPlaces(canvas, sheet.rgb, sheet.width, sheet.height);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", title);
    box.append(make("b", "", title), canvas, make("span", "os-explain-note", note));
    return box;
  }
  const followed = say("ui.explain.channels.use.followed");
  if (data.channels > data.latent) {
    const places = { first: data.latent + 1, last: data.channels };
    const second = half(say("ui.explain.channels.variance", places), useText(data.use), data.latent, data.channels);
    second.dataset.use = data.use;
    two.append(half(say("ui.explain.channels.mean", { last: data.latent }), followed, 0, data.latent), second);
  } else {
    two.append(
      half(say("ui.explain.channels.only", { last: data.latent }), followed, 0, data.latent),
      make("div", "os-explain-none", say("ui.explain.channels.no_second")),
    );
  }
  body.append(two);
}
