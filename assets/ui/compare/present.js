// The comparison on a wall: the whole screen, large labels, keys.
import { find, onDocument } from "../lib/dom.js";

/** @param {HTMLElement} element @param {() => void} changed */
export function startPresent(element, changed) {
  const root = find(element, ".os-compare", HTMLElement);
  const button = find(element, ".os-compare-present", HTMLButtonElement);
  root.tabIndex = -1;
  const on = () => root.dataset.present === "true";

  /** @param {boolean} to */
  function set(to) {
    root.dataset.present = String(to);
    button.setAttribute("aria-pressed", String(to));
    document.documentElement.toggleAttribute("data-os-present", to);
    if (to) root.focus({ preventScroll: true }); // the space bar is the transport's, not the button's
    changed();
  }

  async function enter() {
    set(true);
    // Where the browser refuses the whole screen, its window is filled.
    await root.requestFullscreen?.().catch(() => {});
  }

  async function leave() {
    set(false);
    if (document.fullscreenElement === root) await document.exitFullscreen();
  }

  button.addEventListener("click", () => (on() ? leave() : enter()));
  onDocument(element, "fullscreenchange", () => {
    if (document.fullscreenElement !== root && on()) set(false);
  });
  return { on, enter, leave };
}
