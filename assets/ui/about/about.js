// The last line of the page: how long the line for the device is now, and what this instance is.
import { duration } from "../lib/clock.js";
import { find } from "../lib/dom.js";
import { say } from "../lib/i18n.js";

const EVERY_MS = 20_000;

/** @typedef {{ waiting: number, busy: boolean, wait_s: number | null }} Line */

/** @param {Line} line */
export function sentence({ waiting, busy, wait_s }) {
  if (!busy && waiting === 0) return say("ui.about.free");
  const time = wait_s === null ? null : duration(wait_s);
  if (waiting === 0) return time ? say("ui.about.busy_for", { time }) : say("ui.about.busy");
  return time ? say("ui.about.waiting_for", { n: waiting, time }) : say("ui.about.waiting", { n: waiting });
}

/** @param {import("../lib/host.js").Host<unknown>} host */
export function start({ element }) {
  const node = find(element, ".os-line", HTMLElement);
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(new URL("status", document.baseURI));
      node.textContent = answer.ok ? sentence(await answer.json()) : "";
    } catch {
      node.textContent = ""; // Gradio says that the connection is lost
    }
  };
  document.addEventListener("visibilitychange", look);
  setInterval(look, EVERY_MS);
  look();
}
