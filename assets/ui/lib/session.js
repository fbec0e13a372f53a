// What outlives an element that Gradio builds anew, and what outlives the page.

/** @typedef {import("../types.js").Phase} Phase */

const RUNNING = new Set(["loading", "waiting", "encoding", "denoising", "decoding"]);
/** @param {{ phase: Phase } | null} view */
export const isRunning = (view) => view !== null && RUNNING.has(view.phase);

/** @type {Map<string, any>} */
const memories = new Map();

/**
 * What a component remembers while the page stands, `start` at first.
 * @template T
 * @param {string} name
 * @param {T} start
 * @returns {T}
 */
export function memoryOf(name, start) {
  if (!memories.has(name)) memories.set(name, start);
  return memories.get(name);
}

/** @type {Set<string>} */
const busy = new Set();

/** Whether anything on the page runs: Stop and the run buttons look at it. @param {string} name @param {boolean} on */
export function markBusy(name, on) {
  busy[on ? "add" : "delete"](name);
  document.body.toggleAttribute("data-os-busy", busy.size > 0);
}

export const isBusy = () => busy.size > 0;

/** @param {string} place @returns {string[]} */
function stored(place) {
  try {
    const found = JSON.parse(sessionStorage.getItem(place) ?? "[]");
    return Array.isArray(found) ? found.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

/** The secret ids of this visit's runs, newest first, of several components. @param {string[]} names */
export const knownRuns = (...names) => names.flatMap((name) => stored(`open-sora-demo-${name}`));

// A run that goes on by itself is found by every page of this browser, the others by their own tab.
/** @param {string} name */
const keptPlace = (name) => `open-sora-demo-kept-${name}`;

/** @param {string} name @returns {string[]} */
function keptRun(name) {
  try {
    const id = localStorage.getItem(keptPlace(name));
    return id ? [id] : [];
  } catch {
    return [];
  }
}

/** The secret ids of the runs that go on by themselves, of several components. @param {string[]} names */
export const keptRuns = (...names) => names.flatMap(keptRun);

/** @param {string} name @param {string | null} job */
export function keepRun(name, job) {
  try {
    if (job) localStorage.setItem(keptPlace(name), job);
    else localStorage.removeItem(keptPlace(name));
  } catch {
    // As below.
  }
}

/**
 * The box by which a run is told to go on although its page is closed: there while one runs.
 * @param {Element} element
 * @param {string} name
 * @param {(event: string, data: unknown) => void} trigger
 * @returns {(view: { job: string, kept: boolean } | null, running: boolean) => void} what shows it for a run
 */
export function startKeep(element, name, trigger) {
  const label = element.querySelector(".os-keep");
  const box = label?.querySelector("input");
  let job = "";
  box?.addEventListener("change", () => {
    trigger("keep", { job, on: box.checked });
    keepRun(name, box.checked ? job : null);
  });
  return (view, running) => {
    if (!(label instanceof HTMLElement) || !box) return;
    label.hidden = !running || !view?.job;
    if (view && view.job !== job) box.checked = view.kept;
    job = view?.job ?? "";
  };
}

/**
 * The secret ids of this visit's runs, newest first, kept by the browser. A page that was loaded anew asks for them,
 * once; the function it answers with takes another.
 * @param {string} name
 * @param {number} most
 * @param {(event: string, data: unknown) => void} trigger
 */
export function rememberRuns(name, most, trigger) {
  const place = `open-sora-demo-${name}`;
  const memory = memoryOf(`runs of ${name}`, { asked: false });
  const own = stored(place);
  const jobs = [...own, ...keptRun(name).filter((id) => !own.includes(id))];
  const [going] = stored(`${place}-going`); // when this page was left
  if (!memory.asked && jobs.length) trigger("restore", { jobs, going });
  memory.asked = true;
  return (/** @type {string} */ job, /** @type {boolean} */ goes) => {
    const known = stored(place);
    if (!job) return;
    try {
      sessionStorage.setItem(`${place}-going`, JSON.stringify(goes ? [job] : []));
      if (known[0] === job) return;
      sessionStorage.setItem(place, JSON.stringify([job, ...known.filter((id) => id !== job)].slice(0, most)));
    } catch {
      // A browser that keeps nothing: the run is only lost with the page.
    }
  };
}

// The tab's title belongs to whatever runs; once that has ended it says so until somebody looks.
const TITLE = "Open-Sora Demo";
/** @type {Map<string, { text: string, running: boolean }>} */
const titles = new Map();

function showTitle() {
  const all = [...titles.values()];
  const shown = all.find((text) => text.running) ?? (document.hidden ? all[0] : undefined);
  document.title = shown ? `${shown.text} · ${TITLE}` : TITLE;
}

/** @param {string} name @param {string} text empty for nothing @param {boolean} running */
export function setTitle(name, text, running) {
  if (text) titles.set(name, { text, running });
  else titles.delete(name);
  showTitle();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const [name, text] of titles) if (!text.running) titles.delete(name);
  showTitle();
});
