// How it works: figures about one run, each drawn when its part of the run is known, one that trains a small network here,
// and the words they use.
import { find, make } from "../lib/dom.js";
import { say, sayAll, words } from "../lib/i18n.js";
import { memoryOf } from "../lib/session.js";
import { storedRun, whenSeen } from "../lib/stored.js";
import { drawAttention } from "./attention.js";
import { drawCausal } from "./causal.js";
import { drawChannels } from "./channels.js";
import { drawCoding } from "./coding.js";
import { drawFlow } from "./flow.js";
import { drawGates } from "./gates.js";
import { drawGuidance } from "./guidance.js";
import { drawHalves } from "./halves.js";
import { drawMask } from "./mask.js";
import { startModes } from "./modes.js";
import { drawScaled } from "./scaled.js";
import { drawTokens } from "./tokens.js";
import { startTrained } from "./trained.js";

/** @typedef {import("../types.js").ExplainValue} ExplainValue */
/** @typedef {import("../types.js").FiguresValue} Figures */
/** @typedef {import("../types.js").MissingValue} Missing */
/** @typedef {import("../types.js").AskedValue} Asked */
/** @typedef {keyof Figures} Name */
/**
 * What a figure is drawn from.
 * @template {Name} N
 * @typedef {object} Drawing
 * @property {HTMLElement} body
 * @property {Exclude<NonNullable<Figures[N]>, Missing>} data
 * @property {Figures} figures of the same run
 * @property {import("./parts.js").Pick} pick
 */

const FIGURES = /** @type {const} */ ([
  "flow",
  "guidance",
  "coding",
  "attention",
  "tokens",
  "halves",
  "channels",
  "gates",
  "causal",
  "scaled",
  "mask",
]);
/** @type {Partial<Record<Name, Name>>} what else has to be known first */
const NEEDS = { tokens: "flow" };

/**
 * Whether figures are of another prompt or model than the page holds now; an empty field stands for an example.
 * @param {ExplainValue} view @param {Asked | undefined} asked
 */
export function isOlder(view, asked) {
  if (!asked) return false;
  const prompt = asked.prompt.trim();
  return asked.model !== view.model_id || (prompt !== "" && prompt !== view.prompt.trim());
}

/** @param {import("../lib/host.js").Host<ExplainValue | import("../types.js").IdleValue> & { props: { about?: Asked } }} host */
export function start({ element, trigger, props, watch }) {
  sayAll(element);
  const root = find(element, ".os-explain", HTMLElement);
  /** @param {string} selector */
  const $ = (selector) => find(root, selector, HTMLElement);
  const explain = find(root, ".os-explain-go", HTMLButtonElement);
  const halt = find(root, ".os-explain-stop", HTMLButtonElement);
  // What outlives a rebuilt element: whether this page has asked for a first run, and what has been picked.
  /** @type {{ asked: boolean, model: string, pick: import("./parts.js").Pick }} */
  const memory = memoryOf("explain", { asked: false, model: "", pick: {} });
  /** @type {Map<Name, string>} figure -> what it was drawn for */
  const drawn = new Map();
  /** @type {ExplainValue | null} */
  let view = null;
  /** @type {ExplainValue | null} */
  let example = null; // figures that came with the demo, until there are a visitor's own

  /** @param {Name} name */
  const figureOf = (name) => $(`[data-fig="${name}"]`);

  /** @param {Name} name @param {string} [text] */
  function empty(name, text) {
    const body = find(figureOf(name), ".os-explain-body", HTMLElement);
    body.dataset.state = "empty";
    body.replaceChildren(make("p", "", text ?? body.dataset.empty));
  }

  /** @param {Name} name @param {Figures} figures @param {number} run */
  function draw(name, figures, run) {
    const figure = figureOf(name);
    const data = figures[name];
    if (!data) return;
    figure.dataset.run = String(run);
    find(figure, ".os-explain-fact", HTMLElement).textContent = "fact" in data ? words(data.fact) : "";
    if ("missing" in data) return empty(name, words(data.missing));
    const body = find(figure, ".os-explain-body", HTMLElement);
    body.dataset.state = "full";
    body.replaceChildren();
    drawFigure(name, { body, figures, pick: memory.pick });
  }

  /** @param {ExplainValue} value */
  function drawNew({ figures, run, model_id }) {
    for (const name of FIGURES) {
      const needed = NEEDS[name];
      if (!figures[name] || (needed && !figures[needed])) continue;
      // The patches are painted with the clip, once the codec has made it.
      const state = `${run} ${model_id} ${name === "attention" && Boolean(figures.coding)}`;
      if (drawn.get(name) === state) continue;
      drawn.set(name, state);
      draw(name, figures, run);
    }
  }

  function receive() {
    const value = props.value && "figures" in props.value ? props.value : example;
    if (!value && view) return;
    view = value;
    if (value && value.model_id !== memory.model) {
      memory.model = value.model_id;
      memory.pick = {}; // what is worth a look differs from model to model
    }
    const busy = value?.phase === "working";
    root.dataset.phase = value?.stored ? "stored" : (value?.phase ?? "idle");
    root.setAttribute("aria-busy", String(busy));
    explain.disabled = busy;
    halt.disabled = !busy;
    $(".os-explain-bar i").style.transform = `scaleX(${value?.share ?? 0})`;
    const stored = value?.stored ? say("ui.explain.stored") : "";
    $(".os-explain-text").textContent = value ? stored || words(value.text) : "";
    $(".os-explain-about").textContent = value ? say("ui.explain.about", value) : "";
    showAge();
    if (!value) return;
    drawNew(value);
    if (!busy && !value.stored) $(".os-explain-live").textContent = words(value.text);
  }

  function showAge() {
    const older = view !== null && view.phase !== "working" && isOlder(view, props.about);
    $(".os-explain-older").hidden = !older;
    $(".os-explain-older").textContent = older ? say("ui.explain.older") : "";
  }

  startTrained(find(root, "[data-fig=trained]", HTMLElement));
  startModes(find(root, "[data-fig=modes]", HTMLElement), trigger, () => props.about?.prompt ?? "");
  explain.addEventListener("click", () => {
    memory.asked = true;
    trigger("explain");
  });
  halt.addEventListener("click", () => trigger("halt"));
  for (const name of FIGURES) empty(name);
  watch("value", receive);
  watch("about", () => {
    showAge();
    if (view?.stored) showFirst();
  });
  receive();
  whenSeen(root, showFirst);

  // The first look: figures of the chosen model that came with the demo; where there are none, or the visitor has
  // a prompt already, a run.
  async function showFirst() {
    if (memory.asked) return;
    const { model, prompt } = props.about ?? { model: "", prompt: "" };
    const found = view || !prompt.trim() ? await storedRun("figures", model) : null;
    if (memory.asked || props.about?.model !== model) return;
    if (!found) {
      if (view) return;
      memory.asked = true;
      trigger("glance");
      return;
    }
    example = found;
    receive();
  }
}

/** @param {Name} name @param {Omit<Drawing<Name>, "data">} drawing */
function drawFigure(name, drawing) {
  const { tokens, attention, coding, flow, guidance } = drawing.figures;
  if (name === "tokens" && tokens) drawTokens({ ...drawing, data: tokens });
  if (name === "attention" && attention && "looks" in attention) drawAttention({ ...drawing, data: attention });
  if (name === "coding" && coding) drawCoding({ ...drawing, data: coding });
  if (name === "flow" && flow) drawFlow({ ...drawing, data: flow });
  if (name === "guidance" && guidance && "pulls" in guidance) drawGuidance({ ...drawing, data: guidance });
  drawOfArticles(name, drawing);
}

/** @param {Name} name @param {Omit<Drawing<Name>, "data">} drawing */
function drawOfArticles(name, drawing) {
  const { halves, channels, gates, causal, scaled, mask } = drawing.figures;
  if (name === "halves" && halves && "pictures" in halves) drawHalves({ ...drawing, data: halves });
  if (name === "channels" && channels) drawChannels({ ...drawing, data: channels });
  if (name === "gates" && gates && "gates" in gates) drawGates({ ...drawing, data: gates });
  if (name === "causal" && causal) drawCausal({ ...drawing, data: causal });
  if (name === "scaled" && scaled) drawScaled({ ...drawing, data: scaled });
  if (name === "mask" && mask) drawMask({ ...drawing, data: mask });
}
