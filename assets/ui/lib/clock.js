// Time on the page: how it is said, and loops that run only while somebody can see them.
import { say } from "./i18n.js";

/** "9.9 s", "42 s", "3 min 5 s". @param {number} s */
export function duration(s) {
  if (s < 99.5) return say("ui.time.s", { s: s < 9.95 ? s.toFixed(1) : Math.round(s) });
  const whole = Math.round(s);
  return say("ui.time.min_s", { min: Math.floor(whole / 60), s: whole % 60 });
}

/**
 * What a run has taken and what is left of it, `since` seconds after its value came.
 * @param {{ elapsed: number, left: number | null }} view
 * @param {number | null} since null once it is over
 */
export function timeText(view, since) {
  const spent = duration(view.elapsed + (since ?? 0));
  if (since === null || view.left === null) return spent;
  return say("ui.time.left", { spent, left: duration(Math.max(view.left - since, 0)) });
}

/**
 * A loop over the frames of the screen. It goes on while `step` says so and any of the nodes can be seen: not in a
 * hidden tab, not off the screen. The function it answers with wakes it.
 * @param {Element[]} nodes
 * @param {(now: number) => boolean} step
 */
export function animation(nodes, step) {
  /** @type {Set<Element>} */
  const seen = new Set();
  let waiting = false;
  const wake = () => {
    if (waiting || !seen.size) return;
    waiting = true;
    requestAnimationFrame((now) => {
      waiting = false;
      if (seen.size && step(now)) wake();
    });
  };
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target);
    wake();
  });
  for (const node of nodes) observer.observe(node);
  return wake;
}

/** Whether the visitor asked for less motion. */
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
