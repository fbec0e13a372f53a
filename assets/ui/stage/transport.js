// The thin line under the picture that plays the clip: pause, frame, speed, loop, full screen, keys.
import { calm } from "../lib/clock.js";
import { find, onDocument } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { clamp } from "../lib/maths.js";
import { frameAt } from "../lib/time.js";

const APART_S = 0.08; // two clips beside each other may be so far apart

/**
 * @param {HTMLElement} element
 * @param {() => number} fps of the clip
 * @param {() => boolean} shown whether the stage can be seen
 */
export function startTransport(element, fps, shown) {
  const video = find(element, ".os-video", HTMLVideoElement);
  const beside = find(element, ".os-old-video", HTMLVideoElement);
  const play = find(element, ".os-play", HTMLButtonElement);
  const seek = find(element, ".os-seek", HTMLInputElement);
  const speed = find(element, ".os-speed", HTMLSelectElement);
  const loop = find(element, ".os-loop", HTMLButtonElement);
  const place = find(element, ".os-place", HTMLElement);
  const keys = find(element, ".os-keys", HTMLElement);
  const help = find(element, ".os-help", HTMLButtonElement);
  const screens = find(element, ".os-screens", HTMLElement);
  // A visitor who wants no motion starts it himself.
  const state = { wanted: !calm.matches };

  const count = () => Math.max(Math.round((video.duration || 0) * fps()), 1);

  function showPlaying() {
    const on = !video.paused;
    play.dataset.on = String(on);
    const text = say(on ? "ui.stage.pause" : "ui.stage.play");
    play.setAttribute("aria-label", text);
    play.title = text;
  }

  function showPlace() {
    const total = count();
    const frame = frameAt(video.currentTime, fps(), total);
    const text = `${frame + 1} / ${total}`;
    if (place.textContent !== text) {
      seek.max = String(total - 1);
      seek.setAttribute("aria-valuetext", say("ui.stage.frame_of", { frame: frame + 1, total }));
      place.textContent = text;
    }
    if (seek.value !== String(frame)) seek.value = String(frame);
    if (beside.src && Math.abs(beside.currentTime - video.currentTime) > APART_S)
      beside.currentTime = video.currentTime;
  }

  const start = () => {
    state.wanted = true;
    video.play().catch(() => {});
  };
  const pause = () => {
    state.wanted = false;
    video.pause();
  };
  const toggle = () => (video.paused ? start() : pause());

  /** @param {number} to */
  function show(to) {
    showTime((clamp(to, 0, count() - 1) + 0.5) / fps());
  }

  /** @param {number} seconds */
  function showTime(seconds) {
    pause();
    video.currentTime = clamp(seconds, 0, Math.max((video.duration || 0) - 0.5 / fps(), 0));
  }

  function follow() {
    let waiting = false;
    const tick = () => {
      waiting = false;
      showPlace();
      if (!video.paused && shown()) wake();
    };
    const wake = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(tick);
    };
    return wake;
  }
  const wake = follow();

  video.addEventListener("play", () => {
    beside.play().catch(() => {});
    showPlaying();
    wake();
  });
  video.addEventListener("pause", () => {
    beside.pause();
    showPlaying();
  });
  for (const kind of ["seeked", "loadedmetadata"]) video.addEventListener(kind, showPlace);
  video.addEventListener("click", toggle);
  play.addEventListener("click", toggle);
  seek.addEventListener("input", () => show(Number(seek.value)));
  speed.addEventListener("change", () => setSpeed());
  function setSpeed() {
    for (const clip of [video, beside]) {
      clip.defaultPlaybackRate = Number(speed.value);
      clip.playbackRate = Number(speed.value);
    }
  }
  loop.addEventListener("click", () => {
    video.loop = !video.loop;
    beside.loop = video.loop;
    loop.setAttribute("aria-pressed", String(video.loop));
  });

  /** @param {boolean} on */
  function showKeys(on) {
    keys.hidden = !on;
    help.setAttribute("aria-expanded", String(on));
  }
  const toggleKeys = () => showKeys(Boolean(keys.hidden));
  help.addEventListener("click", toggleKeys);
  keys.addEventListener("click", () => showKeys(false));

  const full = () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else screens.requestFullscreen?.().catch(() => {});
  };
  find(element, ".os-full", HTMLButtonElement).addEventListener("click", full);
  find(element, ".os-full", HTMLButtonElement).hidden = !document.fullscreenEnabled;
  onDocument(element, "visibilitychange", wake);
  showPlaying();

  return {
    toggle,
    full,
    toggleKeys,
    step: (/** @type {number} */ by) => showTime(video.currentTime + by / fps()),
    /** Play what is on the screen, unless somebody has paused it or wants no motion. */
    resume() {
      if (state.wanted) video.play().catch(() => {});
    },
  };
}
