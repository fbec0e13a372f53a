// Something is copied, and what was pressed says so.
import { make } from "./dom.js";
import { say } from "./i18n.js";

const COPIED_MS = 1500;
const SAID = 80; // characters of what was copied that are read aloud

/** The component of what was pressed says so to those who listen, too. @param {string} text @param {HTMLElement} node */
export async function copy(text, node) {
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
  node.dataset.copied = say("ui.stage.copied");
  const live = node.closest("section")?.querySelector("[aria-live]");
  if (live) live.textContent = `${say("ui.stage.copied")}: ${text.slice(0, SAID)}`;
  setTimeout(() => delete node.dataset.copied, COPIED_MS);
}

/** An address of this page with other settings. @param {string} query */
export const pageAddress = (query) => `${location.origin}${location.pathname}?${query}`;
