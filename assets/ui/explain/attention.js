// Attention: where a patch looks, in space, in time, to the words of the prompt.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { fractions, largest } from "../lib/maths.js";
import { options, row, two } from "./parts.js";
import { startPatches } from "./patches.js";
import { rowOf, tokenAt, weightsOf } from "./rows.js";
import { startWords } from "./words.js";

/** @typedef {import("../types.js").AttentionMap} AttentionMap */
/** @typedef {import("./patches.js").Patch} Patch */

/** @type {Record<"space" | "time" | "all", string>} */
const BRIGHTEST = {
  space: "ui.explain.look.space",
  time: "ui.explain.look.time",
  all: "ui.explain.look.all",
};

/** @param {import("./explain.js").Drawing<"attention">} drawing */
export function drawAttention({ body, data, figures, pick }) {
  const [frames, rows, columns] = data.grid;
  const shape = { frames, places: rows * columns, heads: data.heads, words: data.words.length };
  const layers = Math.max(...(data.looks[0]?.maps ?? []).map((map) => map.layer)) + 1;
  /** @type {Map<AttentionMap, Uint16Array>} */
  const decoded = new Map();
  /** @type {Patch} */
  let patch = { frame: pick.frame ?? data.focus[0], y: pick.row ?? data.focus[1], x: pick.column ?? data.focus[2] };
  const token = () => ({ frame: patch.frame, place: patch.y * columns + patch.x });
  const patches = startPatches(
    data.grid,
    () => patch,
    (to) => {
      patch = to;
      pick.frame = to.frame;
      pick.row = to.y;
      pick.column = to.x;
      show();
    },
  );
  const reads = startWords(data.words);
  const note = make("p", "os-explain-note os-explain-num");
  note.setAttribute("aria-live", "polite");

  /** What the picked patch gives to others. @param {AttentionMap} map */
  function weights(map) {
    const all = decoded.get(map) ?? fractions(map.weights);
    decoded.set(map, all);
    return weightsOf(all, rowOf(map.kind, token(), shape), pick.head ? pick.head - 1 : null);
  }

  function show() {
    const maps = (data.looks[pick.look ?? 0]?.maps ?? []).filter((map) => map.layer === pick.layer);
    const brightest = lightUp(maps);
    const texts = maps.filter((map) => map.kind === "text").map(weights);
    const [first] = texts;
    if (first && data.shared) {
      brightest.push(say("ui.explain.look.words", { weight: two(first.reduce((a, b) => a + b, 0)) }));
    }
    const said = say("ui.explain.look.brightest", { weights: brightest });
    note.textContent = first ? `${said} ${say("ui.explain.look.words_note")}` : said;
    const kinds = maps.map((map) => map.kind).filter((kind) => kind !== "text");
    reads.show(texts, kinds);
  }

  /** Every patch by its weight; the largest of each map in words. @param {AttentionMap[]} maps */
  function lightUp(maps) {
    const own = token().frame * shape.places + token().place;
    const inSpace = maps.some((map) => map.kind === "space");
    /** @type {({ share: number, weight: number } | null)[]} */
    const light = Array.from({ length: frames * shape.places }, () => null);
    const said = [];
    for (const map of maps) {
      const { kind } = map;
      if (kind === "text") continue;
      const given = weights(map);
      const most = largest(given) || 1;
      given.forEach((weight, k) => {
        const at = tokenAt(kind, token(), shape, k);
        // The patch itself stands in both attentions; its own place shows what it gives itself within the frame.
        if (kind === "time" && at === own && inSpace) return;
        light[at] = { share: weight / most, weight };
      });
      said.push(say(BRIGHTEST[kind], { weight: two(most) }));
    }
    patches.show(light);
    return said;
  }

  /** @param {number} n */
  const counted = (n) => Array.from({ length: n }, (_, i) => String(i + 1));
  const heads = [say("ui.explain.head_mean"), ...counted(data.heads)];
  const times = data.looks.map((look) => two(look.noise_level));
  const controls = [
    options(pick, "layer", { label: say("ui.explain.layer"), names: counted(layers), start: 0, act: show }),
  ];
  if (data.heads === 1) pick.head = 0;
  else controls.push(options(pick, "head", { label: say("ui.explain.head"), names: heads, start: 0, act: show }));
  controls.push(options(pick, "look", { label: "t", names: times, start: 1, act: show }));
  body.append(row(...controls), patches.node, reads.node, note);
  show();
  if (figures.coding) patches.paint(figures.coding.shown);
}
