// What the clips say together: a line for each row, means over seeds with their error, and a table of scale and row.
import { chartOf, linear, linePath } from "../lib/chart.js";
import { find, make, vector } from "../lib/dom.js";
import { say, words } from "../lib/i18n.js";
import { apart, roundUp, seriesOf } from "./series.js";

/** @typedef {import("../types.js").CompareValue} CompareValue */
/** @typedef {import("../types.js").ChartValue} Chart */
/** @typedef {import("./series.js").Metric} Metric */

const TALL = 232;
const [LEFT, TOP, BOTTOM, LABELS] = [44, 10, 26, 132];
const LINE_PX = 14; // of a label beside its line

const TITLES = /** @type {const} */ ({
  sure: "ui.compare.chart.sure",
  right: "ui.compare.chart.right",
  variety: "ui.compare.chart.variety",
});

/** @type {Record<Metric, (value: number) => string>} */
const FORMATS = {
  sure: (value) => `${Math.round(100 * value)} %`,
  right: (value) => `${Math.round(100 * value)} %`,
  variety: (value) => value.toFixed(3),
};

/** @param {CompareValue} view @param {string} rule */
function ruleTitle(view, rule) {
  const column = view.columns.find((one) => one.rule === rule);
  return column?.rule_title ? words(column.rule_title) : rule;
}

/** @param {CompareValue} view @param {Chart} chart @param {Metric} metric */
function plot(view, chart, metric) {
  const { axis, scales, rules, series } = seriesOf(view.columns, chart.lines, metric);
  const format = FORMATS[metric];
  const title = say(TITLES[metric]);
  const ticks = axis === "scale" ? scales.map(String) : rules.map((rule) => ruleTitle(view, rule));
  const named = series.map(({ line, rule }) => {
    const label = chart.lines[line]?.label;
    return [label ? words(label) : "", rule ? ruleTitle(view, rule) : ""].filter(Boolean).join(", ");
  });
  const tops = series.flatMap(({ points }) =>
    points.flatMap(({ point }) => [point.mean + (point.error ?? 0), ...point.each]),
  );
  const most = metric === "variety" ? roundUp(Math.max(...tops, 1e-3)) : 1;
  const said = series.map(({ points }, i) => {
    const values = points.map(({ x, point }) => `${ticks[x]}: ${format(point.mean)}`).join(", ");
    return named[i] ? `${named[i]}: ${values}` : values;
  });
  const figure = make("figure", "os-compare-plot");
  const { node, draw } = chartOf(TALL, `${title}. ${said.join("; ")}`, (svg, width, height) => {
    const labelled = named.some(Boolean);
    const right = width - (labelled ? Math.min(LABELS, width * 0.3) : 12);
    const x = linear([-0.4, ticks.length - 0.6], [LEFT, right]);
    const y = linear([0, most], [height - BOTTOM, TOP]);
    svg.replaceChildren();
    for (const share of [0, 0.5, 1]) {
      const at = y(share * most);
      svg.append(
        vector("line", { x1: LEFT, x2: right, y1: at, y2: at, class: "os-compare-axis" }),
        vector("text", { x: LEFT - 6, y: at + 4, class: "os-compare-tick os-compare-tick-y" }, format(share * most)),
      );
    }
    ticks.forEach((tick, i) => {
      svg.append(vector("text", { x: x(i), y: height - 8, class: "os-compare-tick" }, tick));
    });
    series.forEach(({ line, points }, s) => {
      const group = vector("g", {
        class: "os-compare-series",
        "data-line": line % 4,
        "data-dash": rules.length > 1 ? s % rules.length : 0,
      });
      const aside = (s - (series.length - 1) / 2) * Math.min(5, 24 / series.length); // error bars beside each other
      for (const { x: at, point } of points) {
        for (const value of point.each.length > 1 ? point.each : []) {
          group.append(vector("circle", { cx: x(at) + aside, cy: y(value), r: 2, class: "os-compare-each" }));
        }
        if (point.error !== null) {
          const [low, high] = [y(Math.max(point.mean - point.error, 0)), y(Math.min(point.mean + point.error, most))];
          group.append(
            vector("line", { x1: x(at) + aside, x2: x(at) + aside, y1: low, y2: high, class: "os-compare-error" }),
          );
        }
        const dot = vector("circle", { cx: x(at) + aside, cy: y(point.mean), r: 4, class: "os-compare-dot" });
        dot.append(vector("title", {}, [named[s], ticks[at], format(point.mean)].filter(Boolean).join(": ")));
        group.append(dot);
      }
      if (axis === "scale" && points.length > 1) {
        const places = points.map(
          ({ x: at, point }) => /** @type {[number, number]} */ ([x(at) + aside, y(point.mean)]),
        );
        group.prepend(vector("path", { d: linePath(places), class: "os-compare-line" }));
      }
      svg.append(group);
    });
    if (!labelled) return;
    const ends = series.map(({ points }) => y(points.at(-1)?.point.mean ?? 0));
    const heights = apart(ends, LINE_PX, TOP + 4, height - BOTTOM);
    series.forEach(({ line }, s) => {
      const label = vector(
        "text",
        { x: right + 8, y: (heights[s] ?? 0) + 4, class: "os-compare-series-label", "data-line": line % 4 },
        named[s],
      );
      svg.append(label);
    });
  });
  node.classList.add("os-compare-lines");
  const name = say(axis === "scale" ? "ui.compare.chart.scale" : "ui.compare.chart.rule");
  figure.append(make("figcaption", "os-compare-title", title), node, make("p", "os-compare-axis-name", name));
  requestAnimationFrame(draw);
  return figure;
}

/** Rows by columns, the darker the more of what was asked is right. @param {CompareValue} view @param {Chart} chart */
function heat(view, chart) {
  const figure = make("figure", "os-compare-plot");
  const table = make("table", "os-compare-heat");
  const head = make("tr");
  head.append(make("td"), ...view.columns.map((column) => make("th", "", words(column.label))));
  const lines = chart.lines.map((line) => {
    const row = make("tr");
    const cells = line.right.map((point) => {
      const cell = make("td", "", point ? FORMATS.right(point.mean) : "–");
      cell.style.setProperty("--share", String(point?.mean ?? 0));
      return cell;
    });
    row.append(make("th", "", line.label ? words(line.label) : ""), ...cells);
    return row;
  });
  table.append(head, ...lines);
  const scroll = make("div", "os-compare-heat-scroll");
  scroll.tabIndex = 0; // where it is wider than its place, keys move it
  scroll.setAttribute("role", "group");
  scroll.setAttribute("aria-label", say(TITLES.right));
  scroll.append(table);
  figure.append(make("figcaption", "os-compare-title", say(TITLES.right)), scroll);
  return figure;
}

/** @param {HTMLElement} element @param {CompareValue} view */
export function showPlots(element, view) {
  const box = find(element, ".os-compare-chart", HTMLElement);
  const { chart } = view;
  /** @param {Metric} metric */
  const known = (metric) => chart?.lines.some((line) => line[metric].some(Boolean)) ?? false;
  const several = view.columns.length > 1 || view.rows.length > 1;
  box.hidden = !chart || !several || !(known("sure") || known("variety"));
  const drawn = JSON.stringify([view.run, chart]);
  if (!chart || box.hidden || box.dataset.drawn === drawn) return;
  box.dataset.drawn = drawn;
  const plots = [];
  if (known("sure")) plots.push(plot(view, chart, "sure"));
  if (known("variety")) plots.push(plot(view, chart, "variety"));
  if (known("right") && chart.lines.length > 1) plots.push(heat(view, chart));
  find(box, ".os-compare-plots", HTMLElement).replaceChildren(...plots);
  const seeds = Math.max(
    ...chart.lines.flatMap((line) => line.sure.concat(line.variety).map((p) => p?.each.length ?? 0)),
  );
  const hint = seeds > 1 ? say("ui.compare.chart.means", { seeds }) : say("ui.compare.chart.choose");
  find(box, ".os-compare-chart-hint", HTMLElement).textContent = hint;
}
