// The curves of the scope: numbers of every step, with a cursor at the chosen one.
import { linear, linePath } from "../lib/chart.js";
import { make, vector } from "../lib/dom.js";
import { say } from "../lib/i18n.js";

/** @typedef {import("../types.js").ScopeStep} ScopeStep */
/** @typedef {{ name: string, style: string, of: (step: ScopeStep) => number | null }} Line */
/** @typedef {{ title: string, note: string, low?: number, high?: number, digits: number, lines: Line[], plain?: (steps: ScopeStep[]) => boolean }} Chart */

const TALL = 100; // units of a plot; it is stretched to its box

/**
 * Whether guidance did at every step just what it was asked for, the same everywhere: then its curve says nothing.
 * @param {Pick<ScopeStep, "guidance_asked" | "guidance_measured">[]} steps
 */
export function isFlat(steps) {
  const asked = steps[0]?.guidance_asked;
  return steps.every(
    ({ guidance_asked: own, guidance_measured: found }) =>
      own === asked && (found === null || Math.abs(found - own) < 0.02 * Math.max(own, 1)),
  );
}

/** @returns {Chart[]} */
const charts = () => [
  {
    title: say("ui.scope.chart.scale"),
    note: say("ui.scope.chart.scale.note"),
    low: 0,
    digits: 2,
    plain: isFlat,
    lines: [
      { name: say("ui.scope.line.asked"), style: "os-line-b", of: (step) => step.guidance_asked },
      { name: say("ui.scope.line.measured"), style: "os-line-a", of: (step) => step.guidance_measured },
    ],
  },
  {
    title: say("ui.scope.chart.size"),
    note: say("ui.scope.chart.size.note"),
    low: 0,
    digits: 3,
    lines: [
      { name: say("ui.scope.line.prompt"), style: "os-line-c", of: (step) => step.sizes.prompt },
      { name: say("ui.scope.line.null"), style: "os-line-b", of: (step) => step.sizes.null },
      { name: say("ui.scope.line.difference"), style: "os-line-a", of: (step) => step.sizes.difference },
    ],
  },
  {
    title: say("ui.scope.chart.cosine"),
    note: say("ui.scope.chart.cosine.note"),
    high: 1,
    digits: 4,
    lines: [{ name: say("ui.scope.line.both"), style: "os-line-a", of: (step) => step.cosine }],
  },
  {
    title: say("ui.scope.chart.noise"),
    note: say("ui.scope.chart.noise.note"),
    low: 0,
    high: 1,
    digits: 3,
    lines: [{ name: "t", style: "os-line-a", of: (step) => step.noise_level }],
  },
  {
    title: say("ui.scope.chart.time"),
    note: say("ui.scope.chart.time.note"),
    low: 0,
    digits: 0,
    lines: [{ name: "ms", style: "os-line-a", of: (step) => step.milliseconds }],
  },
];

/** @param {number | null} value @param {number} digits */
const written = (value, digits) => value?.toFixed(digits) ?? "–";

/** @param {Chart} chart */
function buildPlot(chart) {
  const node = make("figure", "os-scope-chart");
  const head = make("figcaption");
  const numbers = make("span", "os-scope-numbers");
  const plot = make("div", "os-scope-plot");
  const svg = vector("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const cursor = make("i", "os-scope-cursor");
  const top = make("span", "os-scope-top");
  const bottom = make("span", "os-scope-bottom");
  const lines = chart.lines.map((line) => {
    const path = vector("path", { class: line.style });
    const value = make("b");
    const item = make("span");
    item.append(make("i", line.style), `${line.name} `, value);
    numbers.append(item);
    svg.append(path);
    return { ...line, path, value };
  });
  plot.setAttribute("role", "img");
  plot.dataset.none = say("ui.scope.difference.absent");
  const ends = make("div", "os-scope-ends");
  const last = make("span");
  ends.append(make("span", "", say("ui.scope.first_step")), last);
  ends.setAttribute("aria-hidden", "true");
  plot.append(svg, cursor, top, bottom);
  head.append(make("span", "os-scope-title", chart.title), numbers);
  const under = make("div");
  under.append(ends, make("p", "os-scope-note", chart.note));
  node.append(head, plot, under);
  return { ...chart, lines, node, plot, svg, cursor, top, bottom, last };
}

/**
 * @param {HTMLElement} box
 * @param {(step: number, pin: boolean) => void} point somebody points at a step (from 0), and holds it
 * @param {() => void} release
 */
export function startCurves(box, point, release) {
  let total = 1;
  const plots = charts().map(buildPlot);
  box.append(...plots.map(({ node }) => node));
  for (const { plot } of plots) {
    /** @param {PointerEvent} event */
    const stepAt = (event) => {
      const bounds = plot.getBoundingClientRect();
      return Math.floor(((event.clientX - bounds.left) / bounds.width) * total);
    };
    plot.addEventListener("pointermove", (event) => point(stepAt(event), event.buttons > 0));
    plot.addEventListener("pointerdown", (event) => {
      plot.setPointerCapture(event.pointerId);
      point(stepAt(event), true);
    });
    plot.addEventListener("pointerleave", release);
  }

  return {
    /** @param {ScopeStep[]} steps @param {number} of all of the run */
    draw(steps, of) {
      total = of;
      for (const chart of plots) {
        const numbers = chart.lines.map((line) => steps.map(line.of));
        const known = numbers.flat().filter((value) => value !== null);
        const high = chart.high ?? Math.max(...known, 1e-9);
        const low = Math.min(chart.low ?? Math.min(...known, high), ...known);
        const y = linear([low, high], [TALL, 0]);
        chart.svg.setAttribute("viewBox", `0 0 ${total} ${TALL}`);
        chart.lines.forEach(({ path }, k) => {
          const points = (numbers[k] ?? []).map((value, i) => place(value, i, y));
          path.setAttribute("d", linePath(points));
        });
        chart.top.textContent = known.length ? high.toFixed(chart.digits) : "";
        chart.bottom.textContent = known.length ? low.toFixed(chart.digits) : "";
        chart.node.classList.toggle("os-scope-none", !known.length);
        chart.node.hidden = Boolean(chart.plain?.(steps));
        chart.last.textContent = String(total);
      }
    },
    /** @param {ScopeStep} step */
    show(step) {
      for (const chart of plots) {
        const said = chart.lines.map(({ name, of, value }) => {
          const number = of(step);
          value.textContent = written(number, chart.digits);
          return number === null ? say("ui.scope.value_unknown", { name }) : `${name} ${value.textContent}`;
        });
        chart.cursor.style.left = `${((step.index - 0.5) / total) * 100}%`;
        const label = { chart: chart.title, step: step.index, values: said };
        chart.plot.setAttribute("aria-label", say("ui.scope.chart.at", label));
      }
    },
  };
}

/**
 * @param {number | null} value @param {number} i @param {(value: number) => number} y
 * @returns {[number, number] | null}
 */
const place = (value, i, y) => (value === null ? null : [i + 0.5, y(value)]);
