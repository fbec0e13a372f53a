// The gallery: clips that were kept, newest first, and the queue of runs. Loaded when its tab is first opened.
import { button, find, languageOf, make } from "../lib/dom.js";
import { language, say, sayAll, words } from "../lib/i18n.js";
import { roving } from "../lib/roving.js";
import { memoryOf } from "../lib/session.js";
import { chips } from "../stage/actions.js";
import { card } from "../stage/shelf.js";

/** @typedef {import("../types.js").GalleryValue} GalleryValue */
/** @typedef {import("../types.js").KeptClipValue} Kept */
/** @typedef {import("../types.js").QueuedRunValue} Queued */

const PAGE = 24;
const LOOK_MS = 2000; // between two looks at a queue that goes on
const LOST_MS = 15000; // after which an answer is not waited for any more
const SURE_MS = 4000; // how long "delete" asks once more

/** @param {string} name @param {string} [kind] */
const address = (name, kind) => new URL(`gallery/${kind ? name.replace(/mp4$/, kind) : name}`, document.baseURI).href;

/** @param {number} seconds since 1970 */
const moment = (seconds) =>
  new Date(seconds * 1000).toLocaleString(language === "zh" ? "zh-CN" : "en", {
    dateStyle: "medium",
    timeStyle: "short",
  });

/** Turn to the tab where clips are made. */
function toFirstTab() {
  const tab = document.querySelector(".os-tabs [role=tab]");
  if (tab instanceof HTMLElement) tab.click();
  const field = document.querySelector("#prompt textarea");
  if (field instanceof HTMLElement) field.focus();
}

/** @param {import("../lib/host.js").Host<GalleryValue>} host */
export function start({ element, trigger, props, watch }) {
  sayAll(element);
  const root = find(element, ".os-gallery", HTMLElement);
  /** @param {string} selector */
  const $ = (selector) => find(root, selector, HTMLElement);
  /** @param {string} selector */
  const press = (selector) => find(root, selector, HTMLButtonElement);
  const prompts = find(root, ".os-queue-prompts textarea", HTMLTextAreaElement);
  const each = find(root, ".os-queue-each input", HTMLInputElement);
  const file = find(root, ".os-queue-file input", HTMLInputElement);
  const queue = find(root, ".os-queue", HTMLDetailsElement);
  const grid = $(".os-gallery-grid");
  const view = find(root, ".os-gallery-view", HTMLDialogElement);
  const film = find(view, "video", HTMLVideoElement);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const memory = memoryOf("gallery", { clips: PAGE, text: "", each: "1", opened: false });
  /** @type {GalleryValue | null} */
  let value = null;
  let askedAt = 0; // when an answer began to be waited for, in ms; 0 for none
  /** @type {string | null} */
  let shown = null; // the clip in the window
  prompts.placeholder = say("ui.queue.example");
  prompts.value = memory.text;
  each.value = memory.each;
  roving(grid, ".os-card");

  /** @param {string} event @param {Record<string, unknown>} [data] */
  function ask(event, data = {}) {
    askedAt = performance.now();
    trigger(event, { ...data, clips: memory.clips });
  }
  const look = () => ask("look");

  // --- the queue

  /** @param {Queued} run */
  function line(run) {
    const node = make("li", "os-queue-run");
    node.dataset.state = run.state;
    const text = make("span", "os-queue-prompt", run.prompt);
    text.lang = languageOf(run.prompt);
    text.title = run.about;
    const acts = make("span", "os-queue-run-acts");
    if (run.clip) acts.append(button("os-action", say("ui.queue.show"), () => open(run.clip)));
    if (run.state === "failed" || run.state === "interrupted")
      acts.append(button("os-action", say("ui.queue.retry"), () => ask("retry", { id: run.id })));
    const remove = button("os-action", "×", () => ask("remove", { which: run.id }));
    remove.title = say("ui.queue.remove");
    remove.setAttribute("aria-label", say("ui.queue.remove_run", { prompt: run.prompt }));
    acts.append(remove);
    const says = run.reason ? `${words(run.text)}: ${words(run.reason)}` : words(run.text);
    node.append(text, make("span", "os-queue-text", says), acts);
    return node;
  }

  /** @param {GalleryValue} now */
  function drawQueue(now) {
    $(".os-queue-state").textContent = words(now.queue);
    const [stop, none, clear] = [press(".os-queue-stop"), press(".os-queue-none"), press(".os-queue-clear")];
    stop.textContent = say(now.paused ? "ui.queue.go_on" : "ui.queue.stop");
    stop.hidden = !now.going;
    none.hidden = !now.going;
    clear.hidden = !now.ended;
    const list = $(".os-queue-runs");
    const focused = document.activeElement instanceof HTMLElement && list.contains(document.activeElement);
    if (!focused || list.children.length !== now.runs.length) list.replaceChildren(...now.runs.map(line));
    $(".os-queue-more").hidden = !now.left_out;
    $(".os-queue-more").textContent = say("ui.queue.left_out", { count: now.left_out });
    if (now.runs.length && !memory.opened) {
      memory.opened = true;
      queue.open = true;
    }
    if (now.added) {
      prompts.value = "";
      prompts.dispatchEvent(new Event("input"));
      $(".os-gallery-live").textContent = say("ui.queue.added", { count: now.added });
    }
  }

  prompts.addEventListener("input", () => {
    memory.text = prompts.value;
    press(".os-queue-add").disabled = !prompts.value.trim();
  });
  each.addEventListener("input", () => {
    memory.each = each.value;
  });
  file.addEventListener("change", async () => {
    const text = await file.files?.[0]?.text();
    file.value = "";
    if (text === undefined) return;
    prompts.value = [prompts.value.trimEnd(), text].filter(Boolean).join("\n");
    prompts.dispatchEvent(new Event("input"));
  });
  press(".os-queue-add").addEventListener("click", () => ask("enqueue", { prompts: prompts.value, each: each.value }));
  press(".os-queue-stop").addEventListener("click", () => ask("stop", { stop: !value?.paused }));
  press(".os-queue-none").addEventListener("click", () => ask("remove", { which: "waiting" }));
  press(".os-queue-clear").addEventListener("click", () => ask("remove", { which: "ended" }));

  // --- clips

  /** @type {Map<string, HTMLElement>} */
  const cards = new Map();

  /** @param {GalleryValue} now */
  function drawClips(now) {
    const names = new Set(now.clips.map((clip) => clip.name));
    now.clips.forEach((clip, i) => {
      const { name, prompt } = clip;
      const node =
        cards.get(name) ?? card({ url: address(name), poster: address(name, "webp"), prompt, act: () => open(name) });
      cards.set(name, node);
      if (grid.children[i] !== node) grid.insertBefore(node, grid.children[i] ?? null);
    });
    for (const [name, node] of cards) {
      if (names.has(name)) continue;
      node.remove();
      cards.delete(name);
    }
    $(".os-gallery-none").hidden = now.count > 0;
    press(".os-gallery-more").hidden = memory.clips >= now.count;
    $(".os-gallery-room").textContent = say("ui.gallery.room", { count: now.count, room: now.room });
    $(".os-gallery-room").hidden = !now.count;
    $(".os-gallery-note").hidden = !now.note;
    $(".os-gallery-note").textContent = now.note ? words(now.note) : "";
  }
  press(".os-gallery-more").addEventListener("click", () => {
    memory.clips += PAGE;
    look();
  });
  press(".os-gallery-make").addEventListener("click", toFirstTab);

  // --- a clip in a window

  const [before, next, erase] = [press(".os-gallery-before"), press(".os-gallery-next"), press(".os-gallery-delete")];

  /** @param {number} by @returns {Kept | undefined} */
  function beside(by) {
    const clips = value?.clips ?? [];
    return clips[clips.findIndex((clip) => clip.name === shown) + by];
  }

  function unsure() {
    delete erase.dataset.sure;
    erase.textContent = say("ui.gallery.delete");
  }

  /** @param {string} name */
  function open(name) {
    const clip = value?.clips.find((kept) => kept.name === name);
    shown = name;
    unsure();
    film.src = address(name);
    film.poster = address(name, "webp");
    film.autoplay = !still.matches;
    const prompt = find(view, ".os-gallery-prompt", HTMLElement);
    prompt.textContent = clip?.prompt ?? "";
    prompt.lang = languageOf(clip?.prompt ?? "");
    find(view, ".os-gallery-made", HTMLElement).textContent = clip ? moment(clip.made) : "";
    find(view, ".os-chips", HTMLElement).replaceChildren(...chips(clip?.chips ?? []));
    const save = find(view, ".os-gallery-save", HTMLAnchorElement);
    save.href = address(name);
    save.download = name;
    before.disabled = !beside(-1);
    next.disabled = !beside(1);
    if (!view.open) view.showModal();
  }

  /** @param {number} by */
  function go(by) {
    const clip = beside(by);
    if (clip) open(clip.name);
  }
  before.addEventListener("click", () => go(-1));
  next.addEventListener("click", () => go(1));
  view.addEventListener("keydown", (event) => {
    if (event.target === film || (event.key !== "ArrowLeft" && event.key !== "ArrowRight")) return;
    event.preventDefault();
    go(event.key === "ArrowLeft" ? -1 : 1);
  });
  press(".os-gallery-close").addEventListener("click", () => view.close());
  view.addEventListener("click", (event) => {
    if (event.target === view) view.close(); // beside the window
  });
  view.addEventListener("close", () => {
    film.removeAttribute("src");
    film.load();
    shown = null;
  });
  press(".os-gallery-use").addEventListener("click", () => {
    trigger("use", { name: shown });
    view.close();
  });
  erase.addEventListener("click", () => {
    if (!erase.dataset.sure) {
      erase.dataset.sure = "true";
      erase.textContent = say("ui.gallery.delete_surely");
      setTimeout(unsure, SURE_MS);
      return;
    }
    const name = shown;
    const neighbour = beside(1) ?? beside(-1);
    if (neighbour) open(neighbour.name);
    else view.close();
    ask("discard", { name });
  });

  // --- what Python says

  function receive() {
    if (!props.value || !("clips" in props.value)) return;
    askedAt = 0;
    value = props.value;
    drawQueue(value);
    drawClips(value);
    if (shown) {
      before.disabled = !beside(-1);
      next.disabled = !beside(1);
    }
  }
  watch("value", receive);
  prompts.dispatchEvent(new Event("input"));
  receive();

  let seen = false;
  new IntersectionObserver((entries) => {
    seen = entries.some((entry) => entry.isIntersecting);
    if (seen) look();
  }).observe(root);
  const clock = setInterval(() => {
    if (!element.isConnected) return clearInterval(clock);
    const waits = askedAt && performance.now() - askedAt < LOST_MS;
    if (seen && !document.hidden && !waits && value?.going && !value.paused) look();
  }, LOOK_MS);
}
