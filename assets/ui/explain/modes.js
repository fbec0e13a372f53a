// Three ways for text to reach one small network: what a patch looks at, clips of the same noise, what each costs.
import { calm } from "../lib/clock.js";
import { button, find, make } from "../lib/dom.js";
import { language, say } from "../lib/i18n.js";
import { textModes, whenSeen } from "../lib/stored.js";
import { turnTo } from "../lib/tabs.js";
import { options } from "./parts.js";

/** @typedef {import("../types.js").ModesValue} Modes */
/** @typedef {import("../types.js").ModeValue} Mode */
/** @typedef {(event: "compare", form: Record<string, unknown>) => void} Trigger */

/** What a patch of a block over space looks at, in order; `together` in one sequence. */
const LOOKS = /** @type {const} */ ({
  "cross-attention": { at: ["patches", "words"], together: false },
  concatenation: { at: ["patches", "words"], together: true },
  replacement: { at: ["words"], together: false },
});

const TITLES = /** @type {const} */ ({
  "cross-attention": "ui.explain.modes.cross_attention",
  concatenation: "ui.explain.modes.concatenation",
  replacement: "ui.explain.modes.replacement",
});
const SEEN = /** @type {const} */ ({ patches: "ui.explain.modes.patches", words: "ui.explain.modes.words" });

/** @param {number | null} share */
const percent = (share) => (share === null ? null : `${Math.round(100 * share)} %`);

/** @param {HTMLElement} figure @param {Trigger} trigger @param {() => string} typed the visitor's own prompt */
export function startModes(figure, trigger, typed) {
  whenSeen(figure, async () => {
    const value = await textModes();
    if (value) draw(figure, value, trigger, typed);
  });
}

/** @param {HTMLElement} figure @param {Modes} value @param {Trigger} trigger @param {() => string} typed */
function draw(figure, value, trigger, typed) {
  const body = find(figure, ".os-explain-body", HTMLElement);
  const { minutes, prompts, date } = value;
  find(figure, ".os-explain-fact", HTMLElement).textContent = minutes
    ? say("ui.explain.modes.fact", { minutes, prompts, two: value.two_prompts, date })
    : say("ui.explain.modes.costs", { date });
  const columns = value.modes.map(column);
  /** @type {import("./parts.js").Pick} */
  const pick = {};
  const shown = () => pick.prompt ?? 0;
  const show = () => {
    for (const one of columns) one.show(shown());
  };
  const chooser = options(pick, "prompt", {
    label: say("label.prompt"),
    names: value.shown,
    start: 0,
    act: show,
  });
  const box = make("div", "os-explain-modes");
  box.append(...columns.map(({ node }) => node));
  const go = button("os-explain-option", say("ui.explain.modes.go"), () => {
    const models = value.modes.map(({ model }) => model);
    turnTo("ui.compare");
    trigger("compare", {
      model: models[0],
      prompt: typed().trim() || value.shown[shown()],
      seed: value.seed,
      scales: "1, 4",
      rules: ["plain"],
      axis: "model",
      rows: models.join("; "),
      seeds: 1,
    });
  });
  const row = make("div", "os-explain-row");
  row.append(go);
  body.dataset.state = "full";
  body.replaceChildren(...(minutes ? [chooser, box, row] : [box]));
  show();
}

/** @param {Mode} mode */
function column(mode) {
  const node = make("div", "os-explain-mode");
  const clip = make("video");
  Object.assign(clip, { muted: true, loop: true, playsInline: true, controls: calm.matches });
  const seen = make("p", "os-explain-note");
  const frame = make("div", "os-explain-tile");
  frame.append(clip);
  node.append(make("b", "", say(TITLES[mode.mode])), looks(mode));
  node.append(...(mode.clips.length ? [frame, seen] : []), numbers(mode));
  return {
    node,
    /** @param {number} i of the prompts */
    show(i) {
      const one = mode.clips[i];
      if (!one) return;
      clip.src = one.url;
      clip.setAttribute("aria-label", say("ui.stage.clip", { text: one.verdict.seen[language] }));
      if (!calm.matches) clip.play().catch(() => {});
      const { right, asked } = one.verdict;
      seen.textContent = say("ui.verdict", { seen: one.verdict.seen[language], right, asked });
    },
  };
}

/** What a patch looks at, as a line of boxes. @param {Mode} mode */
function looks(mode) {
  const { at, together } = LOOKS[mode.mode];
  const line = make("p", "os-explain-looks");
  line.append(make("span", "", say("ui.explain.modes.patch")), " → ");
  const boxes = at.map((name) => {
    const one = make("span", "os-explain-at", say(SEEN[name]));
    one.dataset.at = name;
    return one;
  });
  if (together) {
    const both = make("span", "os-explain-both");
    both.append(...boxes);
    line.append(both);
  } else {
    for (const [i, one] of boxes.entries()) line.append(...(i ? [" → ", one] : [one]));
  }
  return line;
}

/** @param {Mode} mode */
function numbers(mode) {
  const list = make("dl", "os-explain-costs");
  for (const [code, text] of /** @type {const} */ ([
    ["ui.explain.modes.right", percent(mode.right)],
    ["ui.explain.modes.two", percent(mode.two)],
    ["ui.explain.modes.gflop", mode.gflop.toFixed(2)],
    ["ui.explain.modes.ms", mode.ms.toFixed(0)],
    ["ui.explain.modes.mb", mode.mb.toFixed(0)],
    ["ui.explain.modes.parameters", `${(mode.parameters / 1e6).toFixed(1)} M`],
  ])) {
    if (text === null) continue;
    const pair = make("div");
    pair.append(make("dt", "", say(code)), make("dd", "", text));
    list.append(pair);
  }
  return list;
}
