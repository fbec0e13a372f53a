// One clock for every clip of the comparison, and the controls that move it.
import { calm } from "../lib/clock.js";
import { find } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { clamp } from "../lib/maths.js";
import { advanced, frameAt } from "../lib/time.js";

const LONGEST_STEP_S = 1; // of the clock, between two frames of the screen

/**
 * @param {HTMLElement} element
 * @param {() => { frames: number, fps: number }} clip the clip that lasts longest
 * @param {() => void} changed the clock was set, or has begun to run
 */
export function startTransport(element, clip, changed) {
  const play = find(element, ".os-compare-play", HTMLElement);
  const seek = find(element, ".os-compare-seek", HTMLInputElement);
  const speed = find(element, ".os-compare-speed", HTMLSelectElement);
  const loop = find(element, ".os-compare-loop", HTMLInputElement);
  const place = find(element, ".os-compare-frame", HTMLElement);
  const state = { at: 0, before: 0, playing: !calm.matches };

  function showPlaying() {
    play.setAttribute("aria-label", say(state.playing ? "ui.compare.pause" : "ui.compare.play"));
    play.dataset.on = String(state.playing);
  }

  /** @param {boolean} on */
  function setPlaying(on) {
    state.playing = on;
    state.before = performance.now();
    showPlaying();
    if (on) changed();
  }

  const frame = () => frameAt(state.at, clip().fps, clip().frames);

  /** @param {number} to */
  function seekTo(to) {
    setPlaying(false);
    state.at = (clamp(to, 0, clip().frames - 1) + 0.5) / clip().fps;
    changed();
  }

  function show() {
    const { frames } = clip();
    const now = say("ui.compare.frame_of", { frame: frame() + 1, total: frames });
    if (seek.getAttribute("aria-valuetext") === now) return;
    if (document.activeElement !== seek || state.playing) seek.value = String(frame());
    seek.max = String(frames - 1);
    seek.setAttribute("aria-valuetext", now);
    place.textContent = `${frame() + 1} / ${frames}`;
  }

  play.addEventListener("click", () => setPlaying(!state.playing));
  find(element, ".os-compare-back", HTMLElement).addEventListener("click", () => seekTo(frame() - 1));
  find(element, ".os-compare-forth", HTMLElement).addEventListener("click", () => seekTo(frame() + 1));
  seek.addEventListener("input", () => seekTo(Number(seek.value)));
  showPlaying();

  return {
    at: () => state.at,
    frame,
    speed: () => Number(speed.value),
    /** The next speed of the list. */
    slower() {
      speed.selectedIndex = (speed.selectedIndex + speed.options.length - 1) % speed.options.length;
    },
    playing: () => state.playing,
    toggle: () => setPlaying(!state.playing),
    step: (/** @type {number} */ frames) => seekTo(frame() + frames),
    show,
    rewind() {
      state.at = 0;
    },
    /** Go on to a time of the screen's clock; `endless` while clips are still being made. @param {number} now @param {boolean} endless */
    advance(now, endless) {
      // A loop that stood still while nobody could see it goes on where it was.
      const by = Math.min(Math.max(now - state.before, 0) / 1000, LONGEST_STEP_S) * Number(speed.value);
      state.before = now;
      if (!state.playing) return;
      const { frames, fps } = clip();
      const { at, ended } = advanced(state.at, by, frames / fps, loop.checked || endless);
      state.at = ended ? (frames - 0.5) / fps : at;
      if (ended) setPlaying(false);
    },
  };
}
