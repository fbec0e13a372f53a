// The body of a function (element, props, watch), run once when the scope appears. It draws the value of ui/scope.py:
// a step's images are cut here, and everything one points at is answered without asking the server.
const { say, sayAll, make, vector, clamp } = window.openSora;
sayAll(element);
const $ = (selector) => element.querySelector(selector);
const root = $(".os-scope"), map = $(".os-scope-map"), box = $(".os-scope-box"), grid = $(".os-scope-grid");
const sheet = $(".os-scope-sheet"), play = $(".os-scope-play"), charts = $(".os-scope-charts");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
// `at` is what is shown, `pin` where it was last put: pointing only borrows the view. `follow`: stay at the newest step.
const state = {
  view: null, steps: [], quantity: "e", channel: 0, at: { step: 0, frame: 0 }, pin: { step: 0, frame: 0 },
  follow: true, since: null, waiting: false, cell: [0, 0],
};

const known = (value) => value !== null && value !== undefined;
const fixed = (digits) => (value) => (known(value) ? value.toFixed(digits) : "–");

// --- what there is to see ----------------------------------------------------------------------------------------

const QUANTITIES = [
  { key: "x", name: "x", about: "noisy input", hint: "x is the noisy latent the network is given." },
  { key: "e", name: "x0", about: "guided", hint: "The clean latent that the guided prediction speaks of: where the run is heading." },
  { key: "c", name: "x0", about: "prompt branch", hint: "Where the run would head if only the prompt branch were asked." },
  { key: "u", name: "x0", about: "null branch", hint: "Where it would head without the prompt, or with the negative prompt in its place." },
  { key: "d", name: "difference", about: "", hint: "How far the two branches' x0 are apart, RMS over channels: black is none, white is the peak of that step." },
  { key: "k", name: "channel", about: "of guided x0", hint: "One channel of the guided x0: black is -3, grey 0, white +3 standard deviations." },
];
const CHARTS = [
  {
    title: "Guidance scale", note: "What was asked for, and what the result measures.", low: 0, digits: 2,
    lines: [["asked", "os-line-b", (s) => s.g], ["measured", "os-line-a", (s) => s.a]],
  },
  {
    title: "Prediction size", note: "RMS of each branch and of their difference.", low: 0, digits: 3,
    lines: [["prompt", "os-line-c", (s) => s.n[0]], ["null", "os-line-b", (s) => s.n[1]], ["difference", "os-line-a", (s) => s.n[2]]],
  },
  {
    title: "Cosine", note: "Between the branches; at 1 the prompt changes nothing.", high: 1, digits: 4,
    lines: [["prompt and null", "os-line-a", (s) => s.cos]],
  },
  {
    title: "Noise level t", note: "From 1, only noise, to 0, only video.", low: 0, high: 1, digits: 3,
    lines: [["t", "os-line-a", (s) => s.t]],
  },
  {
    title: "Time", note: "Computing of each step, in milliseconds.", low: 0, digits: 0,
    lines: [["ms", "os-line-a", (s) => s.ms]],
  },
];

for (const quantity of QUANTITIES) for (const key of ["name", "about", "hint"]) quantity[key] = say(quantity[key]);
for (const chart of CHARTS) {
  chart.title = say(chart.title);
  chart.note = say(chart.note);
  for (const line of chart.lines) line[0] = say(line[0]);
}

// The part of a step's image that shows a quantity at a latent frame; null where there is none, undefined while the
// browser still decodes it.
function part(entry, quantity, frame, channel) {
  const row = quantity === "k" ? channel : entry.q.indexOf(quantity);
  if (row < 0) return null;
  const image = quantity === "k" ? entry.channels : entry.pictures;
  if (!image.complete || !image.naturalWidth) return undefined;
  const w = image.naturalWidth / state.view.latent, h = image.naturalHeight / (quantity === "k" ? state.view.channels : entry.q.length);
  return [image, frame * w, row * h, w, h];
}

// Latent positions are drawn as the squares they are; only what has to shrink is smoothed.
function put(pen, cut, x, y, w, h) {
  pen.imageSmoothingEnabled = cut[3] > w * (window.devicePixelRatio || 1);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(...cut, x, y, w, h);
}

// A canvas of w x h CSS pixels, cleared where it changed its size; its pen counts in CSS pixels. A tall one is kept
// coarser, for browsers refuse canvases beyond some size.
function sized(canvas, w, h) {
  const scale = Math.min(window.devicePixelRatio || 1, 8192 / Math.max(w, h)), pen = canvas.getContext("2d");
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    canvas.style.width = w + "px";
    canvas.style.height = h + "px";
  }
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  return pen;
}

// --- the map: steps down, video time across ----------------------------------------------------------------------

const GUTTER = 32, ROW_MIN = 20, ROW_MAX = 56;

// Room for every step of the run, from the first value on.
function layOut() {
  const view = state.view, width = root.clientWidth;
  if (!view || !width) return;
  const wide = width >= 760, height = wide ? 512 : 384, room = (wide ? width / 2 : width) - GUTTER - 16;
  let h = clamp(Math.floor(height / view.total), ROW_MIN, ROW_MAX);
  const w = Math.max(Math.floor(Math.min(h * view.aspect, room / view.latent)), 2);
  h = Math.max(Math.round(w / view.aspect), 6);
  state.cell = [w, h];
  root.classList.toggle("os-scope-narrow", !wide);
  root.classList.toggle("os-scope-tight", !wide || width - GUTTER - w * view.latent < 760); // the readout in two rows
  root.style.setProperty("--os-aspect", String(view.aspect));
  grid.style.width = w * view.latent + "px";
  grid.style.height = h * view.total + "px";
  box.style.maxHeight = height + 8 + "px";
  sized(grid.firstElementChild, w * view.latent, h * view.total);
  const every = Math.ceil(16 / h), labels = [];
  for (let i = 0; i < view.total; i += every) {
    const label = make("span", undefined, String(i + 1));
    label.style.top = (i + 0.5) * h + "px";
    labels.push(label);
  }
  $(".os-scope-rows").replaceChildren(...labels);
  state.steps.forEach((_, i) => drawRow(i));
}

function drawRow(i) {
  const [w, h] = state.cell, view = state.view;
  if (!w) return;
  const pen = sized(grid.firstElementChild, w * view.latent, h * view.total), gap = w >= 8 && h >= 8 ? 1 : 0;
  if (part(state.steps[i], state.quantity, 0, state.channel) === undefined) return;
  pen.clearRect(0, i * h, w * view.latent, h);
  for (let frame = 0; frame < view.latent; frame++) {
    const cut = part(state.steps[i], state.quantity, frame, state.channel);
    if (cut) put(pen, cut, frame * w, i * h, w - gap, h - gap);
  }
}

function drawMap() {
  state.steps.forEach((_, i) => drawRow(i));
}

// The box scrolls by itself; the page stays where it is.
function reveal() {
  const top = state.at.step * state.cell[1], bottom = top + state.cell[1];
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

// --- the readout -------------------------------------------------------------------------------------------------

const figures = QUANTITIES.map((quantity) => {
  const node = make("button", "os-scope-figure"), screen = make("span", "os-scope-screen");
  const figure = { ...quantity, node, canvas: make("canvas"), missing: make("span", "os-scope-missing"), title: make("span", "os-scope-name", quantity.name), small: make("span", "os-scope-small", quantity.about) };
  node.type = "button";
  node.setAttribute("role", "radio");
  node.title = quantity.hint;
  screen.append(figure.canvas, figure.missing);
  node.append(screen, figure.title, figure.small);
  node.addEventListener("click", () => choose(quantity.key));
  return figure;
});
$(".os-scope-readout").append(...figures.map((figure) => figure.node));
$(".os-scope-readout").addEventListener("keydown", (event) => {
  const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!move) return;
  event.preventDefault();
  const at = figures.findIndex((figure) => figure.key === state.quantity), next = figures[(at + move + figures.length) % figures.length];
  choose(next.key);
  next.node.focus();
});

function choose(key) {
  state.quantity = key;
  drawMap();
  update();
}

function absent(key, entry) {
  if (key === "d") return "needs both branches";
  return "not evaluated: its weight is 0" + (key === "u" && entry.g === 1 ? " at guidance 1" : "");
}

function showFigures(entry) {
  for (const figure of figures) {
    const chosen = figure.key === state.quantity, cut = part(entry, figure.key, state.at.frame, state.channel);
    figure.node.setAttribute("aria-checked", String(chosen));
    figure.node.tabIndex = chosen ? 0 : -1;
    if (figure.key === "d") figure.small.textContent = say(known(entry.peak) ? "peak " + entry.peak.toFixed(3) : "of the branches");
    if (figure.key === "k") figure.title.textContent = say("channel " + (state.channel + 1));
    figure.missing.textContent = cut === null ? absent(figure.key, entry) : "";
    const w = figure.canvas.parentNode.clientWidth, h = figure.canvas.parentNode.clientHeight;
    if (cut === undefined || !w) continue;
    const pen = sized(figure.canvas, w, h);
    pen.clearRect(0, 0, w, h);
    if (cut) put(pen, cut, 0, 0, w, h);
  }
  $(".os-scope-hint").textContent = QUANTITIES.find((quantity) => quantity.key === state.quantity).hint;
}

// --- the channels ------------------------------------------------------------------------------------------------

function sheetCells() {
  const count = state.view.channels, columns = count <= 4 ? count : count <= 32 ? 8 : 16;
  const w = Math.floor(Math.min($(".os-scope-channels").clientWidth / columns, 112 * Math.max(state.view.aspect, 1)));
  return { count, columns, w, h: Math.max(Math.round(w / state.view.aspect), 4) };
}

function showChannels(entry) {
  const { count, columns, w, h } = sheetCells();
  if (w <= 0 || part(entry, "k", 0, 0) === undefined) return;
  const height = Math.ceil(count / columns) * h, pen = sized(sheet.firstElementChild, columns * w, height);
  pen.clearRect(0, 0, columns * w, height);
  for (let k = 0; k < count; k++) {
    put(pen, part(entry, "k", state.at.frame, k), (k % columns) * w, Math.floor(k / columns) * h, w - 1, h - 1);
  }
  sheet.style.width = columns * w + "px";
  sheet.style.height = height + "px";
  place(sheet.lastElementChild, (state.channel % columns) * w, Math.floor(state.channel / columns) * h, w, h);
  const text = "channel " + (state.channel + 1) + " of " + count;
  $(".os-scope-title").textContent = say("Channels of guided x0, " + text + " chosen");
  sheet.setAttribute("aria-valuemax", String(count));
  sheet.setAttribute("aria-valuenow", String(state.channel + 1));
  sheet.setAttribute("aria-valuetext", text);
}

function pickChannel(index) {
  state.channel = clamp(index, 0, state.view.channels - 1);
  choose("k");
}
const channelAt = (event) => {
  const bounds = sheet.getBoundingClientRect(), { columns, w, h } = sheetCells();
  return Math.floor((event.clientY - bounds.top) / h) * columns + clamp(Math.floor((event.clientX - bounds.left) / w), 0, columns - 1);
};
sheet.addEventListener("pointerdown", (event) => {
  sheet.setPointerCapture(event.pointerId);
  pickChannel(channelAt(event));
});
sheet.addEventListener("pointermove", (event) => {
  if (event.buttons) pickChannel(channelAt(event));
});
sheet.addEventListener("keydown", (event) => {
  const { count, columns } = sheetCells(), at = state.channel;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: count - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  if (to >= 0 && to < count) pickChannel(to);
});

// --- the curves --------------------------------------------------------------------------------------------------

const plots = CHARTS.map((chart) => {
  const node = make("figure", "os-scope-chart"), head = make("figcaption"), numbers = make("span", "os-scope-numbers");
  const plot = make("div", "os-scope-plot"), svg = vector("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const cursor = make("i", "os-scope-cursor"), top = make("span", "os-scope-top"), bottom = make("span", "os-scope-bottom");
  const paths = chart.lines.map(([, className]) => vector("path", { class: className }));
  const values = chart.lines.map(([name, className]) => {
    const value = make("b"), item = make("span"), mark = make("i", className);
    item.append(mark, name + " ", value);
    numbers.append(item);
    return value;
  });
  plot.setAttribute("role", "img");
  svg.append(...paths);
  plot.append(svg, cursor, top, bottom);
  head.append(make("span", "os-scope-title", chart.title), numbers);
  node.append(head, plot, make("p", "os-scope-note", chart.note));
  const stepAt = (event) => {
    const bounds = plot.getBoundingClientRect();
    return Math.floor(((event.clientX - bounds.left) / bounds.width) * state.view.total);
  };
  plot.addEventListener("pointermove", (event) => point(stepAt(event), state.at.frame, event.buttons > 0));
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    point(stepAt(event), state.at.frame, true);
  });
  plot.addEventListener("pointerleave", release);
  charts.append(node);
  return { ...chart, node, svg, paths, values, cursor, top, bottom, plot };
});

function drawCharts() {
  const total = state.view.total;
  for (const chart of plots) {
    const numbers = chart.lines.map(([, , of]) => state.steps.map(of)), all = numbers.flat().filter(known);
    const high = chart.high ?? Math.max(...all, 1e-9);
    let low = chart.low ?? Math.min(...all, high);
    low = Math.min(low, ...all);
    const range = high - low || 1, show = fixed(chart.digits);
    chart.svg.setAttribute("viewBox", "0 0 " + total + " 100");
    chart.paths.forEach((path, k) => {
      let d = "", before = false;
      numbers[k].forEach((value, i) => {
        if (known(value)) d += (before ? "L" : "M") + (i + 0.5) + "," + (100 - ((value - low) / range) * 100).toFixed(2) + (before ? "" : "h0.01");
        before = known(value);
      });
      path.setAttribute("d", d);
    });
    chart.top.textContent = all.length ? show(high) : "";
    chart.bottom.textContent = all.length ? show(low) : "";
    chart.node.classList.toggle("os-scope-none", !all.length);
  }
}

function showNumbers(entry) {
  for (const chart of plots) {
    const show = fixed(chart.digits), words = chart.lines.map(([name, , of], k) => {
      chart.values[k].textContent = show(of(entry));
      return name + " " + (known(of(entry)) ? show(of(entry)) : "not known");
    });
    chart.cursor.style.left = ((state.at.step + 0.5) / state.view.total) * 100 + "%";
    chart.plot.setAttribute("aria-label", chart.title + " at step " + entry.i + ": " + words.join(", "));
  }
}

// --- the cursor --------------------------------------------------------------------------------------------------

function place(node, x, y, w, h) {
  node.style.transform = "translate(" + x + "px," + y + "px)";
  node.style.width = w + "px";
  node.style.height = h + "px";
}

// Everything that depends on the chosen step, frame, quantity or channel, at most once a frame of the screen.
function update() {
  if (state.waiting) return;
  state.waiting = true;
  requestAnimationFrame(() => {
    state.waiting = false;
    const view = state.view;
    if (!view || !root.clientWidth) return;
    const { step, frame } = state.at, entry = state.steps[step], [w, h] = state.cell;
    place(grid.lastElementChild, frame * w, step * h, w, h);
    const where = "step " + entry.i + " of " + view.total + (view.latent > 1 ? ", latent frame " + (frame + 1) + " of " + view.latent : "");
    const numbers = "noise " + Math.round(entry.t * 100) + " %, guidance " + fixed(2)(entry.g).replace(/\.?0+$/, "");
    $(".os-scope-at").textContent = say(where) + "  ·  " + say(numbers);
    grid.setAttribute("aria-valuemax", String(view.total));
    grid.setAttribute("aria-valuenow", String(entry.i));
    grid.setAttribute("aria-valuetext", where + ", " + numbers);
    showFigures(entry);
    showChannels(entry);
    showNumbers(entry);
  });
}

// Look at a step and frame; `pin` to stay there.
function point(step, frame, pin) {
  if (!state.steps.length) return;
  const last = state.steps.length - 1;
  state.at = { step: clamp(step, 0, last), frame: clamp(frame, 0, state.view.latent - 1) };
  if (pin) {
    state.pin = { ...state.at };
    state.follow = state.at.step === last;
  }
  update();
}
function release() {
  state.at = { ...state.pin, frame: state.since === null ? state.pin.frame : state.at.frame };
  update();
}

const cellAt = (event) => {
  const bounds = grid.getBoundingClientRect(), [w, h] = state.cell;
  const frame = state.since === null || event.buttons ? Math.floor((event.clientX - bounds.left) / w) : state.at.frame;
  return [Math.floor((event.clientY - bounds.top) / h), frame];
};
grid.addEventListener("pointermove", (event) => point(...cellAt(event), event.buttons > 0));
grid.addEventListener("pointerdown", (event) => {
  grid.setPointerCapture(event.pointerId);
  stop();
  point(...cellAt(event), true);
});
grid.addEventListener("pointerleave", release);
grid.addEventListener("keydown", (event) => {
  const { step, frame } = state.at;
  const to = {
    ArrowUp: [step - 1, frame], ArrowDown: [step + 1, frame], ArrowLeft: [step, frame - 1], ArrowRight: [step, frame + 1],
    PageUp: [step - 10, frame], PageDown: [step + 10, frame], Home: [0, frame], End: [Infinity, frame],
  }[event.key];
  if (!to) return;
  event.preventDefault();
  if (to[1] !== frame) stop();
  point(...to, true);
  reveal();
});

// --- playing -----------------------------------------------------------------------------------------------------

function stop() {
  state.since = null;
  play.setAttribute("aria-pressed", "false");
  play.textContent = say("Play");
  state.pin.frame = state.at.frame;
}

// Frame by frame at the clip's own pace; where less motion is asked for, a frame a second at most.
function tick(now) {
  if (state.since === null || !element.isConnected) return;
  const pace = Math.max(state.view.seconds / state.view.latent, still.matches ? 1 : 0.04);
  const frame = Math.floor((now - state.since) / 1000 / pace) % state.view.latent;
  if (frame !== state.at.frame) {
    state.at = { ...state.at, frame };
    update();
  }
  requestAnimationFrame(tick);
}
play.addEventListener("click", () => {
  if (state.since !== null) return stop();
  state.since = performance.now();
  play.setAttribute("aria-pressed", "true");
  play.textContent = say("Pause");
  requestAnimationFrame(tick);
});

// --- a value arrives ---------------------------------------------------------------------------------------------

function load(source, then) {
  const image = new Image();
  image.onload = then;
  image.src = source;
  return image;
}

function receive() {
  const view = props.value;
  // Until the first step of a new run is there, the run before it stays.
  if (!view || !view.steps.length || (state.view && view.run < state.view.run)) return;
  const fresh = !state.view || state.view.run !== view.run, grown = fresh || view.total !== state.view.total;
  if (fresh) {
    stop();
    state.steps = [];
    state.follow = true;
    state.at = { step: 0, frame: Math.floor((view.latent - 1) / 2) };
    state.pin = { ...state.at };
    state.channel = Math.min(state.channel, view.channels - 1);
    box.scrollTop = 0;
  }
  state.view = view;
  root.dataset.state = view.done ? "done" : "running";
  $(".os-scope-prompt").textContent = view.prompt;
  play.hidden = view.latent < 2;
  for (let i = state.steps.length; i < view.steps.length; i++) {
    const { p, k, ...numbers } = view.steps[i];
    const arrived = () => {
      if (state.steps[i] !== entry) return;
      drawRow(i);
      if (state.at.step === i) update();
    };
    const entry = { ...numbers, pictures: load(p, () => arrived()), channels: load(k, () => arrived()) };
    state.steps.push(entry);
  }
  if (grown) layOut();
  drawCharts();
  if (state.follow) {
    const step = state.steps.length - 1, borrowed = grid.matches(":hover") || charts.matches(":hover");
    state.pin.step = step;
    if (!borrowed) {
      state.at.step = step;
      reveal();
    }
  }
  update();
}

new ResizeObserver(() => {
  layOut();
  update();
}).observe(root);
watch("value", receive);
receive();
