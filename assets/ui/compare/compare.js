// The comparison: rows of runs, columns of guidance, every clip as one picture of all its frames. One clock moves all.
import { copy, pageAddress } from "../lib/clipboard.js";
import { otherForms } from "../lib/clips.js";
import { animation, timeText } from "../lib/clock.js";
import { button, find, make, onKeys, write } from "../lib/dom.js";
import { live, say, sayAll, words } from "../lib/i18n.js";
import { isRunning, markBusy, memoryOf, rememberRuns, setTitle, startKeep } from "../lib/session.js";
import { storedRun, whenSeen } from "../lib/stored.js";
import { longest } from "../lib/time.js";
import { buildCell, drawCell, updateCell } from "./cells.js";
import { fillingWidth, largestThat } from "./fit.js";
import { startPair } from "./pair.js";
import { showPlots } from "./plots.js";
import { startPresent } from "./present.js";
import { startProcess } from "./process.js";
import { savePage } from "./save.js";
import { startTransport } from "./transport.js";

/** @typedef {import("../types.js").CompareValue} CompareValue */
/** @typedef {import("./cells.js").Cell} Cell */
/** @typedef {{ lastRun: number, value: CompareValue | null }} Memory */

const NARROW_PX = 640; // of the table: then the labels of the rows stand over them
const LEAST_PX = { wide: 120, narrow: 132 };
const GAP_PX = 12;
const ASIDE_PX = { page: 136, wall: 208 }; // for marks beside a clip

/** @param {import("../types.js").ColumnValue} column */
const unguided = (column) => column.scale === 1;
/** Given frames have a branch of their own, which the negative prompt shares. @param {CompareValue} view */
const hasFrames = ({ chips }) => chips.some((chip) => chip.name.code === "label.chip.given");

/** @param {import("../lib/host.js").Host<CompareValue | import("../types.js").IdleValue>} host */
export function start({ element, trigger, props, watch }) {
  sayAll(element);
  const name = props.name ?? "grid";
  /** @param {string} selector */
  const $ = (selector) => find(element, selector, HTMLElement);
  const root = $(".os-compare");
  const table = $(".os-compare-table");
  const scroll = $(".os-compare-scroll");
  const all = $(".os-compare-all");
  /** @type {Memory} */
  const memory = memoryOf(name, { lastRun: 0, value: null });
  /** @type {CompareValue | null} */
  let view = null;
  /** @type {CompareValue | null} */
  let example = null; // a comparison of the model that came with the demo, until there is a visitor's own
  /** @type {Cell[][]} */
  let cells = [];
  /** @type {Cell[]} */
  let chosen = [];
  let arrived = 0;
  let showsAll = false;
  let fitted = ""; // for which layout the clips have their size

  const running = () => isRunning(view);
  const showKeep = startKeep(element, name, trigger);
  const look = () => ({ step: process.share(), all: showsAll });
  const transport = startTransport(
    element,
    () => (view ? longest(view.rows) : { frames: 1, fps: 1 }),
    () => wake(),
  );
  const process = startProcess(
    element,
    () => Math.max(...(view?.rows ?? []).map((row) => row.total), 1),
    transport.speed,
    () => wake(),
  );
  const pair = startPair(element, transport.at, look);
  const present = startPresent(element, () => fit());
  const wake = animation([root], (now) => {
    transport.advance(now, running());
    process.advance(now);
    draw();
    if (running()) showTime();
    return transport.playing() || process.running() || running();
  });

  function draw() {
    if (!view) return;
    for (const cell of cells.flat()) drawCell(cell, transport.at(), look());
    transport.show();
    process.show();
    pair.draw();
  }

  // --- the table

  /** @param {CompareValue} view */
  function buildTable({ rows, columns }) {
    table.replaceChildren();
    table.style.setProperty("--columns", String(columns.length));
    const labelled = rows.some((row) => row.label);
    root.toggleAttribute("data-rows", labelled);
    const head = make("div", "os-compare-row");
    if (labelled) head.append(make("span", "os-compare-corner"));
    head.append(...columns.map((column) => make("div", "os-compare-label", words(column.label))));
    table.append(head);
    cells = rows.map((row) => {
      const line = make("div", "os-compare-row");
      const label = row.label ? words(row.label) : "";
      line.setAttribute("role", "group");
      line.setAttribute("aria-label", label || say("ui.compare.clips"));
      if (labelled) line.append(make("h2", "os-compare-row-label", label));
      const made = columns.map((column) => {
        const cell = buildCell(row, column, () => choose(cell));
        return cell;
      });
      line.append(...made.map((cell) => cell.node));
      table.append(line);
      return made;
    });
  }

  // Clips as large as the window holds them all, with their labels and marks and the transport under them.
  function fit() {
    if (!view || !scroll.clientWidth) return;
    const narrow = scroll.clientWidth < NARROW_PX;
    const marked = view.cells.flat().filter((cell) => cell.state === "done").length;
    const state = [view.run, scroll.clientWidth, window.innerHeight, marked, chosen.length, root.dataset.present];
    const key = [...state, root.hasAttribute("data-no-marks")].join();
    if (key === fitted) return;
    fitted = key;
    root.toggleAttribute("data-narrow", narrow);
    const over = present.on() ? $(".os-compare-made").offsetHeight + 2 * GAP_PX : 0;
    const room = window.innerHeight - $(".os-compare-dock").offsetHeight - over - GAP_PX;
    const label = root.querySelector(".os-compare-corner");
    const side = label instanceof HTMLElement && !narrow ? label.offsetWidth + GAP_PX : 0;
    const filling = fillingWidth({ width: scroll.clientWidth - 6, columns: view.columns.length, gap: GAP_PX, side });
    const least = narrow ? LEAST_PX.narrow : LEAST_PX.wide;
    const aside = present.on() ? ASIDE_PX.wall : ASIDE_PX.page;
    table.style.setProperty("--aside", `${aside}px`);
    // Marks stand under the clips, or beside them where that leaves more room.
    const show = (/** @type {number} */ width, /** @type {boolean} */ beside) => {
      root.toggleAttribute("data-beside", beside);
      table.style.setProperty("--cell", `${width}px`);
    };
    const best = (/** @type {boolean} */ beside) =>
      largestThat(least, filling - (beside ? aside : 0), (width) => {
        show(width, beside);
        return table.offsetHeight <= room;
      });
    const under = best(false);
    const besides = narrow || !marked || filling - aside < least ? 0 : best(true);
    show(Math.max(under, besides), besides > under);
    wake();
  }
  new ResizeObserver(fit).observe(scroll);
  window.addEventListener("resize", fit);

  /** @param {Cell} cell */
  function choose(cell) {
    chosen = chosen.includes(cell) ? chosen.filter((other) => other !== cell) : [...chosen, cell].slice(-2);
    markChosen();
  }

  function markChosen() {
    for (const cell of cells.flat()) {
      const order = chosen.indexOf(cell);
      cell.box.setAttribute("aria-pressed", String(order >= 0));
      cell.box.dataset.order = "AB"[order] ?? "";
    }
    pair.choose(chosen);
    showChosen();
  }

  // What one may do with the clips that are chosen.
  function showChosen() {
    const box = $(".os-compare-chosen");
    box.hidden = !chosen.length;
    box.replaceChildren(
      ...chosen.map((cell, i) => {
        const line = make("div", "os-compare-pick");
        line.append(make("b", "", "AB"[i]), make("span", "", cell.name), ...deeds(cell));
        return line;
      }),
    );
    fit();
  }

  /** @param {Cell} cell */
  function deeds({ data, name }) {
    if (data.state !== "done" || props.saved) return [];
    /** @param {string} kind */
    const link = (kind) => {
      const node = make("a", "os-compare-link", kind);
      node.title = say("ui.compare.save.hint");
      node.setAttribute("aria-label", say("ui.compare.save_of", { kind, clip: name }));
      return node;
    };
    const save = link("mp4");
    save.href = data.file.url;
    save.download = data.file.orig_name;
    const others = view?.stored ? [] : otherForms(data.file.orig_name, data.sheet.count, transport.frame, link);
    const take = button("os-compare-link", say("ui.compare.use"), () => {
      trigger("pick", data.settings);
      $(".os-compare-live").textContent = take.textContent = say("ui.compare.used");
      take.removeAttribute("aria-label");
    });
    take.setAttribute("aria-label", say("ui.compare.use_of", { clip: name }));
    take.title = say("ui.compare.use.hint");
    return [...(data.sheet.count > 1 ? [save] : []), ...others, take];
  }

  // --- around it

  function showTime() {
    if (!view) return;
    write($(".os-compare-time"), timeText(view, running() ? (performance.now() - arrived) / 1000 : null));
  }

  function render() {
    const busy = running();
    root.dataset.phase = view?.stored ? "stored" : (view?.phase ?? "idle");
    markBusy(name, busy);
    $(".os-compare-empty").textContent = say(props.about?.runs === false ? "ui.stage.no_weights" : "ui.compare.lead");
    showKeep(view, busy);
    if (!view) return;
    $(".os-compare-text").textContent = view.stored ? say("ui.explain.stored") : words(view.text);
    showTime();
    const share = view.total ? view.done / view.total : 0;
    $(".os-compare-bar i").style.transform = `scaleX(${busy ? share : 0})`;
    const ended = view.phase === "done" ? words(view.text) : "";
    if (!props.saved && !view.stored) setTitle(name, busy ? `${Math.round(100 * share)} %` : ended, busy);
    showNote(view.note ? words(view.note) : "");
    showMade(view);
    $(".os-compare-equal").hidden = !(view.axis === "negative" && view.columns.some(unguided) && !hasFrames(view));
    all.hidden = view.seeds === 1 || !view.cells.flat().some((cell) => cell.state === "done" && cell.mosaic);
    if (!busy) $(".os-compare-actions").replaceChildren(...actions(view));
    else $(".os-compare-actions").replaceChildren();
  }

  /** @param {string} text nothing hides it */
  function showNote(text) {
    $(".os-compare-note").hidden = !text;
    $(".os-compare-note").textContent = text;
  }

  /** What all clips were made of, over the table. @param {CompareValue} view */
  function showMade({ prompt, negative, chips }) {
    $(".os-compare-prompt").textContent = negative ? say("ui.compare.without", { prompt, negative }) : prompt;
    $(".os-compare-chips").replaceChildren(
      ...chips.map((chip) => make("span", "", `${words(chip.name)} ${words(chip.value)}`)),
    );
  }

  all.addEventListener("click", () => {
    showsAll = !showsAll;
    showAll();
    wake();
  });

  function showAll() {
    all.textContent = say("ui.compare.all_seeds", { seeds: view?.seeds ?? 1 });
    all.setAttribute("aria-pressed", String(showsAll));
  }

  /** @param {CompareValue} view */
  function actions(view) {
    const { grid, numbers, link } = view;
    if (props.saved) return [];
    const share = button("os-action", say("ui.stage.link"), () => {
      copy(pageAddress(link.query), share);
      if (link.note) showNote(words(link.note));
    });
    share.title = say("ui.compare.link.hint");
    const page = button("os-action", say("ui.compare.save_page"), () =>
      savePage(view).catch((error) => {
        $(".os-compare-live").textContent = page.textContent = say("ui.compare.save_page.failed");
        throw error;
      }),
    );
    page.title = say("ui.compare.save_page.hint");
    const made = view.cells.flat().some((cell) => cell.state === "done");
    const on = button("os-action", say("ui.compare.resume"), () => trigger("resume", { job: view.job }));
    on.title = say("ui.compare.resume.hint");
    return [...(view.phase === "stopped" ? [on] : []), share, ...(made ? [page] : []), ...files(grid, numbers)];
  }

  /** @param {CompareValue["grid"]} grid @param {CompareValue["numbers"]} numbers */
  function files(grid, numbers) {
    /** @param {string} kind */
    const link = (kind) => make("a", "os-action", kind);
    const others = grid ? otherForms(grid.orig_name, 2, transport.frame, link) : [];
    const given = [
      { file: grid, text: say("ui.compare.save_all") },
      { file: numbers, text: say("ui.compare.save_numbers") },
    ].flatMap(({ file, text }) => {
      if (!file) return [];
      const save = make("a", "os-action", text);
      save.href = file.url;
      save.download = file.orig_name;
      return [save];
    });
    return [...given.slice(0, 1), ...others, ...given.slice(1)];
  }

  // --- a value arrives

  const remember = rememberRuns(name, 1, trigger);

  function receive() {
    const opened = props.value && !("cells" in props.value) ? props.value.text : undefined;
    $(".os-compare-opened").hidden = !opened;
    $(".os-compare-opened").textContent = opened ? words(opened) : "";
    const own = props.value && "cells" in props.value ? props.value : memory.value;
    const value = own ?? example;
    if (!value) {
      view = null;
      return render();
    }
    if (value.run < memory.lastRun) return; // a late word of an older run
    const fresh = view === null || view.run !== value.run || (value.stored && view !== value);
    memory.lastRun = value.run;
    memory.value = own;
    view = value;
    arrived = performance.now();
    if (fresh) {
      chosen = [];
      showsAll = false;
      transport.rewind();
      process.reset();
      buildTable(value);
      markChosen();
      showAll();
    }
    value.rows.forEach((row, r) => {
      value.cells[r]?.forEach((data, c) => {
        const cell = cells[r]?.[c];
        if (cell) updateCell(cell, row, c, data, wake);
      });
    });
    if (!value.stored) remember(value.job, running());
    showPlots(element, value);
    render();
    fit();
    if (!running()) {
      showChosen();
      if (!value.stored) $(".os-compare-live").textContent = live(value.text, value.note);
    }
  }

  // Before the first comparison: one that came with the demo, of the model that is chosen.
  let seen = false;
  async function showExample() {
    if (!seen || memory.value || props.saved || !props.about) return;
    const { model } = props.about;
    const found = await storedRun("comparison", model);
    if (memory.value || props.about?.model !== model) return;
    example = found;
    receive();
  }
  whenSeen(root, () => {
    seen = true;
    showExample();
  });

  const shown = () => root.getClientRects().length > 0 && view !== null;
  onKeys(element, shown, {
    " ": transport.toggle,
    ArrowLeft: () => transport.step(-1),
    ArrowRight: () => transport.step(1),
  });
  onKeys(element, () => shown() && present.on(), {
    ArrowUp: () => process.move(-1),
    ArrowDown: () => process.move(1),
    d: process.toggle,
    s: transport.slower,
    m: () => {
      root.toggleAttribute("data-no-marks");
      fit();
    },
    Escape: present.leave,
  });
  watch("value", receive);
  watch("about", () => {
    render();
    showExample();
  });
  receive();
}
