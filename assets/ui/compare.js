// The body of a function (element, trigger, props, server, upload, watch), run once when the comparison appears.
// Text that a person wrote is only ever set with textContent. Everything here draws what Python said in props.value:
// rows of runs, columns of guidance, every clip as one picture of all its frames. One clock moves them all.
const { say, sayAll, make, vector, seconds, title } = window.openSora;
sayAll(element);
const $ = (selector) => element.querySelector(selector);
const root = $(".oc"), table = $(".oc-table"), seek = $(".oc-seek"), name = "grid";
const about = () => props.about || {};
const MARKS = ["colour", "shape", "motion", "background"], WORD = { background: "place" };
const memory = ((window.openSoraDemo ||= {})[name] ||= { lastRun: 0, asked: false, value: null });
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const state = { view: null, cells: [], chosen: [], mode: "wipe", wipe: 0.5, at: 0, speed: 1, playing: !calm.matches, loop: true, before: 0, ticking: false, arrived: 0 };

const running = () => window.openSora.running(state.view);

// --- time: one clock for every clip ---------------------------------------------------------------------------------

// The clips of the row that lasts longest say how many frames the transport has.
function longest() {
  const rows = state.view ? state.view.rows : [];
  return rows.reduce((a, b) => (b.frames / b.fps > a.frames / a.fps ? b : a), rows[0] || { frames: 1, fps: 1 });
}
const duration = () => longest().frames / longest().fps;

// Frame `count` of a row at the clock's time; a shorter clip holds its last.
const frameAt = (row, count) => Math.min(Math.floor(state.at * row.fps + 1e-6), count - 1);

function advance(now) {
  if (state.playing && state.view) {
    state.at += ((now - state.before) / 1000) * state.speed;
    if (state.at >= duration()) {
      if (state.loop || running()) state.at %= duration();
      else {
        state.at = duration() - 0.5 / longest().fps;
        setPlaying(false);
      }
    }
  }
  state.before = now;
}

function setPlaying(on) {
  state.playing = on;
  const play = $(".oc-play");
  play.setAttribute("aria-label", say(on ? "Pause" : "Play"));
  play.dataset.on = String(on);
}

function seekTo(frame) {
  const { frames, fps } = longest();
  state.at = (Math.min(Math.max(frame, 0), frames - 1) + 0.5) / fps;
  draw();
}
function stepBy(frames) {
  setPlaying(false);
  seekTo(Math.floor(state.at * longest().fps + 1e-6) + frames);
}

// A label as "guidance 4, plain" has its parts translated.
const inWords = (label) => label.split(", ").map(say).join(", ");

// --- cells ------------------------------------------------------------------------------------------------------------

function buildTable() {
  const view = state.view;
  table.replaceChildren();
  table.style.setProperty("--columns", view.columns.length);
  state.cells = view.rows.map((row, r) => {
    const line = make("div", "oc-row");
    line.setAttribute("role", "group");
    line.setAttribute("aria-label", row.label || "clips");
    if (row.label) table.append(make("h2", "oc-row-label", inWords(row.label)));
    const cells = view.columns.map((column, c) => buildCell(row, column, r, c));
    line.append(...cells.map((cell) => cell.node));
    table.append(line);
    return cells;
  });
}

function buildCell(row, column, r, c) {
  const node = make("div", "oc-cell"), box = make("button", "oc-box"), canvas = make("canvas"), foot = make("div", "oc-foot");
  box.type = "button";
  box.setAttribute("aria-pressed", "false");
  box.setAttribute("aria-label", [row.label, column.label].filter(Boolean).join(", "));
  box.title = say("Choose two clips to lay them on each other");
  [canvas.width, canvas.height] = row.cell;
  box.style.aspectRatio = row.cell[0] + " / " + row.cell[1];
  box.append(canvas, make("span", "oc-state", ""));
  box.addEventListener("click", () => choose(r, c));
  node.append(make("div", "oc-label", inWords(column.label)), box, make("div", "oc-marks"), foot);
  return { node, box, canvas, pen: canvas.getContext("2d"), foot, row, column, data: { state: "waiting" }, estimate: null, sprite: null, drawn: "" };
}

function loaded(source) {
  const image = new Image();
  image.src = source;
  return image;
}

function updateCell(cell, data) {
  const before = cell.data;
  cell.data = data;
  if (data.e && data.e !== before.e) {
    // The estimate before stays until the new one is decoded: nothing flashes.
    const image = loaded(data.e);
    image.decode().then(() => {
      cell.estimate = image;
      cell.drawn = "";
    }, () => {});
  }
  if (data.sprite && !(before.sprite && before.sprite.url === data.sprite.url)) {
    const image = loaded(data.sprite.url);
    image.decode().then(() => (cell.sprite = image), () => {});
  }
  const words = { waiting: "waiting", denoising: "step " + (data.i || 0), missing: "not made" };
  cell.node.querySelector(".oc-state").textContent = say(words[data.state] || "");
  cell.node.dataset.state = data.state;
  if (data.state === "done" && before.state !== "done") finishCell(cell, data);
}

function finishCell(cell, data) {
  cell.node.querySelector(".oc-marks").replaceChildren(...(data.marks ? MARKS.map((kind) => mark(kind, data.marks[kind])) : []));
  const save = make("a", "oc-link", "mp4"), use = make("button", "oc-link", say("use"));
  save.href = data.file.url;
  save.download = data.file.orig_name || "clip.mp4";
  save.title = say("Download this clip");
  const where = [cell.row.label, cell.column.label].filter(Boolean).map(inWords).join(", ");
  save.setAttribute("aria-label", "mp4: " + where);
  use.setAttribute("aria-label", say("use") + ": " + where);
  use.type = "button";
  use.title = say("Put this clip's settings into the form");
  use.addEventListener("click", () => trigger("pick", data.settings));
  cell.foot.replaceChildren(save, use);
}

function mark(kind, found) {
  const node = make("span", "oc-mark"), word = say(WORD[kind] || kind);
  if (!found || !found.asked) {
    node.dataset.right = "none";
    node.append(make("b", "", "–"), make("span", "", word));
    node.title = word + ": not asked for";
    return node;
  }
  const sure = Math.round(found.confidence * 100) + " %";
  node.dataset.right = String(Boolean(found.right));
  node.append(make("b", "", found.right ? "✓" : "✗"), make("span", "", word));
  node.title = word + ": asked " + found.asked + ", seen " + found.seen + "; " + sure + " sure of what was asked";
  node.setAttribute("aria-label", word + (found.right ? " right: " : " wrong: ") + found.seen);
  node.setAttribute("role", "img");
  return node;
}

// Draw one cell's picture at the clock's time into a pen of any size; false when there is none yet.
function paint(cell, pen, w, h) {
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  const { data, row } = cell;
  if (data.state === "done" && cell.sprite) {
    const [sh, sw] = data.size, i = frameAt(row, data.count);
    pen.drawImage(cell.sprite, (i % data.across) * sw, Math.floor(i / data.across) * sh, sw, sh, 0, 0, w, h);
    return true;
  }
  if (cell.estimate && cell.estimate.naturalWidth) {
    const sw = cell.estimate.naturalWidth / row.latent, at = Math.min((state.at / (row.frames / row.fps)) * row.latent, row.latent - 0.001);
    pen.drawImage(cell.estimate, Math.max(Math.floor(at), 0) * sw, 0, sw, cell.estimate.naturalHeight, 0, 0, w, h);
    return true;
  }
  return false;
}

function draw() {
  const view = state.view;
  if (!view) return;
  for (const row of state.cells) {
    for (const cell of row) {
      const key = [cell.data.state, cell.sprite ? frameAt(cell.row, cell.data.count || 1) : state.at.toFixed(1)].join();
      if (key === cell.drawn) continue;
      if (paint(cell, cell.pen, cell.canvas.width, cell.canvas.height)) cell.drawn = key;
    }
  }
  const { frames, fps } = longest(), frame = Math.min(Math.floor(state.at * fps + 1e-6), frames - 1);
  if (document.activeElement !== seek || state.playing) seek.value = String(frame);
  seek.setAttribute("aria-valuetext", "frame " + (frame + 1) + " of " + frames);
  $(".oc-frame").textContent = frame + 1 + " / " + frames;
  drawPair();
}

function tick(now) {
  if (!element.isConnected) return;
  advance(now);
  if (root.offsetParent) draw();
  if (running()) showTime();
  if (state.view) requestAnimationFrame(tick);
  else state.ticking = false;
}
function animate() {
  if (state.ticking) return;
  state.ticking = true;
  state.before = performance.now();
  requestAnimationFrame(tick);
}

// --- two clips on each other -------------------------------------------------------------------------------------------

const same = (a, b) => a[0] === b[0] && a[1] === b[1];
function choose(r, c) {
  const at = [r, c], found = state.chosen.findIndex((other) => same(other, at));
  if (found >= 0) state.chosen.splice(found, 1);
  else state.chosen = [...state.chosen, at].slice(-2);
  markChosen();
}
function markChosen() {
  state.cells.forEach((row, r) => row.forEach((cell, c) => {
    const order = state.chosen.findIndex((other) => same(other, [r, c]));
    cell.box.setAttribute("aria-pressed", String(order >= 0));
    cell.box.dataset.order = order >= 0 ? "AB"[order] : "";
  }));
  const two = state.chosen.length === 2;
  $(".oc-pair-box").hidden = $(".oc-modes").hidden = !two;
  const named = state.chosen.map(([r, c]) => [state.view.rows[r].label, state.view.columns[c].label].filter(Boolean).join(", "));
  $(".oc-pair-hint").textContent = two ? "A: " + named[0] + ".  B: " + named[1] + "." : say("Choose two clips above; drag to wipe from one to the other, or see where they differ.");
  drawPair();
}

const sheets = [0, 1].map(() => make("canvas"));
function drawPair() {
  if (state.chosen.length !== 2 || $(".oc-pair-box").hidden) return;
  const [a, b] = state.chosen.map(([r, c]) => state.cells[r] && state.cells[r][c]);
  if (!a || !b) return;
  const canvas = $(".oc-pair-canvas"), pen = canvas.getContext("2d"), [w, h] = a.row.cell;
  if (canvas.width !== w * 2 || canvas.height !== h * 2) [canvas.width, canvas.height] = [w * 2, h * 2];
  const W = canvas.width, H = canvas.height;
  $(".oc-pair-box").style.aspectRatio = W + " / " + H;
  if (state.mode === "wipe") {
    paint(a, pen, W, H);
    pen.save();
    pen.beginPath();
    pen.rect(W * state.wipe, 0, W, H);
    pen.clip();
    paint(b, pen, W, H);
    pen.restore();
    pen.fillStyle = "#ffffff";
    pen.fillRect(W * state.wipe - 1, 0, 2, H);
    $(".oc-distance").textContent = "";
    return;
  }
  const [x, y] = [a, b].map((cell, i) => {
    sheets[i].width = 128;
    sheets[i].height = Math.round((128 * H) / W);
    const sheet = sheets[i].getContext("2d", { willReadFrequently: true });
    paint(cell, sheet, sheets[i].width, sheets[i].height);
    return sheet.getImageData(0, 0, sheets[i].width, sheets[i].height);
  });
  let sum = 0;
  for (let i = 0; i < x.data.length; i += 4) {
    const d = [0, 1, 2].map((k) => Math.abs(x.data[i + k] - y.data[i + k]));
    sum += d[0] ** 2 + d[1] ** 2 + d[2] ** 2;
    const v = Math.min((d[0] + d[1] + d[2]) / 3 / 96, 1); // white from a difference of 96 of 255 on
    x.data[i] = 255 * Math.min(1, v * 2.2);
    x.data[i + 1] = 255 * Math.max(0, Math.min(1, v * 2 - 0.6));
    x.data[i + 2] = 255 * Math.max(0.1 * v, Math.min(1, v * 3 - 2));
  }
  sheets[0].getContext("2d").putImageData(x, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(sheets[0], 0, 0, W, H);
  $(".oc-distance").textContent = say("RMS " + Math.sqrt(sum / (x.data.length * 0.75)).toFixed(1) + " of 255 at this frame");
}

// --- the chart over the columns -------------------------------------------------------------------------------------------

// One small plot: values (or null) over the columns, a line for each rule.
function plot(title, values, format, high) {
  const view = state.view, W = 320, H = 128, left = 8, right = 8, top = 20, bottom = 22, n = view.columns.length;
  const svg = vector("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", class: "oc-plot" });
  const known = values.map((value, i) => [i, value]).filter(([, value]) => value !== null);
  const words = known.map(([i, value]) => view.columns[i].label + ": " + format(value)).join("; ");
  svg.setAttribute("aria-label", title + ". " + words);
  const most = high || Math.max(...known.map(([, value]) => value), 1e-9) * 1.45;
  const x = (i) => left + ((i + 0.5) / n) * (W - left - right), y = (v) => top + (1 - v / most) * (H - top - bottom);
  svg.append(vector("text", { x: left, y: 12, class: "oc-plot-title" }, title));
  svg.append(vector("line", { x1: left, x2: W - right, y1: y(0), y2: y(0), class: "oc-axis" }));
  const rules = [...new Set(view.columns.map((column) => column.rule))];
  for (const rule of rules) {
    const points = known.filter(([i]) => view.columns[i].rule === rule);
    if (points.length > 1) svg.append(vector("polyline", { points: points.map(([i, v]) => x(i) + "," + y(v)).join(" "), class: "oc-line" }));
  }
  for (const [i, value] of known) {
    svg.append(vector("circle", { cx: x(i), cy: y(value), r: 3.5, class: "oc-dot" }));
    svg.append(vector("text", { x: x(i), y: Math.max(y(value) - 7, 21), class: "oc-value" }, format(value)));
  }
  const several = new Set(view.columns.map((column) => column.scale)).size > 1;
  view.columns.forEach((column, i) => {
    const label = several ? String(column.scale) : column.label;
    svg.append(vector("text", { x: x(i), y: H - 6, class: "oc-tick" }, label.length > 12 ? label.slice(0, 11) + "…" : label));
  });
  return svg;
}

function showChart() {
  const chart = state.view && state.view.chart, box = $(".oc-chart");
  const useful = chart && state.view.columns.length > 1 && (chart.variety || chart.sure.some((value) => value !== null));
  box.hidden = !useful;
  if (!useful) return;
  const percent = (v) => Math.round(100 * v) + " %", plots = [];
  if (chart.sure.some((value) => value !== null)) plots.push(plot(say("What was asked is seen (the reader is this sure)"), chart.sure, percent, 1.25));
  if (chart.variety) plots.push(plot(say("Variety: how far clips of different seeds are apart"), chart.variety, (v) => v.toFixed(3)));
  $(".oc-plots").replaceChildren(...plots);
  $(".oc-chart-hint").textContent = say(chart.variety
    ? "Means of " + chart.rows + " seeds. What guidance is known for: closer to the prompt, less variety."
    : "Choose seeds as rows to see variety fall as guidance rises.");
}

// --- around it ----------------------------------------------------------------------------------------------------------

function showTime() {
  const view = state.view, since = running() ? (performance.now() - state.arrived) / 1000 : 0;
  let text = view.phase === "idle" ? "" : seconds(view.elapsed + since);
  if (running() && view.left !== null) text += say(", about ") + seconds(Math.max(view.left - since, 0)) + say(" left");
  $(".oc-time").textContent = text;
}

function render() {
  const view = state.view, busy = running(), idle = !view || view.phase === "idle";
  root.dataset.phase = view ? view.phase : "idle";
  const all = (window.openSoraDemo.busy ||= new Set());
  all[busy ? "add" : "delete"](name);
  document.body.toggleAttribute("data-os-busy", all.size > 0);
  $(".oc-empty").textContent = say(about().runs === false
    ? "The weights of this model are not here."
    : "One prompt, one noise, several guidance scales: the clips play in step, so that what differs is guidance alone. Choose seeds as rows to see what guidance does to variety, or other rules to see other ways to pull.");
  if (idle) return;
  $(".oc-text").textContent = say(view.text);
  showTime();
  const share = view.total ? view.done / view.total : 0;
  $(".oc-bar").firstElementChild.style.transform = "scaleX(" + (busy ? share : 0) + ")";
  title(name, busy ? Math.round(100 * share) + " %" : view.phase === "done" ? say("Done") : "", busy);
  const note = $(".oc-note");
  note.hidden = !view.note;
  note.textContent = say(view.note || "");
  const actions = $(".oc-actions");
  actions.replaceChildren();
  if (view.grid) {
    const save = make("a", "os-action", say("Download the table as mp4"));
    save.href = view.grid.url;
    save.download = view.grid.orig_name || "comparison.mp4";
    actions.append(save);
  }
}

const { known, remember } = window.openSora.runs(name, 1);

function receive() {
  const view = props.value && props.value.phase !== "idle" ? props.value : memory.value;
  if (!view || view.phase === "idle") return render();
  if (view.run < memory.lastRun) return; // a late word of an older run
  const fresh = !state.view || state.view.run !== view.run;
  memory.lastRun = view.run;
  memory.value = view;
  state.view = view;
  state.arrived = performance.now();
  if (fresh) {
    state.chosen = [];
    state.at = 0;
    seek.max = String(longest().frames - 1);
    buildTable();
    markChosen();
  }
  view.cells.forEach((row, r) => row.forEach((data, c) => {
    state.cells[r][c].row = view.rows[r];
    updateCell(state.cells[r][c], data);
  }));
  remember(view.job);
  showChart();
  render();
  animate();
  if (!running()) $(".oc-live").textContent = say(view.text) + ". " + say(view.note || "");
}

// --- once -------------------------------------------------------------------------------------------------------------

$(".oc-play").addEventListener("click", () => setPlaying(!state.playing));
$(".oc-back").addEventListener("click", () => stepBy(-1));
$(".oc-forth").addEventListener("click", () => stepBy(1));
seek.addEventListener("input", () => {
  setPlaying(false);
  seekTo(Number(seek.value));
});
$(".oc-speed").addEventListener("change", (event) => (state.speed = Number(event.target.value)));
$(".oc-loop").addEventListener("change", (event) => (state.loop = event.target.checked));
const wipe = $(".oc-wipe");
wipe.addEventListener("input", () => {
  state.wipe = Number(wipe.value) / 100;
  drawPair();
});
for (const button of element.querySelectorAll(".oc-mode")) {
  button.addEventListener("click", () => {
    state.mode = button.dataset.mode;
    for (const other of element.querySelectorAll(".oc-mode")) other.setAttribute("aria-pressed", String(other === button));
    wipe.hidden = state.mode !== "wipe";
    drawPair();
  });
}
const keys = (event) => {
  if (!element.isConnected) return document.removeEventListener("keydown", keys);
  const target = event.target instanceof Element ? event.target : document.body;
  if (!root.offsetParent || !state.view || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.closest("input, textarea, select, [contenteditable], [role=slider], [role=combobox]")) return;
  if (event.key === " " && target.closest("button, a, summary")) return;
  const act = { " ": () => setPlaying(!state.playing), ArrowLeft: () => stepBy(-1), ArrowRight: () => stepBy(1) }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
};
document.addEventListener("keydown", keys);
setPlaying(state.playing);
watch("value", receive);
watch("about", render);
receive();
if (!memory.asked) {
  memory.asked = true;
  if (known().length) trigger("restore", { jobs: known() });
}
