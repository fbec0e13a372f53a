// The doubled batch: z beside z, one call of the network, two halves, and their mix.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { paintPixels } from "../lib/image.js";
import { tile } from "./parts.js";

/** @typedef {import("../types.js").PixelsValue} PixelsValue */

/** A size as it is written. @param {number[]} size */
export const sizeText = (size) => `(${size.join(", ")})`;

/** A small picture of one latent frame with its name. @param {PixelsValue} picture @param {string} name */
function pictureOf(picture, name) {
  const made = tile(picture.height, picture.width, name);
  paintPixels(made.canvas, picture, 0);
  made.canvas.setAttribute("role", "img");
  made.canvas.setAttribute("aria-label", name);
  return made.box;
}

/** @param {import("./explain.js").Drawing<"halves">} drawing */
export function drawHalves({ body, data }) {
  const { latent, prompt, null: without, gap, mix } = data.pictures;
  const group = (/** @type {Node[]} */ ...nodes) => {
    const box = make("div");
    box.append(...nodes);
    return box;
  };
  const arrow = () => {
    const node = make("span", "", "→");
    node.setAttribute("aria-hidden", "true");
    return node;
  };
  const batch = make("div", "os-explain-batch");
  const named = (/** @type {string} */ text) => make("p", "os-explain-note os-explain-num", text);
  batch.append(
    group(
      named(say("ui.explain.halves.in", { size: sizeText(data.given) })),
      pictureOf(latent, say("ui.explain.halves.z_prompt")),
      pictureOf(latent, say("ui.explain.halves.z_null")),
    ),
    arrow(),
    group(
      named(say("ui.explain.halves.out", { size: sizeText(data.answered) })),
      pictureOf(prompt, say("ui.explain.halves.c")),
      pictureOf(without, say("ui.explain.halves.u")),
    ),
    arrow(),
    group(
      named(say("ui.explain.halves.mixed")),
      pictureOf(gap, say("ui.explain.halves.gap", { peak: data.peak.toPrecision(2) })),
      pictureOf(mix, say("ui.explain.halves.mix", { scale: data.scale })),
    ),
  );
  body.append(batch, make("p", "os-explain-note", say("ui.explain.halves.order")));
}
