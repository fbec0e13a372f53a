// "Save as a page": what the saved page is made of is fetched where this module came from.
import { make } from "../lib/dom.js";
import { language, say } from "../lib/i18n.js";
import { importsOf, savedPage } from "./saved_page.js";

/** @typedef {import("../types.js").CompareValue} CompareValue */
/** @typedef {import("../types.js").FileValue} FileValue */

const STYLES = ["compare/saved.css", "page/page.css", "compare/compare.css"];
const CODES = /^(plain|join|label|note|run|ui\.(compare|time|stage))\b/; // of the messages that the page may say

/** @param {string} path */
async function textOf(path) {
  const answer = await fetch(new URL(`../${path}`, import.meta.url));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.text();
}

/** A module and all that it imports, by path. @param {string} first */
async function modulesOf(first) {
  /** @type {Record<string, string>} */
  const sources = {};
  const waiting = [first];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (path in sources) continue;
    sources[path] = await textOf(path);
    waiting.push(...importsOf(sources[path] ?? "", path));
  }
  return sources;
}

/** A file with its content as its address. @param {FileValue} file @returns {Promise<FileValue>} */
async function inside(file) {
  const content = await (await fetch(file.url)).blob();
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(content);
  });
  return { orig_name: file.orig_name, url };
}

/** @param {CompareValue} view @returns {Promise<CompareValue>} */
async function whole(view) {
  const cells = view.cells.map((row) =>
    Promise.all(
      row.map(async (cell) => {
        if (cell.state !== "done") return cell;
        const [sheet, mosaic] = [cell.sheet, cell.mosaic];
        return {
          ...cell,
          file: { orig_name: cell.file.orig_name, url: "" },
          sheet: { ...sheet, file: await inside(sheet.file) },
          mosaic: mosaic && { ...mosaic, file: await inside(mosaic.file) },
        };
      }),
    ),
  );
  return { ...view, job: "", grid: null, numbers: null, cells: await Promise.all(cells) };
}

/** The comparison as an HTML file. @param {CompareValue} view @returns {Promise<Blob>} */
export async function pageOf(view) {
  const [modules, template, value, ...styles] = await Promise.all([
    modulesOf("compare/compare.js"),
    textOf("compare/compare.html"),
    whole(view),
    ...STYLES.map(textOf),
  ]);
  const catalog = JSON.parse(document.getElementById("messages")?.textContent ?? "{}");
  const settings = view.cells.flat().flatMap((cell) => (cell.state === "done" ? [cell.settings] : []));
  const html = savedPage({
    language: document.documentElement.lang || language,
    title: `${view.prompt} · Open-Sora Demo`,
    template,
    settings: settings.map((one) => JSON.stringify(one)).join("\n"),
    settingsTitle: say("ui.compare.settings"),
    origin: say("ui.compare.origin"),
    styles,
    modules,
    messages: Object.fromEntries(Object.entries(catalog).filter(([code]) => CODES.test(code))),
    value,
  });
  return new Blob([html], { type: "text/html" });
}

/** @param {CompareValue} view */
export async function savePage(view) {
  const link = make("a");
  link.href = URL.createObjectURL(await pageOf(view));
  link.download = `${(view.grid?.orig_name ?? "comparison.mp4").replace(/\.mp4$/, "")}.html`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
