// The stage: the pictures of every step while a run goes, the finished clip, examples before the first run.
import { animation, calm, timeText } from "../lib/clock.js";
import { composes, find, languageOf, make, onDocument, onKeys, penOf, write } from "../lib/dom.js";
import { language, live, say, sayAll, words } from "../lib/i18n.js";
import { cut, cutSheet, isHere, load, put } from "../lib/image.js";
import { roving } from "../lib/roving.js";
import { isBusy, isRunning, markBusy, memoryOf, rememberRuns, setTitle, startKeep } from "../lib/session.js";
import { decodedAt, latentAt } from "../lib/time.js";
import { asForm, chips, clipActions, exampleActions } from "./actions.js";
import { startBranch } from "./branch.js";
import { startDrop } from "./drop.js";
import { onStage } from "./first.js";
import { startShelf } from "./shelf.js";
import { pictureAt, replayStepMs, sceneAt, trunkOf } from "./steps.js";
import { startStrip } from "./strip.js";
import { startTransport } from "./transport.js";

/** @typedef {import("../types.js").StageValue} StageValue */
/** @typedef {import("../types.js").ExamplesValue} ExamplesValue */
/** @typedef {import("../types.js").IdleValue} IdleValue */
/** @typedef {import("../types.js").ExampleValue} Example */
/** @typedef {import("../types.js").VerdictValue} Verdict */
/** @typedef {import("./strip.js").Step} Step */
/** @typedef {import("./steps.js").View} View */
/** @typedef {{ first: number, count: number, sheet: import("../types.js").SheetValue, image: HTMLImageElement }} Decoded */
/** @typedef {import("./actions.js").Clip & { run: number, steps: Step[], view: StageValue }} KeptClip */
/** @typedef {{ shelf: KeptClip[], lastRun: number, clip: KeptClip | null, examples: Example[] | null, look: View }} Memory */

const ON_SHELF = 12;
const ROUNDS = 2; // of an example, before the next one plays
const EMPTY_CELLS = 12; // of the strip before the first run
const EXAMPLE_FPS = 8;
const BLEND_MS = 180; // from one step's picture to the next
const FIRST_MS = 600; // from the noise to the first guess
const DRAW_MS = 1000 / 30; // between two drawings of one estimate, which plays at far fewer frames

/** @param {import("../lib/host.js").Host<StageValue | ExamplesValue | IdleValue>} host */
export function start({ element, trigger, props, watch }) {
  sayAll(element);
  const name = props.name ?? "stage";
  /** @param {string} selector */
  const $ = (selector) => find(element, selector, HTMLElement);
  const root = $(".os-stage");
  const frame = $(".os-frame");
  const canvas = find(element, ".os-canvas", HTMLCanvasElement);
  const video = find(element, ".os-video", HTMLVideoElement);
  const pen = penOf(canvas);
  // What outlives a rebuilt element: clips seen on this page, newest first, and the examples they follow.
  /** @type {Memory} */
  const memory = memoryOf(name, { shelf: [], lastRun: 0, clip: null, examples: null, look: "guess" });
  /** @type {{ view: StageValue | null, steps: Step[], decoded: Decoded[], scrub: number | null, replay: number | null }} */
  const state = { view: null, steps: [], decoded: [], scrub: null, replay: null };
  const round = { example: 0, done: 0, before: 0, chosen: false };
  const blend = { key: "", since: 0, ms: 0, drawn: 0 };
  const past = document.createElement("canvas");
  const linked = linkedPrompt();
  const showKeep = startKeep(element, name, trigger);
  let arrived = 0;
  let lost = ""; // what has become of a run that this page has been left with

  const running = () => isRunning(state.view);
  const runs = () => props.about?.runs !== false;
  const extendsClips = () => runs() && props.about?.extends === true;
  const shelf = startShelf(element);
  const strip = startStrip(
    element,
    () => ({
      steps: state.steps,
      total: state.view?.total ?? EMPTY_CELLS,
      latent: state.view?.latent ?? 1,
      view: memory.look,
      branch: state.view?.settings.branch_step ?? null,
      scenes: Math.max(state.view?.scenes.length ?? 0, 1),
    }),
    (index, pinned) => {
      state.scrub = index;
      if (index === null) settle();
      else show("estimate");
      if (pinned && index !== null && state.view && !running() && !state.view.scenes.length)
        branch.show(state.view, index + 1);
      else if (index === null) branch.hide();
    },
  );
  const branch = startBranch(
    element,
    (changes) => {
      if (state.view && !running()) trigger("again", { ...state.view.settings, ...changes });
      strip.pin(null);
    },
    () => strip.pin(null),
  );
  const shown = () => frame.offsetParent !== null;
  const fps = () => (state.view ? state.view.fps : EXAMPLE_FPS);
  const transport = startTransport(element, fps, shown);

  // --- the picture

  // What is seen of a step; of those that were left out, and until its own picture is decoded, the one before it.
  function shownPicture() {
    const at = state.scrub ?? state.steps.length - 1;
    const pictures = state.steps.map((step) => step.pictures);
    const own = pictureAt(pictures, at, memory.look, isHere);
    // A run begins as noise, whatever is looked at.
    return own ?? pictureAt(pictures, 0, "noise", isHere);
  }

  // Frames that are decoded stand in the place of their estimates, as long as nobody looks at a step.
  const decodedHere = () =>
    state.scrub === null && state.replay === null && memory.look === "guess"
      ? state.decoded.filter(({ image }) => isHere(image))
      : [];

  /** @param {CanvasRenderingContext2D} to @param {HTMLImageElement} image @param {StageValue} view @param {number} now */
  function drawPicture(to, image, view, now) {
    const { width: w, height: h } = to.canvas;
    const places = memory.look === "latent";
    const span = view.frames / view.fps;
    const parts = decodedHere();
    let still = calm.matches ? span / 2 : now / 1000;
    to.globalAlpha = 1;
    if (parts.length) {
      // Who wants no motion sees the first frame that is decoded.
      const seen = decodedAt(calm.matches ? 0 : still, view, parts);
      if (seen.part) {
        put(to, seen.part.image, cutSheet(seen.part.sheet, seen.frame), [0, 0, w, h]);
        return;
      }
      still = seen.seconds;
    }
    const { first, blend: share } = latentAt(still, span, view.latent);
    put(to, image, cut(image, first, view.latent), [0, 0, w, h], places);
    if (!share || places) return;
    to.globalAlpha = share;
    put(to, image, cut(image, first + 1, view.latent), [0, 0, w, h], places);
    to.globalAlpha = 1;
  }

  /** @param {StageValue} view @param {number} now in milliseconds */
  function drawStep(view, now) {
    const [w, h] = [view.cell[0] * 2, view.cell[1] * 2];
    for (const one of [canvas, past]) {
      if (one.width === w && one.height === h) continue;
      one.width = w;
      one.height = h;
    }
    const image = shownPicture();
    if (!image) return;
    const key = `${view.run} ${memory.look} ${image.src.length} ${image.src.slice(-48)} ${decodedHere().length}`;
    if (key === blend.key && (calm.matches || now - blend.drawn < DRAW_MS)) return;
    blend.drawn = now;
    if (key !== blend.key) {
      const begins = !blend.key.startsWith(`${view.run} `);
      const noise = state.steps[0]?.pictures.noise ?? null;
      const from = penOf(past);
      if (begins && isHere(noise) && memory.look === "guess" && running()) drawPicture(from, noise, view, now);
      else if (begins) drawPicture(from, image, view, now);
      else from.drawImage(canvas, 0, 0);
      Object.assign(blend, { key, since: now, ms: begins ? FIRST_MS : BLEND_MS });
    }
    drawPicture(pen, image, view, now);
    const left = 1 - Math.min((now - blend.since) / blend.ms, 1);
    if (left <= 0 || state.scrub !== null || calm.matches) return;
    pen.globalAlpha = left;
    pen.drawImage(past, 0, 0);
    pen.globalAlpha = 1;
  }

  const wake = animation([frame, $(".os-status")], (now) => {
    const estimate = root.dataset.show === "estimate";
    if (state.replay !== null) replayOn(now);
    if (estimate && state.view) drawStep(state.view, now);
    if (running()) showTime();
    return estimate || running() || state.replay !== null;
  });

  // The steps of a run that is over, one after the other, and then its clip.
  function replay() {
    if (running() || !state.steps.length) return;
    state.replay = performance.now();
    branch.hide();
    wake();
  }

  /** @param {number} now */
  function replayOn(now) {
    if (state.replay === null) return;
    const at = Math.floor((now - state.replay) / replayStepMs(state.steps.length));
    if (at < state.steps.length) {
      strip.lookAt(at);
    } else {
      state.replay = null;
      strip.pin(null);
    }
  }

  /** @param {View} look */
  function setLook(look) {
    memory.look = look;
    showViews();
    strip.draw();
    if (running() || state.scrub !== null) wake();
    else if (state.steps.length) strip.pin(state.steps.length - 1);
  }

  // Which of the three ways of seeing a step there are for this run.
  function showViews() {
    const have = /** @type {View[]} */ (["noise", "guess", "latent"]).filter((look) =>
      state.steps.some((step) => step.pictures[look]),
    );
    $(".os-views").hidden = have.length < 2;
    if (state.steps.length && !have.includes(memory.look) && !running()) memory.look = "guess";
    for (const node of element.querySelectorAll(".os-view")) {
      if (!(node instanceof HTMLButtonElement)) continue;
      const look = /** @type {View} */ (node.dataset.view);
      node.hidden = !have.includes(look);
      node.setAttribute("aria-pressed", String(look === memory.look));
    }
  }
  for (const node of element.querySelectorAll(".os-view")) {
    node.addEventListener("click", () => {
      if (node instanceof HTMLElement) setLook(/** @type {View} */ (node.dataset.view));
    });
  }
  $(".os-replay").addEventListener("click", replay);

  /** The canvas, the video, or neither. @param {"estimate" | "clip" | "empty"} what */
  function show(what) {
    root.dataset.show = what;
    if (what === "estimate") wake();
  }

  /** @param {string} url @param {string} [poster] one frame of it, there before the clip is */
  function showClip(url, poster) {
    show("clip");
    if (video.dataset.url !== url) {
      video.dataset.url = url;
      video.poster = poster ?? "";
      root.classList.toggle("os-ready", Boolean(poster));
      video.src = url;
    }
    transport.resume();
  }
  // The clip goes on where the last picture of its steps was.
  video.addEventListener("loadeddata", () => {
    if (state.view?.clip && video.duration && !calm.matches) {
      video.currentTime = (performance.now() / 1000) % video.duration;
    }
    root.classList.add("os-ready");
  });

  /** Beside a clip that was branched off, the one it left. @param {KeptClip | null} clip */
  function showTrunk(clip) {
    const trunk = clip && !running() ? trunkOf(clip.settings, memory.shelf) : undefined;
    const old = find(element, ".os-old-video", HTMLVideoElement);
    $(".os-old").hidden = !trunk;
    root.toggleAttribute("data-beside", Boolean(trunk));
    if (!trunk) {
      old.removeAttribute("src");
    } else if (old.getAttribute("src") !== trunk.url) {
      old.src = trunk.url;
      if (!video.paused) old.play().catch(() => {});
    }
  }

  // --- what is written around it

  function showTime() {
    if (!state.view) return;
    write($(".os-time"), timeText(state.view, running() ? (performance.now() - arrived) / 1000 : null));
  }

  /** @param {string} text */
  function showPrompt(text) {
    $(".os-prompt").textContent = text;
    $(".os-prompt").lang = languageOf(text);
  }

  /** Which of its scenes is seen, or made. */
  function markScene() {
    const { view } = state;
    const lines = element.querySelectorAll(".os-scene");
    if (!view || !lines.length) return;
    const made = Math.floor((state.steps.length * view.scenes.length) / view.total);
    const at = running() ? Math.min(made, lines.length - 1) : sceneAt(view.scenes, video.currentTime);
    for (const [k, line] of lines.entries()) line.toggleAttribute("data-now", k === at);
  }

  /** @param {import("../types.js").MessageValue | null} note */
  function showNote(note) {
    $(".os-note").hidden = !note;
    $(".os-note").textContent = note ? words(note) : "";
  }

  /** @param {StageValue | null} view */
  function showTitle(view) {
    const share = view?.total ? Math.round((100 * state.steps.length) / view.total) : 0;
    setTitle(name, running() ? `${share} %` : view?.phase === "done" ? words(view.text) : "", running());
  }

  /** What a reader network sees in the clip: under it, and as its text for those who do not see it.
   * @param {Verdict | null | undefined} verdict @param {string} prompt */
  function showVerdict(verdict, prompt) {
    const line = $(".os-verdict");
    video.setAttribute("aria-label", say("ui.stage.clip", { text: verdict?.seen[language] ?? prompt }));
    line.replaceChildren();
    if (!verdict) return;
    line.append(verdictText(verdict));
    if (verdict.wrong.length) line.append(say("ui.verdict.wrong", { words: verdict.wrong.map((w) => w[language]) }));
  }

  let described = "";
  /**
   * Chips and actions stay, with their focus, while they are about the same: the last pictures of a run come after its
   * clip. @param {unknown} about @param {() => [Node[], Node[]]} draw
   */
  function describe(about, draw) {
    const key = JSON.stringify(about);
    if (key === described) return;
    described = key;
    const [chips, actions] = draw();
    $(".os-chips").replaceChildren(...chips);
    $(".os-actions").replaceChildren(...actions);
  }

  // --- before the first run

  // Those of the chosen model; of another they would promise what it cannot do.
  function examples() {
    if (!memory.examples && props.value && "examples" in props.value) memory.examples = props.value.examples;
    return (memory.examples ?? []).filter((example) => example.settings.model === props.about?.model);
  }

  const idleText = () => (!runs() ? "ui.stage.cannot" : examples().length ? "ui.stage.example" : "ui.stage.ready");

  function idle() {
    const list = examples();
    const example = list[round.example % list.length];
    if (linked !== null && !round.chosen) {
      show("empty");
      video.pause();
      $(".os-empty").textContent = say(runs() ? "ui.stage.linked" : "ui.stage.no_weights");
      $(".os-prompt").textContent = linked;
      describe(null, () => [[], []]);
      onStage().shown = null;
      return;
    }
    onStage().shown = (!state.view && example) || null;
    if (!example) {
      show("empty");
      video.pause();
      $(".os-empty").textContent = say(runs() ? "ui.stage.type" : "ui.stage.no_weights");
    } else {
      showClip(example.file.url, example.poster.url);
    }
    if (state.view) return;
    showPrompt(example?.prompt ?? "");
    showVerdict(example?.verdict, example?.prompt ?? "");
    const canExtend = extendsClips();
    describe([example, canExtend], () => [
      chips(example?.chips ?? []),
      example ? exampleActions(example, trigger, canExtend) : [],
    ]);
  }

  video.addEventListener("timeupdate", markScene);
  // A looping video tells of no end: count its jumps back.
  video.addEventListener("timeupdate", () => {
    const back = video.currentTime < round.before;
    round.before = video.currentTime;
    if (!back || state.view || examples().length < 2 || root.matches(":hover") || round.chosen) return;
    round.done += 1;
    if (round.done % ROUNDS) return;
    round.example += 1;
    idle();
    shelf.mark(video.dataset.url);
  });

  function showShelf() {
    const list = examples();
    const kept = memory.shelf.map((clip) => ({
      url: clip.url,
      prompt: String(clip.settings.prompt),
      act: () => bringBack(clip),
    }));
    const made = list.map((example, i) => ({
      url: example.file.url,
      poster: example.poster.url,
      prompt: example.prompt,
      act: () => pickExample(example, i),
    }));
    const both = list.length ? "ui.stage.yours_and" : "ui.stage.yours";
    shelf.show([...kept, ...made], say(kept.length ? both : "ui.stage.made_pick"));
    shelf.mark(video.dataset.url);
  }

  /** @param {KeptClip} clip */
  function bringBack(clip) {
    if (running()) return;
    memory.clip = clip;
    state.steps = clip.steps;
    state.decoded = [];
    state.view = clip.view;
    render();
    trigger("pick", clip.settings);
  }

  /** @param {Example} example @param {number} i */
  function pickExample(example, i) {
    trigger("pick", asForm(example));
    if (running()) return;
    Object.assign(round, { example: i, chosen: true });
    state.view = null;
    state.steps = [];
    state.decoded = [];
    strip.reset();
    render();
  }

  // --- a value arrives

  // After a run, a scrub or an example: what belongs on the stage now.
  function settle() {
    const unfinished = running() || state.view?.phase === "stopped";
    const kept = memory.clip;
    if (!state.view) idle();
    else if (unfinished && state.steps.length) show("estimate");
    else if (running()) show("empty");
    else if (kept) showClip(kept.url);
    else if (state.steps.length) show("estimate");
    else idle();
  }

  function render() {
    const { view } = state;
    if (view) onStage().shown = null;
    const busy = running();
    root.dataset.phase = view?.phase ?? "idle";
    markBusy(name, busy);
    const shape = view?.cell ?? props.about?.cell;
    if (shape) {
      frame.style.aspectRatio = `${shape[0]} / ${shape[1]}`;
      frame.style.maxWidth = `${(75 * shape[0]) / shape[1]}vh`; // a tall clip leaves room for what stands under it
    }
    showTitle(view);
    $(".os-text").textContent = view ? words(view.text) : lost || say(idleText());
    showKeep(view, busy);
    $(".os-bar i").style.transform = `scaleX(${view && busy ? state.steps.length / view.total : 0})`;
    showNote(view?.note ?? null);
    if (view) renderRun(view);
    else $(".os-time").textContent = "";
    showTrunk(view?.clip ? memory.clip : null);
    showViews();
    $(".os-replay").toggleAttribute("disabled", busy || !state.steps.length);
    if (view && busy) $(".os-empty").textContent = words(view.text);
    if (!strip.scrubbed()) settle();
    strip.draw();
    shelf.mark(video.dataset.url);
    if (busy) wake();
  }

  /** @param {StageValue} view */
  function renderRun(view) {
    showTime();
    showPrompt(view.prompt);
    showVerdict(view.clip?.verdict, view.prompt);
    if (view.scenes.length) {
      $(".os-prompt").replaceChildren(...sceneLines(view.scenes));
      markScene();
    }
    $(".os-pill").hidden = !view.unknown.length;
    $(".os-pill").textContent = view.unknown.length ? say("ui.stage.not_read", { words: view.unknown }) : "";
    const own = memory.clip?.run === view.run ? memory.clip : null;
    const over = own !== null || view.phase === "stopped";
    const decode = () => branch.decode(view, state.steps.length);
    const seconds = () => video.currentTime;
    const canExtend = extendsClips();
    const actions = () => clipActions(view, own, trigger, running, showNote, decode, seconds, canExtend);
    const { run, link, settings } = view;
    const about = [run, over, own?.settings ?? settings, own?.url, link, view.chips, canExtend, view.steps.length > 0];
    describe(about, () => [chips(view.chips), over ? actions() : []]);
    $(".os-strip").setAttribute("aria-valuemax", String(view.total));
  }

  /**
   * A step as it is drawn; `known` is what it was before some of its pictures came.
   * @param {import("../types.js").StepValue} step @param {Step} [known] @returns {Step}
   */
  function asStep(step, known) {
    /** @type {import("./strip.js").Pictures} */
    const pictures = {};
    for (const look of /** @type {View[]} */ (["noise", "guess", "latent"])) {
      const source = step[look];
      if (source) pictures[look] = known?.pictures[look] ?? load(source, () => requestAnimationFrame(strip.draw));
    }
    return { index: step.index, noiseLevel: step.noise_level, pictures };
  }

  /** A finished clip goes onto the shelf, newest first, once. @param {StageValue} view @param {Step[]} steps */
  function keepClip(view, steps) {
    if (!view.clip) return null;
    const { file, settings } = view.clip;
    const { run, link } = view;
    const clip = { run, url: file.url, name: file.orig_name, settings, link, steps, view };
    const others = memory.shelf.filter((old) => old.run !== view.run);
    memory.shelf = [clip, ...others].sort((a, b) => b.run - a.run).slice(0, ON_SHELF);
    return clip;
  }

  const remember = rememberRuns(name, ON_SHELF, trigger);
  let newest = 0; // the run that came last to this element

  function receive() {
    const view = props.value;
    if (!view || view.phase === "idle") {
      lost = view && "text" in view && view.text ? words(view.text) : "";
      if (!state.view) render();
      if (lost) $(".os-live").textContent = lost;
      showShelf();
      return;
    }
    if (view.run < memory.lastRun) return; // a late word of an older run
    if (view.run === newest && view.clip && state.view?.run !== newest) {
      // The last pictures of a run from which somebody has turned to another clip: they wait on the shelf.
      const known = memory.shelf.find((clip) => clip.run === newest);
      keepClip(
        view,
        view.steps.map((step, i) => asStep(step, known?.steps[i])),
      );
      return;
    }
    newest = view.run;
    if (state.view?.run !== view.run) {
      state.steps = [];
      state.decoded = [];
      state.scrub = null;
      state.replay = null;
      strip.reset();
      branch.hide();
    }
    memory.lastRun = view.run;
    state.view = view;
    arrived = performance.now();
    state.steps = view.steps.map((step, i) => asStep(step, state.steps[i]));
    state.decoded = view.decoded.map(({ first, sheet }, i) => {
      const known = state.decoded[i]?.first === first ? state.decoded[i]?.image : null;
      return { first, count: sheet.count, sheet, image: known ?? load(sheet.file.url, wake) };
    });
    remember(view.job, running());
    const missing = (view.history ?? []).filter((old) => !memory.shelf.some((clip) => clip.run === old.run));
    for (const old of missing)
      keepClip(
        old,
        old.steps.map((step) => asStep(step)),
      );
    const made = view.clip && memory.clip?.run !== view.run;
    if (view.clip) memory.clip = keepClip(view, state.steps);
    render();
    if (made || missing.length) showShelf();
    const verdicts = [view.clip?.verdict, ...view.scenes.map((scene) => scene.verdict)];
    const seen = verdicts.flatMap((verdict) => (verdict ? [` ${verdictText(verdict)}`] : [])).join("");
    if (!running()) $(".os-live").textContent = live(view.text, view.note) + seen;
  }

  function follow() {
    root.dataset.model = props.about?.model ?? "";
    memoryOf("defaults", { of: {} }).of = props.about?.defaults ?? {}; // what page/hints.js puts into an emptied box
    round.example = 0;
  }
  watch("value", receive);
  watch("about", () => {
    follow();
    if (!running()) render(); // what may be done with a clip depends on the model
    showShelf();
  });
  roving($(".os-chips"), ".os-chip");
  roving($(".os-actions"), ".os-action");
  follow();
  receive();

  // --- once for the page

  onKeys(element, shown, {
    " ": transport.toggle,
    ArrowLeft: () => transport.step(-1),
    ArrowRight: () => transport.step(1),
    f: transport.full,
    r: replay,
    "?": transport.toggleKeys,
  });
  onDocument(element, "keydown", runKeys);
  startDrop(element);
}

/** The prompt of a link that was opened, until something else is on the stage. */
function linkedPrompt() {
  const query = new URLSearchParams(location.search);
  return query.has("scales") ? null : query.get("prompt");
}

/** A line for each scene: when it begins, its words, and what a reader sees in it.
 * @param {import("../types.js").SceneValue[]} scenes */
function sceneLines(scenes) {
  return scenes.map(({ start, prompt, verdict }) => {
    const line = make("span", "os-scene");
    const words = make("span", "os-scene-words", prompt);
    words.lang = languageOf(prompt);
    line.append(make("span", "os-scene-start", say("ui.stage.scene_at", { seconds: start.toFixed(1) })), words);
    if (verdict) line.append(make("span", "os-scene-seen", verdictText(verdict)));
    return line;
  });
}

/** "red ball, bouncing, meadow: 4 of 4". @param {Verdict} verdict */
function verdictText({ seen, right, asked }) {
  return asked ? say("ui.verdict", { seen: seen[language], right, asked }) : seen[language];
}

/** Ctrl+Enter runs, Escape stops, on every tab. @param {KeyboardEvent} event */
function runKeys(event) {
  if (event.defaultPrevented || composes(event)) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    const buttons = ["generate", "compare"].map((id) => document.getElementById(id));
    buttons.find((node) => node?.offsetParent)?.click();
  } else if (event.key === "Escape" && isBusy() && !target.closest("[role=combobox], dialog")) {
    document.getElementById("stop")?.click();
  }
}
