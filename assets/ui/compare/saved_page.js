// A comparison as one HTML file that plays anywhere: this component's own modules, its value with every picture inside,
// nothing to fetch. Pure: a text from texts.

/** As HTML shows it. @param {string} text */
export const escaped = (text) => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

/** JSON that no end tag or comment can leave, whatever somebody typed. @param {unknown} value */
export const inScript = (value) =>
  JSON.stringify(value).replace(/[<>\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

const IMPORT = /(\bfrom\s*|\bimport\s*)"(\.{1,2}\/[^"]+)"/g;

/** @param {string} path of a module @param {string} relative address in it */
const resolved = (path, relative) => new URL(relative, `os:/${path}`).pathname.slice(1);

/** The paths of what a module imports. @param {string} source @param {string} path its own, "compare/compare.js" */
export const importsOf = (source, path) => [...source.matchAll(IMPORT)].map((found) => resolved(path, found[2] ?? ""));

/** A module whose imports go by names, since one inside a page has no address. @param {string} source @param {string} path */
export const named = (source, path) =>
  source.replace(IMPORT, (_, word, relative) => `${word}"os/${resolved(path, relative)}"`);

/** @param {string} source */
const dataAddress = (source) => `data:text/javascript;charset=utf-8,${encodeURIComponent(source)}`;

/**
 * @param {object} page
 * @param {string} page.language @param {string} page.title @param {string} page.template of the component
 * @param {string} page.settings every clip's, to be read @param {string} page.settingsTitle
 * @param {string} page.origin who made it
 * @param {string[]} page.styles @param {Record<string, string>} page.modules source by path
 * @param {Record<string, string>} page.messages @param {unknown} page.value
 */
export function savedPage({
  language,
  title,
  template,
  settings,
  settingsTitle,
  origin,
  styles,
  modules,
  messages,
  value,
}) {
  const imports = Object.fromEntries(
    Object.entries(modules).map(([path, source]) => [`os/${path}`, dataAddress(named(source, path))]),
  );
  return `<!doctype html>
<html lang="${escaped(language)}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${styles.join("\n")}</style>
<script>document.documentElement.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches)</script>
<script type="importmap">${inScript({ imports })}</script>
</head>
<body class="gradio-container os-saved">
<main id="grid">${template}</main>
<details><summary>${escaped(settingsTitle)}</summary><pre>${escaped(settings)}</pre></details>
<footer>${escaped(origin)}</footer>
<script type="application/json" id="messages">${inScript(messages)}</script>
<script type="application/json" id="value">${inScript(value)}</script>
<script type="module">
const { start } = await import("os/compare/compare.js");
const value = JSON.parse(document.getElementById("value").textContent);
start({ element: document.getElementById("grid"), trigger() {}, watch() {}, props: { value, name: "saved", saved: true } });
</script>
</body>
</html>
`;
}
