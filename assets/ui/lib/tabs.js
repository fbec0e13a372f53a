// The page's tabs, by what is written on them.
import { say } from "./i18n.js";

/** Turn to a tab. @param {string} code of its name */
export function turnTo(code) {
  const name = say(code);
  const tabs = [...document.querySelectorAll(".os-tabs [role=tab]")];
  const tab = tabs.find((node) => node.textContent?.trim() === name);
  if (!(tab instanceof HTMLElement)) return;
  tab.click();
  if (matchMedia("(max-width: 860px)").matches) tab.scrollIntoView({ block: "start" });
}
