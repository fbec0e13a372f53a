// The body of a function (element, trigger, props, server, upload, watch), run once when the figures appear.
// Text that a person wrote (the prompt, its words) is only ever set with textContent.
const { say, sayAll, clamp } = window.openSora;
const written = window.openSora.make; // for what a person wrote; these two are for words of ours
const make = (tag, className, text) => written(tag, className, text === undefined ? text : say(text));
const vector = (tag, attributes, text) => window.openSora.vector(tag, attributes, text === undefined ? text : say(text));
sayAll(element);
const root = element.querySelector(".ox"), $ = (selector) => root.querySelector(selector);
const FIGURES = ["tokens", "attention", "coding", "flow", "guidance"];
// What outlives a rebuilt element: whether this page has asked for a first run, and what has been picked.
const memory = ((window.openSoraDemo ||= {}).explain ||= { asked: false, pick: {} });
const pick = memory.pick;
let view = null;
const drawn = {}; // figure -> run it was drawn for

// --- small things ------------------------------------------------------------------------------------------------

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const fractions = (text) => new Uint16Array(bytes(text).buffer);
const whole = (text) => new Int16Array(bytes(text).buffer);
const largest = (list) => list.reduce((a, b) => Math.max(a, b), 0);
const two = (x) => x.toFixed(2);
const grouped = (x) => x.toLocaleString("en");
const polyline = (points) => "M" + points.map(([x, y]) => x.toFixed(1) + " " + y.toFixed(1)).join("L");

// A row of buttons of which one is pressed; `at` is kept in `pick`.
function options(label, names, key, start, act) {
  const box = make("div", "ox-pick"), list = make("div", "ox-options"), nodes = [];
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", say(label));
  const press = (i) => {
    pick[key] = i;
    nodes.forEach((node, k) => node.setAttribute("aria-pressed", String(k === i)));
  };
  names.forEach((name, i) => {
    const node = make("button", "ox-option", name);
    node.type = "button";
    node.addEventListener("click", () => {
      press(i);
      act();
    });
    nodes.push(node);
  });
  press(clamp(pick[key] ?? start, 0, names.length - 1));
  list.append(...nodes);
  box.append(make("span", "", label), list);
  return box;
}

function slider(label, low, high, step, key, start, tell, act) {
  const box = make("label", "ox-slide"), input = make("input"), out = make("output");
  Object.assign(input, { type: "range", min: low, max: high, step, ariaLabel: say(label) });
  const show = () => {
    out.textContent = say(tell(pick[key]));
    input.setAttribute("aria-valuetext", out.textContent);
  };
  pick[key] = clamp(pick[key] ?? start, low, high);
  input.value = pick[key];
  input.addEventListener("input", () => {
    pick[key] = Number(input.value);
    show();
    act();
  });
  show();
  box.append(make("span", "", label), input, out);
  return box;
}

// One frame of a small picture {n, h, w, rgb}; smooth or as places.
function paint(canvas, picture, frame, smooth) {
  picture.data ||= bytes(picture.rgb);
  const { h, w, data } = picture, image = new ImageData(w, h), from = frame * h * w * 3;
  for (let i = 0; i < h * w; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = data[from + 3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  canvas.width = w;
  canvas.height = h;
  canvas.style.imageRendering = smooth ? "auto" : "pixelated";
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function tile(h, w, label) {
  const box = make("div", "ox-frame"), frame = make("div", "ox-tile"), canvas = make("canvas");
  frame.style.aspectRatio = w + " / " + h;
  frame.append(canvas);
  box.append(frame);
  const name = make("span", "", label || "");
  box.append(name);
  return { box, frame, canvas, name };
}

// A chart that is drawn anew for every width, so that its text keeps its size; at most H high, lower where it is narrow.
function chartOf(H, label, act) {
  const node = vector("svg", { class: "ox-svg", role: "img", "aria-label": say(label), height: H });
  let width = 0;
  const draw = () => {
    if (!node.clientWidth && !width) return;
    width = node.clientWidth || width;
    const height = Math.min(H, Math.round(width * 0.56));
    node.setAttribute("height", height);
    node.setAttribute("viewBox", "0 0 " + width + " " + height);
    act(node, width, height);
  };
  new ResizeObserver(() => node.clientWidth !== width && draw()).observe(node);
  return { node, draw };
}

// At most `most` of n indices, evenly spread, ends included.
const spread = (n, most) => [...new Set(Array.from({ length: Math.min(n, most) }, (_, i) => Math.round((i * (n - 1)) / Math.max(Math.min(n, most) - 1, 1))))];

function facts(pairs) {
  const list = make("dl", "ox-facts");
  for (const [name, value] of pairs) list.append(make("dt", "", name), make("dd", "", value));
  return list;
}

// --- 1: tokens and modulation ------------------------------------------------------------------------------------

function drawTokens(body, data, all) {
  const flow = all.flow, first = flow.noisy[0], [, gh, gw] = data.grid;
  const shown = spread(first.n, 5).map((i) => ({ i, ...tile(first.h, first.w, "latent frame " + (i + 1)) }));
  const frames = make("div", "ox-frames");
  for (const { frame, box } of shown) {
    const lines = vector("svg", { viewBox: "0 0 " + gw + " " + gh, preserveAspectRatio: "none", "aria-hidden": "true" });
    let path = "";
    for (let x = 1; x < gw; x++) path += "M" + x + " 0V" + gh;
    for (let y = 1; y < gh; y++) path += "M0 " + y + "H" + gw;
    lines.append(vector("path", { d: path }));
    frame.append(lines);
    frames.append(box);
  }

  const label = (curve) => (curve.of ? curve.name + " " + curve.of : curve.name);
  const parts = [...new Set(data.curves.map((c) => c.part))], names = [...new Set(data.curves.map(label))];
  const layers = Math.max(...data.curves.map((c) => c.layer)) + 1;
  const titles = { attention: "Attention", mlp: "MLP", "attention and mlp": "Attention and MLP" };
  const charts = make("div", "ox-charts"), keys = make("div", "ox-keys");
  const H = 168, L = 32, B = 24, last = data.times.length - 1;
  const X = (i, W) => L + (i / last) * (W - L - 4);
  const style = (curve, node) => {
    node.setAttribute("stroke-opacity", (0.35 + (0.65 * (curve.layer + 1)) / layers).toFixed(2));
    if (curve.dashed) node.setAttribute("stroke-dasharray", "4 3");
  };
  const kept = { charts: [], chips: new Map() };
  const kinds = ["gate", "scale", "shift"], modes = ["size", "change since t = 1"];

  function plot() {
    const kind = kinds[pick.vector], mode = pick.mode;
    const top = Math.max(...data.curves.map((c) => largest(c[kind][mode]))) * 1.05 || 1;
    const Y = (v) => 8 + (1 - v / top) * (H - B - 8);
    kept.charts = parts.map((part) => chartOf(H, kind + " of every block's " + part + " over flow time", (chart, W) => {
      chart.replaceChildren(vector("path", { class: "ox-axis", d: "M" + L + " 8V" + (H - B) + "H" + (W - 4) }));
      for (const [v, y] of [[0, H - B], [top / 1.05, Y(top / 1.05)]]) chart.append(vector("text", { x: L - 6, y: y + 4, "text-anchor": "end" }, v.toFixed(v < 1 ? 2 : 1)));
      for (const [t, text, anchor] of [[1, "t = 1, noise", "start"], [0.5, "0.5", "middle"], [0, "0, clip", "end"]]) {
        chart.append(vector("text", { x: X((1 - t) * last, W), y: H - 6, "text-anchor": anchor }, text));
      }
      for (const curve of data.curves.filter((c) => c.part === part)) {
        const line = vector("path", { class: "ox-line", d: polyline(curve[kind][mode].map((v, i) => [X(i, W), Y(v)])) });
        style(curve, line);
        line.classList.toggle("ox-on", label(curve) === pick.block);
        line.classList.toggle("ox-off", Boolean(pick.block) && label(curve) !== pick.block);
        chart.append(line);
      }
      chart.append(vector("path", { class: "ox-marker", d: "M" + X(pick.time, W).toFixed(1) + " 8V" + (H - B) }));
    }));
    charts.replaceChildren(...parts.map((part, i) => {
      const box = make("div", "ox-chart");
      box.append(make("span", "", titles[part]), kept.charts[i].node);
      return box;
    }));
    follow();
  }
  function follow() {
    const i = pick.time, t = data.times[i], kind = kinds[pick.vector];
    for (const chart of kept.charts) chart.draw();
    // The run's own step nearest to this time; behind the last one, where it arrived.
    let step = 0;
    flow.times.forEach((time, k) => (step = Math.abs(time - t) < Math.abs(flow.times[step] - t) ? k : step));
    const end = t < flow.times[flow.times.length - 1] / 2;
    for (const { i: frame, canvas } of shown) paint(canvas, end ? flow.clean[flow.clean.length - 1] : flow.noisy[step], frame, false);
    for (const [name, { node, value }] of kept.chips) {
      const own = data.curves.filter((c) => label(c) === name);
      value.textContent = own.map((c) => two(c[kind][pick.mode][i])).join(" / ");
      node.setAttribute("aria-pressed", String(name === pick.block));
    }
  }

  if (!names.includes(pick.block)) pick.block = null;
  for (const name of names) {
    const node = make("button", "ox-option ox-key"), value = make("small"), curve = data.curves.find((c) => label(c) === name);
    const sample = vector("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" }), line = vector("path", { class: "ox-line", d: "M0 4H20" });
    node.type = "button";
    style(curve, line);
    sample.append(line);
    node.append(sample, make("span", "", name), value);
    node.addEventListener("click", () => {
      pick.block = pick.block === name ? null : name;
      follow();
    });
    kept.chips.set(name, { node, value });
    keys.append(node);
  }
  const row = make("div", "ox-row");
  row.append(options("Vector", kinds, "vector", 0, plot), options("Shown", modes, "mode", 0, plot));
  body.append(
    frames,
    slider("Flow time", 0, last, 1, "time", Math.round(last * 0.4), (i) => "t = " + two(data.times[i]), () => follow()),
    row, charts, keys,
    make("p", "ox-note", "Root mean square over a vector's channels, for each block; the deeper the block, the stronger its line; dashed is over time. Press a block to follow it."),
  );
  plot();
}

// --- 2: attention ------------------------------------------------------------------------------------------------

function drawAttention(body, data) {
  const [T, gh, gw] = data.grid, s = gh * gw, n = T * s, words = data.words.length;
  for (const look of data.looks) for (const map of look.maps) map.data ||= fractions(map.w);
  const layers = Math.max(...data.looks[0].maps.map((m) => m.layer)) + 1;
  // Averages over heads, or one: `at` gives the offset of the row for a head.
  const row = (map, at, length) => {
    const heads = pick.head > 0 ? [pick.head - 1] : Array.from({ length: data.heads }, (_, h) => h), out = new Array(length).fill(0);
    for (const head of heads) {
      const from = at(head) * length;
      for (let k = 0; k < length; k++) out[k] += map.data[from + k] / 65535 / heads.length;
    }
    return out;
  };
  const row_of = {
    space: (map, f, p) => row(map, (h) => (f * data.heads + h) * s + p, s),
    time: (map, f, p) => row(map, (h) => (p * data.heads + h) * T + f, T),
    all: (map, f, p) => row(map, (h) => h * n + f * s + p, n),
    text: (map, f, p) => row(map, (h) => h * n + f * s + p, words),
  };
  let token = pick.token;
  if (!token || token.f >= T || token.y >= gh || token.x >= gw) token = pick.token = { f: T >> 1, y: gh >> 1, x: gw >> 1 };

  const frames = make("div", "ox-frames"), tiles = [], cells = [];
  frames.setAttribute("role", "listbox");
  frames.setAttribute("aria-label", say("Patches of the clip"));
  for (let f = 0; f < T; f++) {
    const made = tile(gh, gw, "latent frame " + (f + 1)), grid = make("div", "ox-cells");
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", say("latent frame " + (f + 1)));
    grid.style.gridTemplate = "repeat(" + gh + ", 1fr) / repeat(" + gw + ", 1fr)";
    for (let y = 0; y < gh; y++) for (let x = 0; x < gw; x++) {
      const cell = make("button", "ox-cell");
      cell.type = "button";
      cell.tabIndex = -1;
      cell.setAttribute("role", "option");
      cell.setAttribute("aria-label", say("frame " + (f + 1) + ", row " + (y + 1) + ", column " + (x + 1)));
      cell.addEventListener("click", () => choose(f, y, x));
      cells.push(cell);
      grid.append(cell);
    }
    made.canvas.className = "ox-dim";
    made.frame.append(grid);
    tiles.push(made);
    frames.append(made.box);
  }
  frames.addEventListener("keydown", (event) => {
    let { f, y, x } = token;
    if (event.key === "ArrowLeft") x -= 1;
    else if (event.key === "ArrowRight") x += 1;
    else if (event.key === "ArrowUp") y -= 1;
    else if (event.key === "ArrowDown") y += 1;
    else if (event.key === "PageUp") f -= 1;
    else if (event.key === "PageDown") f += 1;
    else return;
    event.preventDefault();
    if (x < 0 && f > 0) [f, x] = [f - 1, gw - 1]; // over the edge lies the next frame
    if (x >= gw && f < T - 1) [f, x] = [f + 1, 0];
    choose(clamp(f, 0, T - 1), clamp(y, 0, gh - 1), clamp(x, 0, gw - 1));
    cells[token.f * s + token.y * gw + token.x].focus();
  });
  function choose(f, y, x) {
    token = pick.token = { f, y, x };
    show();
  }

  const reads = make("div", "ox-reads"), note = make("p", "ox-note ox-num");
  note.setAttribute("aria-live", "polite");
  function show() {
    const look = data.looks[pick.look], maps = look.maps.filter((m) => m.layer === pick.layer);
    const { f, y, x } = token, p = y * gw + x, own = f * s + p, light = new Array(n).fill(0), seen = new Array(n).fill(false), said = [];
    for (const map of maps) {
      if (map.kind === "text") continue;
      const weights = row_of[map.kind](map, f, p), most = largest(weights) || 1;
      const where = map.kind === "space" ? (k) => f * s + k : map.kind === "time" ? (k) => k * s + p : (k) => k;
      weights.forEach((weight, k) => {
        const at = where(k);
        // The patch itself stands in both attentions; its own place shows what it gives itself within the frame.
        if (map.kind === "time" && at === own && maps.some((m) => m.kind === "space")) return;
        light[at] = Math.max(light[at], weight / most);
        seen[at] = true;
        cells[at].title = weight.toFixed(3);
      });
      said.push(say({ space: "in its frame", time: "over time", all: "anywhere" }[map.kind] + " " + two(most)));
    }
    cells.forEach((cell, i) => {
      cell.style.background = seen[i] ? "rgb(79 191 178 / " + (0.9 * light[i]).toFixed(3) + ")" : "rgb(7 9 11 / 45%)";
      if (!seen[i]) cell.title = say("out of reach");
      cell.setAttribute("aria-selected", String(i === own));
      cell.tabIndex = i === own ? 0 : -1;
    });

    const texts = maps.filter((m) => m.kind === "text"), order = maps.filter((m) => m.kind !== "text").map((m) => m.kind);
    const rows = texts.map((map) => row_of.text(map, f, p)), most = largest(rows.flat()) || 1;
    if (rows.length && data.shared) said.push(say("to words in all " + two(rows[0].reduce((a, b) => a + b, 0))));
    note.textContent = say("Brightest: ") + said.join(say(", ")) + say(".") + (texts.length ? say(" A word's token has read its neighbours in the text encoder, so it may speak for them too.") : "");
    if (!rows.length) return;
    const titles = rows.length === 1 ? ["Reads"] : order.map((kind) => "After " + (kind === "space" ? "space" : "time"));
    rows.forEach((weights, r) => {
      let list = reads.children[2 * r + 1];
      if (!list) {
        list = make("div", "ox-chips");
        data.words.forEach((word, k) => {
          const chip = make("span", "ox-chip");
          const mark = k >= words - 2 && ["end", "padding"].includes(word) && (k === words - 1 || data.words[words - 1] === "padding");
          if (mark) chip.classList.add("ox-mark");
          chip.append(written("b", "", word), make("small"), make("i"));
          list.append(chip);
        });
        reads.append(make("span"), list);
      }
      reads.children[2 * r].textContent = say(titles[r] || "Reads");
      weights.forEach((weight, k) => {
        const chip = list.children[k];
        chip.children[1].textContent = two(weight);
        chip.children[2].style.transform = "scaleX(" + (weight / most).toFixed(3) + ")";
        chip.dataset.weight = weight.toFixed(4);
      });
    });
    while (reads.children.length > 2 * rows.length) reads.lastChild.remove();
  }

  const controls = make("div", "ox-row");
  controls.append(
    options("Layer", Array.from({ length: layers }, (_, i) => String(i + 1)), "layer", 0, show),
    ...(data.heads > 1 ? [options("Head", ["mean", ...Array.from({ length: data.heads }, (_, i) => String(i + 1))], "head", 0, show)] : []),
    options("t", data.looks.map((look) => two(look.t)), "look", 1, show),
  );
  if (data.heads === 1) pick.head = 0;
  body.append(controls, frames, reads, note);
  paintClip = (shown) => {
    const image = new Image();
    image.onload = () => tiles.forEach(({ canvas }, f) => {
      const w = image.naturalWidth / shown.n, h = image.naturalHeight;
      canvas.width = w;
      canvas.height = h;
      canvas.getContext("2d").drawImage(image, f * w, 0, w, h, 0, 0, w, h);
    });
    image.src = shown.uri;
  };
  show();
}
let paintClip = () => {};

// --- 3: the codec ------------------------------------------------------------------------------------------------

function drawCoding(body, data) {
  const frames = data.stages[0].picture.n, lanes = make("div", "ox-lanes"), painters = [];
  const titles = { clip: "Clip", "2-D latents": "2-D latents", latents: "Latents", decoded: "Decoded" };
  for (const stage of data.stages) {
    const name = make("div", "ox-lane-name"), canvas = make("canvas", "ox-lane"), picture = stage.picture;
    name.append(make("b", "", titles[stage.name]), make("span", "", stage.size), make("span", "", grouped(stage.values) + " numbers"));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", say(titles[stage.name]) + ": " + say(picture.n + " frames"));
    lanes.append(name, canvas);
    const spans = stage.name === "latents" ? data.spans : Array.from({ length: picture.n }, (_, i) => [i, i + 1]);
    let source = null;
    const paintLane = () => {
      const width = canvas.clientWidth, scale = window.devicePixelRatio || 1;
      if (!width || !source) return;
      const cell = width / frames, side = clamp(cell * (picture.h / picture.w), 20, 64), pen = canvas.getContext("2d");
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(side * scale);
      canvas.style.height = side + "px";
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      pen.imageSmoothingEnabled = stage.name === "clip" || stage.name === "decoded";
      const sw = source.width / picture.n, from = data.changes.length ? data.changes[pick.change].frame : frames;
      spans.forEach(([first, end], i) => {
        const x = first * cell, w = (end - first) * cell - 1, tall = Math.min(w, side * (picture.w / picture.h));
        if (end - first > 1) {
          pen.fillStyle = "rgb(127 140 150 / 25%)";
          pen.fillRect(x, 0, w, side);
        }
        pen.drawImage(source, i * sw, 0, sw, source.height, x + (w - tall) / 2, 0, tall, side);
        if (stage.name !== "clip" || first < from) return;
        pen.globalCompositeOperation = "difference"; // from white: the negative
        pen.fillStyle = "#ffffff";
        pen.fillRect(x, 0, w, side);
        pen.globalCompositeOperation = "source-over";
      });
    };
    if (picture.uri) {
      const image = new Image();
      image.onload = () => {
        source = image;
        paintLane();
      };
      image.src = picture.uri;
    } else {
      const parts = make("canvas"), one = make("canvas");
      parts.width = picture.w * picture.n;
      parts.height = picture.h;
      for (let i = 0; i < picture.n; i++) {
        paint(one, picture, i, false);
        parts.getContext("2d").drawImage(one, i * picture.w, 0);
      }
      source = parts;
    }
    painters.push(paintLane);
  }
  body.append(lanes);
  if (!data.changes.length) {
    keepSize(body, () => painters.forEach((act) => act()));
    return;
  }

  const name = make("div", "ox-lane-name"), bars = make("div", "ox-moves"), nodes = [];
  name.append(make("b", "", "Moved"), make("span", "", "each latent frame, RMS"));
  bars.style.cssText = "position:relative;height:96px;border-bottom:1px solid var(--os-line)";
  for (const [first, end] of data.spans) {
    const column = make("div", "ox-move"), fill = make("i"), text = make("span", "ox-note ox-num");
    column.style.cssText = "position:absolute;bottom:0;top:0;display:flex;flex-direction:column;justify-content:flex-end;align-items:center;left:" + (100 * first) / frames + "%;width:calc(" + (100 * (end - first)) / frames + "% - 1px)";
    fill.style.cssText = "display:block;width:100%;background:var(--os-accent);border-radius:2px 2px 0 0";
    column.append(text, fill);
    bars.append(column);
    nodes.push({ fill, text, column });
  }
  lanes.append(name, bars);
  const most = largest(data.changes.flatMap((c) => c.latents)) || 1;
  function show() {
    const change = data.changes[pick.change];
    change.latents.forEach((moved, j) => {
      nodes[j].fill.style.height = (72 * moved) / most + "px";
      nodes[j].text.textContent = moved === 0 ? "0" : moved < 0.005 ? "<.01" : moved < 9.95 ? moved.toFixed(1) : moved.toFixed(0);
      nodes[j].column.dataset.moved = moved;
    });
    bars.setAttribute("role", "img");
    bars.setAttribute("aria-label", say("moved by ") + change.latents.map(two).join(", "));
    painters.forEach((act) => act());
  }
  lanes.append(make("span"), slider("Negative from", 0, data.changes.length - 1, 1, "change", data.changes.length - 1, (i) => "frame " + (data.changes[i].frame + 1), show));
  keepSize(body, show);
  show();
}

// One observer for each figure: the one of an older run is let go, and its pictures with it.
const sizes = new Map();
function keepSize(node, act) {
  sizes.get(node)?.disconnect();
  const observer = new ResizeObserver(act);
  observer.observe(node);
  sizes.set(node, observer);
}

// --- 4: the way --------------------------------------------------------------------------------------------------

// Places points of a plane in a viewBox of width W, both axes alike.
function plane(points, W, most, pad) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = Math.min(...ys), y1 = Math.max(...ys);
  const unit = Math.min((W - 2 * pad) / Math.max(x1 - x0, 1e-6), (most - 2 * pad) / Math.max(y1 - y0, 1e-6));
  const left = (W - unit * (x1 - x0)) / 2;
  return { unit, at: ([x, y]) => [left + unit * (x - x0), most / 2 + unit * ((y0 + y1) / 2 - y)] };
}

function head(pen, [ax, ay], [bx, by], className, size) {
  const long = Math.hypot(bx - ax, by - ay);
  if (long < 2) return;
  const ux = (bx - ax) / long, uy = (by - ay) / long, s = Math.min(size, long);
  pen.append(vector("path", { class: className, d: "M" + bx + " " + by + "L" + (bx - s * ux - 0.45 * s * uy) + " " + (by - s * uy + 0.45 * s * ux) + "L" + (bx - s * ux + 0.45 * s * uy) + " " + (by - s * uy - 0.45 * s * ux) + "Z" }));
}

function drawFlow(body, data) {
  const total = data.times.length, near = data.estimates.filter(([x, y]) => Math.hypot(x - 0.5, y) < 1.6);
  const chart = chartOf(336, "The way of the run from noise to the clip, on a plane", (pen, W, tall) => {
    const i = pick.step, { at } = plane([...data.points, ...near, [0, 0], [1, 0]], W, tall, 32);
    const places = data.points.map(at), guesses = data.estimates.map(at);
    pen.replaceChildren(...guesses.map((guess, k) => vector("path", { class: "ox-faint", d: polyline([places[k], guess]) })));
    pen.append(vector("path", { class: "ox-straight", d: polyline([at([0, 0]), at([1, 0])]) }), vector("path", { class: "ox-way", d: polyline(places) }));
    places.forEach(([cx, cy], k) => k && pen.append(vector("circle", { class: "ox-dot", cx, cy, r: 3 })));
    for (const [point, text] of [[[0, 0], "noise"], [[1, 0], "clip"]]) {
      const [cx, cy] = at(point);
      pen.append(vector("circle", { class: "ox-end", cx, cy, r: 5 }), vector("text", { class: "ox-name", x: cx, y: cy + 22, "text-anchor": "middle" }, text));
    }
    const [cx, cy] = places[i], [gx, gy] = guesses[i];
    pen.append(
      vector("path", { class: "ox-ahead", d: polyline([[cx, cy], [gx, gy]]) }),
      vector("circle", { class: "ox-guess", cx: gx, cy: gy, r: 5 }),
      vector("circle", { class: "ox-dot ox-now", cx, cy, r: 6 }),
    );
  });
  const first = data.noisy[0], middle = first.n >> 1;
  const noisy = tile(first.h, first.w), clean = tile(first.h, first.w);
  function show() {
    const i = pick.step;
    chart.draw();
    paint(noisy.canvas, data.noisy[i], middle, true);
    paint(clean.canvas, data.clean[i], middle, true);
    noisy.name.textContent = say("x at t = " + two(data.times[i]));
    clean.name.textContent = say("the clip it expects");
  }
  const split = make("div", "ox-split"), main = make("div", "ox-main"), side = make("div", "ox-side");
  main.append(
    chart.node,
    slider("Step", 0, total - 1, 1, "step", Math.round(total / 4), (i) => i + 1 + " of " + total, show),
    make("p", "ox-note", "Dotted: the straight line. Both axes in the same unit. Pictures: the middle latent frame, its channels weighed into colour."),
  );
  side.append(noisy.box, clean.box);
  split.append(main, side);
  body.append(split);
  show();
}

// --- 5: guidance -------------------------------------------------------------------------------------------------

function drawGuidance(body, data) {
  const total = data.pulls.length, middle = data.n >> 1, size = data.h * data.w * 3;
  const tiles = ["u, no prompt", "c, the prompt", ""].map((name) => tile(data.h, data.w, name)), numbers = make("div");
  const mix = (pull, s) => {
    pull.a ||= whole(pull.null);
    pull.b ||= whole(pull.prompt);
    const rgb = new Uint8Array(size);
    for (let i = 0, k = middle * size; i < size; i++, k++) {
      rgb[i] = clamp(Math.round((((pull.a[k] + s * (pull.b[k] - pull.a[k])) / data.unit + 1) * 255) / 2), 0, 255);
    }
    return { h: data.h, w: data.w, data: rgb };
  };
  const chart = chartOf(224, "Predictions without and with the prompt, and their mix, as arrows", (pen, W, tall) => {
    const pull = data.pulls[pick.pull], far = Math.hypot(pull.c[0] - pull.u, pull.c[1]) || 1;
    // Turned so that c - u lies to the right: every mix stands on one level line.
    const right = [(pull.c[0] - pull.u) / far, pull.c[1] / far], side = pull.u * right[1] < 0 ? -1 : 1;
    const u = [pull.u * right[0], side * pull.u * right[1]], mixed = (s) => [u[0] + s * far, u[1]];
    const { at } = plane([[0, 0], u, mixed(1), mixed(data.most)], W, tall, 40), o = at([0, 0]), apart = at(mixed(1))[0] - at(u)[0];
    pen.replaceChildren(vector("path", { class: "ox-straight", d: polyline([at(u), at(mixed(data.most))]) }));
    for (let k = 0; k <= data.most; k++) {
      const [x, y] = at(mixed(k));
      pen.append(vector("circle", { class: "ox-fill-null", cx: x, cy: y, r: 2 }));
      if (k > 1 && (apart > 24 || k === data.most)) pen.append(vector("text", { x, y: y - 12, "text-anchor": "middle" }, k === data.most ? "s = " + k : k));
    }
    for (const [tip, name, length] of [[u, "null", 12], [mixed(1), "prompt", 12], [mixed(pick.scale), "mix", 14]]) {
      pen.append(vector("path", { class: "ox-arrow ox-" + name, d: polyline([o, at(tip)]) }));
      head(pen, o, at(tip), "ox-fill-" + name, length);
    }
    const [ux, uy] = at(u), [cx, cy] = at(mixed(1));
    pen.append(vector("circle", { class: "ox-end", cx: o[0], cy: o[1], r: 4 }));
    pen.append(vector("text", { class: "ox-name", x: ux - 8, y: uy - 8, "text-anchor": "end" }, "u"), vector("text", { class: "ox-name", x: cx + 2, y: cy - 12 }, "c"));
  });
  function show() {
    const pull = data.pulls[pick.pull], s = pick.scale, c = pull.c;
    chart.draw();
    tiles.forEach(({ canvas }, i) => paint(canvas, mix(pull, [0, 1, s][i]), 0, true));
    tiles[2].name.textContent = "s = " + s;
    numbers.replaceChildren(facts([
      ["|u|", two(pull.u)], ["|c|", two(pull.norm)], ["|c \u2212 u|", two(Math.hypot(c[0] - pull.u, c[1]))],
      ["|u + s (c \u2212 u)|", two(Math.hypot(pull.u + s * (c[0] - pull.u), s * c[1]))], ["cosine of u and c", pull.cosine.toFixed(3)],
    ]));
  }
  const said = make("div", "ox-said"), controls = make("div", "ox-row");
  controls.append(
    slider("Scale", 0, data.most, 0.5, "scale", data.scale, (s) => "s = " + s, show),
    slider("Step", 0, total - 1, 1, "pull", 0, (i) => "t = " + two(data.pulls[i].t), show),
  );
  said.append(...tiles.map((t) => t.box), numbers);
  body.append(chart.node, controls, said);
  show();
}

// --- a value arrives ---------------------------------------------------------------------------------------------

const DRAW = { tokens: drawTokens, attention: drawAttention, coding: drawCoding, flow: drawFlow, guidance: drawGuidance };

function empty(name, text) {
  const body = $('[data-fig="' + name + '"] .ox-body');
  body.dataset.state = "empty";
  body.replaceChildren(make("p", "", text || body.dataset.empty));
}

function draw(name, data) {
  const figure = $('[data-fig="' + name + '"]'), body = figure.querySelector(".ox-body");
  figure.querySelector(".ox-fact").textContent = (data.facts || []).map(say).join(" ");
  figure.dataset.run = view.run;
  if (data.missing) return empty(name, data.missing);
  body.dataset.state = "full";
  body.replaceChildren();
  DRAW[name](body, data, view.figures);
}

function receive() {
  const value = props.value;
  const idle = !value || value.phase === "idle";
  if (idle && view) return;
  view = idle ? null : value;
  root.dataset.phase = idle ? "idle" : view.phase;
  const busy = !idle && view.phase === "working";
  $(".ox-go").disabled = busy;
  $(".ox-stop").disabled = !busy;
  root.setAttribute("aria-busy", String(busy));
  $(".ox-bar i").style.transform = "scaleX(" + (idle ? 0 : view.share) + ")";
  $(".ox-text").textContent = idle ? "" : say(view.text);
  $(".ox-about").textContent = idle ? say("The prompt comes from the first tab.") : "\u201c" + view.prompt + "\u201d, " + say(view.model) + ", " + say("seed") + " " + view.seed;
  if (idle) return;
  for (const name of FIGURES) {
    const data = view.figures[name];
    if (!data || drawn[name] === view.run) continue;
    if (name === "tokens" && !view.figures.flow) continue;
    drawn[name] = view.run;
    draw(name, data);
    if (view.figures.coding && (name === "attention" || name === "coding")) paintClip(view.figures.coding.shown);
  }
  if (!busy) $(".ox-live").textContent = view.text;
}

$(".ox-go").addEventListener("click", () => {
  memory.asked = true;
  trigger("explain");
});
$(".ox-stop").addEventListener("click", () => trigger("halt"));
FIGURES.forEach((name) => empty(name));
watch("value", receive);
receive();
new IntersectionObserver((seen, observer) => {
  if (!seen.some((entry) => entry.isIntersecting)) return;
  observer.disconnect();
  if (memory.asked || view) return;
  memory.asked = true;
  trigger("glance");
}).observe(root);
