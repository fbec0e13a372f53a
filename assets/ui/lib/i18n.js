// Every sentence of the scripts and templates, in the language that the server chose for the visitor.
import { render } from "./messages.js";

/** @typedef {import("./messages.js").Message} Message */

/** @type {"en" | "zh"} */
export const language = document.documentElement.lang.startsWith("zh") ? "zh" : "en";
/** @type {import("./messages.js").Catalog} */
const catalog = JSON.parse(document.getElementById("messages")?.textContent ?? "{}");

/**
 * A sentence of the scripts' own.
 * @param {string} code
 * @param {Record<string, any>} [params]
 */
export const say = (code, params = {}) => render(catalog, { code, params });

/** What Python said. @param {Message} said */
export const words = (said) => render(catalog, said);

/** For those who listen: how a run ended, and what is to be noted. @param {Message} text @param {Message | null} note */
export const live = (text, note) => (note ? `${words(text)}. ${words(note)}` : words(text));

const ATTRIBUTES = { "data-say-label": "aria-label", "data-say-title": "title", "data-say-empty": "data-empty" };

/** Put the words of a template into their places. @param {HTMLElement} element */
export function sayAll(element) {
  for (const node of element.querySelectorAll("[data-say]"))
    node.textContent = say(node.getAttribute("data-say") ?? "");
  for (const [from, to] of Object.entries(ATTRIBUTES)) {
    for (const node of element.querySelectorAll(`[${from}]`)) node.setAttribute(to, say(node.getAttribute(from) ?? ""));
  }
}
