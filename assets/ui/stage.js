// The body of a function (element, trigger, props, server, upload, watch), run once when the stage appears.
// Text that a person wrote is only ever set with textContent. Everything here draws what Python said in props.value.
const { say, sayAll, make, seconds, title } = window.openSora;
sayAll(element);
const $ = (selector) => element.querySelector(selector);
const root = $(".os-stage"), frame = $(".os-frame"), canvas = $(".os-canvas"), video = $(".os-video"), strip = $(".os-strip");
const pen = canvas.getContext("2d"), stripPen = strip.getContext("2d");
const name = props.name;
const about = () => props.about || {}; // the chosen model: {model, cell, runs}
// What outlives a rebuilt element: clips seen on this page, newest first, and the examples they follow.
const memory = ((window.openSoraDemo ||= {})[name] ||= { shelf: [], lastRun: 0, clip: null, asked: false });
const state = { view: null, steps: [], scrub: null, example: 0, loops: 0, arrived: 0, ticking: false };

const button = (className, text, title, act) => {
  const node = make("button", className, text && say(text));
  node.type = "button";
  node.title = say(title);
  node.addEventListener("click", act);
  return node;
};
const running = () => window.openSora.running(state.view);

async function copy(text, node) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  node.classList.add("os-copied");
  setTimeout(() => node.classList.remove("os-copied"), 900);
}

// --- the picture -------------------------------------------------------------------------------------------------

function drawStep(step, now) {
  const view = state.view, w = view.cell[0] * 2, h = view.cell[1] * 2, image = step.image;
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  if (!image.complete || !image.naturalWidth) return;
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  const span = view.frames / view.fps, at = ((now / 1000) % span) / span * view.latent;
  const a = Math.min(Math.floor(at), view.latent - 1), blend = at - a;
  const sw = image.naturalWidth / view.latent, sh = image.naturalHeight;
  pen.drawImage(image, a * sw, 0, sw, sh, 0, 0, w, h);
  if (a + 1 < view.latent) {
    pen.globalAlpha = blend;
    pen.drawImage(image, (a + 1) * sw, 0, sw, sh, 0, 0, w, h);
    pen.globalAlpha = 1;
  }
}

// A new picture is shown once its images are decoded: until then the one before it stays, so nothing flashes.
function current() {
  if (state.scrub !== null) return state.steps[state.scrub];
  for (let i = state.steps.length - 1; i >= 0; i--) if (state.steps[i].image.complete) return state.steps[i];
  return undefined;
}

function tick(now) {
  if (!element.isConnected) return;
  const estimate = root.dataset.show === "estimate";
  if (estimate && state.view) {
    const step = current();
    if (step) drawStep(step, now);
  }
  if (running()) showTime();
  if (estimate || running()) requestAnimationFrame(tick);
  else state.ticking = false;
}
function animate() {
  if (state.ticking) return;
  state.ticking = true;
  requestAnimationFrame(tick);
}

// estimate: the canvas; clip: the video; empty: neither.
function show(what) {
  root.dataset.show = what;
  if (what === "estimate") animate();
}

function playClip(url) {
  if (video.dataset.url === url) {
    video.play().catch(() => {});
    return;
  }
  video.dataset.url = url;
  root.classList.remove("os-ready");
  video.src = url;
  video.play().catch(() => {});
}
video.addEventListener("loadeddata", () => root.classList.add("os-ready"));
video.addEventListener("click", () => (video.paused ? video.play().catch(() => {}) : video.pause()));

// --- the strip of steps ------------------------------------------------------------------------------------------

function drawStrip() {
  const w = strip.clientWidth, h = strip.clientHeight, scale = window.devicePixelRatio || 1;
  if (!w) return;
  if (strip.width !== Math.round(w * scale) || strip.height !== Math.round(h * scale)) {
    strip.width = Math.round(w * scale);
    strip.height = Math.round(h * scale);
  }
  stripPen.setTransform(scale, 0, 0, scale, 0, 0);
  stripPen.clearRect(0, 0, w, h);
  const style = getComputedStyle(root), view = state.view, total = view ? view.total : 12;
  const cells = Math.max(1, Math.min(total, Math.floor(w / (h + 2)))), cw = (w + 2) / cells;
  for (let k = 0; k < cells; k++) {
    const x = k * cw, from = Math.floor((k * total) / cells), to = Math.floor(((k + 1) * total) / cells) - 1;
    let image = null;
    for (let i = Math.min(to, state.steps.length - 1); i >= from && !image; i--) if (state.steps[i].image.complete) image = state.steps[i].image;
    if (image && image.naturalWidth) {
      const sw = image.naturalWidth / view.latent, sh = image.naturalHeight, f = Math.floor(view.latent / 2);
      const r = Math.max((cw - 2) / sw, h / sh), cutW = (cw - 2) / r, cutH = h / r;
      stripPen.imageSmoothingQuality = "high";
      stripPen.drawImage(image, f * sw + (sw - cutW) / 2, (sh - cutH) / 2, cutW, cutH, x, 0, cw - 2, h);
    } else {
      stripPen.fillStyle = style.getPropertyValue("--os-cell");
      stripPen.fillRect(x, 0, cw - 2, h);
    }
  }
  if (state.scrub !== null) {
    const k = ((state.scrub + 0.5) / total) * w;
    stripPen.fillStyle = style.getPropertyValue("--os-accent");
    stripPen.strokeStyle = "#ffffff";
    stripPen.lineWidth = 2;
    stripPen.strokeRect(k - 2, -2, 4, h + 4);
    stripPen.fillRect(k - 2, 0, 4, h);
  }
}

function scrubTo(index) {
  const view = state.view;
  if (!view || !state.steps.length) return;
  state.scrub = index === null ? null : Math.max(0, Math.min(index, state.steps.length - 1));
  const badge = $(".os-badge");
  if (state.scrub === null) {
    badge.hidden = true;
    settle();
  } else {
    const step = state.steps[state.scrub];
    badge.hidden = false;
    badge.textContent = say("step " + step.i + " of " + view.total + "  ·  noise " + Math.round(step.t * 100) + " %");
    strip.setAttribute("aria-valuenow", String(step.i));
    strip.setAttribute("aria-valuetext", badge.textContent);
    show("estimate");
  }
  drawStrip();
}
const stepAt = (event) => {
  const box = strip.getBoundingClientRect();
  return Math.floor(((event.clientX - box.left) / box.width) * (state.view ? state.view.total : 1));
};
strip.addEventListener("pointermove", (event) => scrubTo(stepAt(event)));
strip.addEventListener("pointerdown", (event) => {
  strip.setPointerCapture(event.pointerId);
  scrubTo(stepAt(event));
});
for (const kind of ["pointerleave", "pointerup", "pointercancel", "blur"]) {
  strip.addEventListener(kind, (event) => {
    if (kind !== "pointerup" || event.pointerType !== "mouse") scrubTo(null);
  });
}
strip.addEventListener("keydown", (event) => {
  const last = state.steps.length - 1, at = state.scrub ?? last;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: null }[event.key];
  if (to === undefined || !state.steps.length) return;
  event.preventDefault();
  scrubTo(to);
});
new ResizeObserver(drawStrip).observe(strip);

// --- what is written around it -----------------------------------------------------------------------------------

function showTime() {
  const view = state.view, since = running() ? (performance.now() - state.arrived) / 1000 : 0;
  let text = view.phase === "idle" ? "" : seconds(view.elapsed + since);
  if (running() && view.left !== null) text += say(", about ") + seconds(Math.max(view.left - since, 0)) + say(" left");
  $(".os-time").textContent = text;
}

// In the tab's title, so that one may look elsewhere meanwhile.
function showTitle() {
  const view = state.view, share = view && view.total ? Math.round((100 * state.steps.length) / view.total) : 0;
  title(name, running() ? share + " %" : view && view.phase === "done" ? say("Done") : "", running());
}

function showChips(pairs) {
  $(".os-chips").replaceChildren(...(pairs || []).map(([key, value]) => {
    const chip = button("os-chip", undefined, say("Copy ") + say(key), () => copy(value, chip));
    chip.append(make("span", "os-key", say(key)), make("span", "os-value", value));
    return chip;
  }));
}

function showActions(clip, example) {
  const actions = $(".os-actions");
  actions.replaceChildren();
  if (example) {
    actions.append(button("os-action", "Use this prompt and seed", "Put them into the form", () => trigger("pick", asForm(example))));
  }
  if (!clip) return;
  const save = make("a", "os-action", say("Download mp4"));
  save.href = clip.url;
  save.download = clip.file;
  save.title = "H.264, plays at " + clip.settings.fps + " FPS, enlarged to at least 256 px; the settings are inside the file";
  actions.append(save);
  actions.append(
    button("os-action", "Reuse settings", "Put this clip's prompt, seed and settings into the form", () => trigger("pick", clip.settings)),
    button("os-action", "Vary", "Run the same settings from another noise", () => {
      if (!running()) trigger("vary", { ...clip.settings, seed: null });
    }),
  );
  const link = button("os-action", "Copy link", "An address of this page with these settings; it runs nothing by itself", () => copy(address(clip.settings), link));
  const all = button("os-action", "Copy settings", "Copy all settings as JSON", () => copy(JSON.stringify(clip.settings, null, 2), all));
  actions.append(link, all);
}
const LINKED = ["model", "prompt", "negative", "fps", "frames", "steps", "guidance", "seed", "rule", "image_guidance", "motion_score", "edit"];
function address(settings) {
  const query = new URLSearchParams();
  for (const key of LINKED) if (settings[key] !== undefined && settings[key] !== "" && settings[key] !== null) query.set(key, String(settings[key]));
  return location.origin + location.pathname + "?" + query;
}
const asForm = (example) => ({ ...example.settings, prompt: example.prompt, seed: example.seed });

function showPrompt(text) {
  $(".os-prompt").textContent = text || "";
}

function showNote(text) {
  const note = $(".os-note");
  note.hidden = !text;
  note.textContent = say(text || "");
}

// After a run, a scrub or an example: what belongs on the stage now.
function settle() {
  const view = state.view;
  if (!view || view.phase === "idle") return idle();
  if (running() || view.phase === "stopped") {
    if (state.steps.length) return show("estimate");
    if (memory.clip) return showClip(memory.clip);
    return idle();
  }
  if (memory.clip) return showClip(memory.clip);
  if (state.steps.length) return show("estimate");
  return idle();
}

function showClip(clip) {
  show("clip");
  playClip(clip.url);
}

// --- before the first run, and the shelf -------------------------------------------------------------------------

// Those of the chosen model; of another they would promise what it cannot do.
function examples() {
  memory.examples ||= (props.value && props.value.examples) || [];
  return memory.examples.filter((example) => example.settings.model === about().model);
}

function idle() {
  const list = examples();
  if (!list.length) {
    show("empty");
    video.pause();
    if (!state.view || state.view.phase === "idle") {
      showPrompt("");
      showChips([]);
      showActions(null);
    }
    $(".os-empty").textContent = say(about().runs === false ? "The weights of this model are not here." : "Type a sentence and press Generate.");
    return;
  }
  const example = list[state.example % list.length];
  show("clip");
  playClip(example.file.url);
  if (!state.view || state.view.phase === "idle") {
    showPrompt(example.prompt);
    showChips(example.chips);
    showActions(null, example);
  }
}
video.addEventListener("timeupdate", () => {
  // A looping video tells of no end: count the jumps back and go on to the next example after two rounds.
  const back = video.currentTime < (state.before ?? 0);
  state.before = video.currentTime;
  if (!back || (state.view && state.view.phase !== "idle") || examples().length < 2 || root.matches(":hover")) return;
  state.loops += 1;
  if (state.loops % 2 === 0) {
    state.example += 1;
    idle();
    markShelf();
  }
});

function markShelf() {
  const shown = video.dataset.url;
  for (const card of element.querySelectorAll(".os-card")) card.classList.toggle("os-on", card.dataset.url === shown);
}

// A card shows one frame, drawn once, and holds a video only while somebody points at it: a page full of waiting
// videos costs memory, and browsers blank the ones they suspend.
function card(url, prompt, act) {
  const node = button("os-card", undefined, prompt, act), still = make("canvas"), clip = make("video");
  node.dataset.url = url;
  still.width = still.height = 208;
  Object.assign(clip, { muted: true, loop: true, playsInline: true, preload: "auto", tabIndex: -1 });
  const picture = () => {
    const side = Math.min(clip.videoWidth, clip.videoHeight);
    still.getContext("2d").drawImage(clip, (clip.videoWidth - side) / 2, (clip.videoHeight - side) / 2, side, side, 0, 0, 208, 208);
    stop();
  };
  const stop = () => {
    node.classList.remove("os-playing");
    clip.removeAttribute("src");
    clip.load();
  };
  const play = () => {
    clip.src = url;
    clip.play().then(() => node.classList.add("os-playing")).catch(() => {});
  };
  clip.addEventListener("loadedmetadata", () => (clip.currentTime = clip.duration / 2), { once: true });
  clip.addEventListener("seeked", picture, { once: true });
  clip.src = url;
  node.addEventListener("pointerenter", play);
  node.addEventListener("focus", play);
  node.addEventListener("pointerleave", stop);
  node.addEventListener("blur", stop);
  const box = make("span", "os-card-box");
  box.append(still, clip);
  node.append(box, make("span", "os-card-text", prompt));
  return node;
}

// Cards are kept from one call to the next: a rebuilt card would load its video again.
const cards = new Map();
function showShelf() {
  const list = examples(), nodes = [];
  const keep = (key, build) => nodes.push(cards.get(key) || cards.set(key, build()).get(key));
  $(".os-shelf-box").hidden = !list.length && !memory.shelf.length;
  $(".os-shelf-title").textContent = say(!memory.shelf.length
    ? "Made with this model: pick one to start from it"
    : list.length ? "Your clips, then some made before" : "Your clips");
  for (const clip of memory.shelf) {
    keep(clip.url, () => card(clip.url, clip.settings.prompt, () => {
      if (running()) return;
      memory.clip = clip;
      state.steps = clip.steps;
      state.view = clip.view;
      render();
      trigger("pick", clip.settings);
    }));
  }
  list.forEach((example, i) => keep(example.file.url, () => card(example.file.url, example.prompt, () => {
    trigger("pick", asForm(example));
    if (running()) return;
    state.example = i;
    if (!state.view || state.view.phase === "idle") idle();
    markShelf();
  })));
  const shelf = $(".os-shelf");
  nodes.forEach((node, i) => shelf.children[i] === node || shelf.insertBefore(node, shelf.children[i] || null));
  while (shelf.children.length > nodes.length) shelf.lastChild.remove();
  markShelf();
}

// --- a value arrives ---------------------------------------------------------------------------------------------

function render() {
  const view = state.view, busy = running();
  root.dataset.phase = view ? view.phase : "idle";
  const all = (window.openSoraDemo.busy ||= new Set());
  all[busy ? "add" : "delete"](name);
  document.body.toggleAttribute("data-os-busy", all.size > 0);
  const idling = !view || view.phase === "idle", cell = about().cell;
  const shape = idling ? cell : view.cell;
  if (shape) {
    frame.style.aspectRatio = shape[0] + " / " + shape[1];
    frame.style.maxWidth = (75 * shape[0]) / shape[1] + "vh"; // a tall clip leaves room for what stands under it
  }
  showTitle();
  $(".os-text").textContent = say(!idling ? view.text : about().runs === false ? "Cannot run here" : "Ready");
  $(".os-bar").firstElementChild.style.transform = "scaleX(" + (busy ? state.steps.length / view.total : 0) + ")";
  if (idling) {
    $(".os-time").textContent = "";
    showNote("");
  } else {
    showTime();
    showPrompt(view.prompt);
    showNote(view.note);
    const own = memory.clip && memory.clip.run === view.run;
    showChips(view.chips);
    showActions(own ? memory.clip : null);
    strip.setAttribute("aria-valuemax", String(view.total));
  }
  if (state.scrub === null) settle();
  drawStrip();
  markShelf();
  if (busy) animate();
}

function asStep(step) {
  const image = new Image();
  image.onload = () => requestAnimationFrame(drawStrip);
  image.src = step.p[0];
  return { i: step.i, t: step.t, image };
}

// A finished clip goes onto the shelf, newest first, once.
function keepClip(view, steps) {
  const clip = {
    run: view.run, url: view.clip.file.url, file: view.clip.file.orig_name, settings: view.clip.settings, steps, view,
  };
  memory.shelf = [clip, ...memory.shelf.filter((old) => old.run !== view.run)].sort((a, b) => b.run - a.run).slice(0, 12);
  return clip;
}

// The secret ids of this visit's runs, kept by the browser, so that a page loaded anew finds them.
const { known, remember } = window.openSora.runs(name, 12);

function receive() {
  const view = props.value;
  if (!view || view.phase === "idle") {
    if (!state.view) render();
    showShelf();
    return;
  }
  if (view.run < memory.lastRun) return; // a late word of an older run
  if (!state.view || state.view.run !== view.run) {
    state.steps = [];
    state.scrub = null;
    $(".os-badge").hidden = true;
  }
  memory.lastRun = view.run;
  state.view = view;
  state.arrived = performance.now();
  for (let i = state.steps.length; i < view.steps.length; i++) {
    state.steps.push(asStep(view.steps[i]));
  }
  remember(view.job);
  const missing = (view.history || []).filter((old) => !memory.shelf.some((clip) => clip.run === old.run));
  for (const old of missing) keepClip(old, old.steps.map(asStep));
  if (missing.length) showShelf();
  if (view.clip && (!memory.clip || memory.clip.run !== view.run)) {
    memory.clip = keepClip(view, state.steps);
    render();
    showShelf();
  } else {
    render();
  }
  if (!running()) $(".os-live").textContent = say(view.text) + ". " + say(view.note || "");
}

watch("value", receive);
const follow = () => (root.dataset.model = about().model || "");
watch("about", () => {
  follow();
  state.example = 0;
  if (!state.view || state.view.phase === "idle") render();
  showShelf();
});
follow();
receive();

// --- once for the page -------------------------------------------------------------------------------------------

const typing = (target) => target instanceof Element && target.closest("input, textarea, select, [contenteditable], [role=slider], [role=combobox]");
const press = (...ids) => {
  const found = ids.map((id) => document.getElementById(id)).find((node) => node && node.offsetParent);
  if (found) found.click();
};
function stepFrames(frames) {
  if (root.dataset.show !== "clip") return;
  const fps = state.view && state.view.phase !== "idle" ? state.view.fps : 8;
  video.pause();
  video.currentTime = Math.min(Math.max(video.currentTime + frames / fps, 0), Math.max((video.duration || 0) - 0.5 / fps, 0));
}
const keys = (event) => {
  if (!element.isConnected) return document.removeEventListener("keydown", keys);
  if (event.defaultPrevented) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    press("generate", "compare");
  } else if (event.key === "Escape" && document.body.hasAttribute("data-os-busy") && !event.target.closest?.("[role=combobox], dialog")) {
    document.getElementById("stop")?.click(); // also from the other tabs
  } else if (frame.offsetParent && !typing(event.target) && !event.ctrlKey && !event.metaKey && !event.altKey) {
    if (event.target instanceof Element && event.target.closest("button, a, summary") && event.key === " ") return;
    const act = { " ": () => (video.paused ? video.play().catch(() => {}) : video.pause()), ArrowLeft: () => stepFrames(-1), ArrowRight: () => stepFrames(1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
};
document.addEventListener("keydown", keys);

// A clip or picture of ours dropped anywhere gives its settings; over a field for images it is the image.
const carriesFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
const overField = (event) => event.target instanceof Element && event.target.closest("#reference, #last-frame");
const dragged = (event) => {
  if (!element.isConnected) return document.removeEventListener("dragover", dragged);
  if (carriesFile(event) && !overField(event)) event.preventDefault();
};
const dropped = (event) => {
  if (!element.isConnected) return document.removeEventListener("drop", dropped);
  if (!carriesFile(event) || overField(event)) return;
  event.preventDefault();
  const field = document.querySelector("#open-file input[type=file], input#open-file[type=file]") || document.querySelector("#open-file")?.parentElement?.querySelector("input[type=file]");
  if (!field || !event.dataTransfer.files.length) return;
  const files = new DataTransfer();
  files.items.add(event.dataTransfer.files[0]);
  field.files = files.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
};
document.addEventListener("dragover", dragged);
document.addEventListener("drop", dropped);

if (!memory.asked) {
  memory.asked = true;
  if (known().length) trigger("restore", { jobs: known() });
}
