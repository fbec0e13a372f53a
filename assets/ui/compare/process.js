// The process under the transport: single steps of all clips at once, by hand or in slow motion.
import { find } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { clamp } from "../lib/maths.js";
import { stepped } from "./steps.js";

const STEPS_A_SECOND = 4;
const LONGEST_S = 1; // between two frames of the screen

/**
 * @param {HTMLElement} element
 * @param {() => number} total of the row with most steps
 * @param {() => number} speed
 * @param {() => void} changed
 */
export function startProcess(element, total, speed, changed) {
  const run = find(element, ".os-compare-run", HTMLElement);
  const slider = find(element, ".os-compare-step", HTMLInputElement);
  const place = find(element, ".os-compare-step-text", HTMLElement);
  // `at` is a step from 1, or null for the clip, which comes after the last.
  const state = { at: /** @type {number | null} */ (null), running: false, before: 0 };

  const step = () => (state.at === null ? null : Math.floor(state.at));

  /** @param {boolean} on */
  function setRunning(on) {
    state.running = on;
    state.before = performance.now();
    run.dataset.on = String(on);
    run.setAttribute("aria-label", say(on ? "ui.compare.process.pause" : "ui.compare.process.play"));
    run.title = say("ui.compare.process.hint");
    if (on) changed();
  }

  /** @param {number} to a step, or one more for the clip */
  function go(to) {
    setRunning(false);
    const next = clamp(to, 1, total() + 1);
    state.at = next > total() ? null : next;
    changed();
  }

  function toggle() {
    if (state.running) return setRunning(false);
    state.at ??= 1;
    setRunning(true);
  }

  run.addEventListener("click", toggle);
  find(element, ".os-compare-earlier", HTMLElement).addEventListener("click", () => move(-1));
  find(element, ".os-compare-later", HTMLElement).addEventListener("click", () => move(1));
  slider.addEventListener("input", () => go(Number(slider.value)));
  /** @param {number} by */
  const move = (by) => go((step() ?? total() + 1) + by);
  setRunning(false);

  return {
    toggle,
    move,
    running: () => state.running,
    /** The share of the way that is shown; null for the clips. */
    share: () => (state.at === null ? null : Math.floor(state.at) / total()),
    reset() {
      setRunning(false);
      state.at = null;
    },
    show() {
      const [now, most] = [step(), total()];
      slider.max = String(most + 1);
      if (document.activeElement !== slider || state.running) slider.value = String(now ?? most + 1);
      const text = now === null ? say("ui.compare.step.clip") : say("ui.compare.step.of", { step: now, total: most });
      if (place.textContent === text) return;
      slider.setAttribute("aria-valuetext", text);
      place.textContent = text;
    },
    /** Go on to a time of the screen's clock. @param {number} now */
    advance(now) {
      const seconds = Math.min(Math.max(now - state.before, 0) / 1000, LONGEST_S);
      state.before = now;
      if (!state.running || state.at === null) return;
      const { at, ended } = stepped(state.at, seconds, STEPS_A_SECOND * speed(), total());
      state.at = ended ? null : at;
      if (ended) setRunning(false);
    },
  };
}
