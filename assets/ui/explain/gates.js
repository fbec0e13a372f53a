// adaLN-Zero: the gate of every block before training and now, and how much each block adds.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { largest } from "../lib/maths.js";
import { options, row } from "./parts.js";

/** @typedef {import("../types.js").GateValue} GateValue */
/** @typedef {{ layer: number, kind: "space" | "time" | null, part?: GateValue["part"], start: number, now: number }} Bar */

const TALL = 72; // pixels of the largest bar

/** How high a bar is, of `most` for the largest: what is not zero is seen. @param {number} value @param {number} most */
export const heightOf = (value, most) => (value > 0 ? Math.max(1, (TALL * value) / (most || 1)) : 0);

/** A number short enough to stand over a bar. @param {number} value */
export function short(value) {
  if (value === 0) return "0";
  return value < 0.095 ? value.toFixed(2).slice(1) : value.toFixed(1);
}

/** @param {Bar} bar */
function nameOf({ layer, kind, part }) {
  const block = layer + 1;
  const where =
    kind === null
      ? String(block)
      : say(kind === "space" ? "ui.explain.block_space" : "ui.explain.block_time", { block });
  if (part === "mlp") return `${where} ${say("ui.explain.part.mlp")}`;
  return part === "attention" ? `${where} ${say("ui.explain.part.attention")}` : where;
}

/** Bars over the blocks, in columns. @param {string} title @param {Bar[]} bars */
function chartOf(title, bars) {
  const box = make("div", "os-explain-bars");
  const columns = make("div", "os-explain-columns");
  const names = make("div", "os-explain-names");
  const most = largest(bars.flatMap(({ start, now }) => [start, now]));
  columns.setAttribute("role", "img");
  const fills = bars.map((bar) => {
    const column = make("div", "os-explain-column");
    const fill = make("i");
    const text = make("span");
    if (bar.kind) column.dataset.kind = bar.kind;
    column.title = nameOf(bar);
    column.append(text, fill);
    columns.append(column);
    return { fill, text };
  });
  // A layer's number under all of its bars.
  for (let layer = 0; layer <= largest(bars.map((bar) => bar.layer)); layer++) {
    const name = make("span", "", String(layer + 1));
    name.style.flexGrow = String(bars.filter((bar) => bar.layer === layer).length);
    names.append(name);
  }
  /** @param {"start" | "now"} when */
  const show = (when) => {
    const values = bars.map((bar) => bar[when]);
    fills.forEach(({ fill, text }, i) => {
      fill.style.height = `${heightOf(values[i] ?? 0, most)}px`;
      text.textContent = short(values[i] ?? 0);
    });
    columns.dataset.values = values.join();
    const said = bars.map((bar, i) => say("ui.explain.gates.bar", { name: nameOf(bar), value: values[i] ?? 0 }));
    columns.setAttribute("aria-label", say("ui.explain.gates.bars", { title, values: said }));
  };
  box.append(make("b", "", title), columns, names);
  return { box, show };
}

/** @param {import("./explain.js").Drawing<"gates">} drawing */
export function drawGates({ body, data, pick }) {
  const charts = [
    chartOf(say("ui.explain.gates.gate"), data.gates),
    chartOf(say("ui.explain.gates.added"), data.added),
  ];
  const show = () => {
    for (const { show } of charts) show(pick.gates === 0 ? "start" : "now");
  };
  const names = [say("ui.explain.gates.start"), say("ui.explain.gates.now")];
  body.append(
    row(options(pick, "gates", { label: say("ui.explain.gates.when"), names, start: 1, act: show })),
    ...charts.map(({ box }) => box),
  );
  if (data.added.some(({ kind }) => kind)) body.append(make("p", "os-explain-note", say("ui.explain.gates.axes")));
  show();
}
