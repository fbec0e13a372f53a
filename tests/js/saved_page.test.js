import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { escaped, importsOf, inScript, named, savedPage } from "../../assets/ui/compare/saved_page.js";

const EVIL = `</script><img src=x onerror=alert(1)> <!-- "'& \u2028`;
const page = (/** @type {any} */ more = {}) =>
  savedPage({
    language: "en",
    title: EVIL,
    template: "<section></section>",
    settings: EVIL,
    settingsTitle: "Settings",
    origin: EVIL,
    styles: ["p { color: red }"],
    modules: { "compare/compare.js": 'import { a } from "../lib/a.js";\nexport const start = () => a;\n', "lib/a.js": "export const a = 1;\n" },
    messages: { "ui.x": EVIL },
    value: { prompt: EVIL },
    ...more,
  });

test("what somebody typed stays a text, wherever it stands", () => {
  const html = page();
  assert.equal(html.match(/<\/script>/g)?.length, html.match(/<script/g)?.length);
  assert.equal(html.match(/<script/g)?.length, 5);
  assert.ok(!html.includes("<img"));
  assert.ok(!html.includes("<!--"));
  const value = html.match(/id="value">(.*?)<\/script>/)?.[1] ?? "";
  assert.deepEqual(JSON.parse(value), { prompt: EVIL });
});

test("nothing but itself is asked for", () => {
  const html = page();
  assert.ok(!/(src|href)="?(https?:|\/)/.test(html));
  const map = JSON.parse(html.match(/importmap">(.*?)<\/script>/)?.[1] ?? "");
  assert.deepEqual(Object.keys(map.imports), ["os/compare/compare.js", "os/lib/a.js"]);
  const source = decodeURIComponent(map.imports["os/compare/compare.js"].split(",")[1]);
  assert.ok(source.startsWith('import { a } from "os/lib/a.js";'));
});

test("every import of the component is found", () => {
  const waiting = ["compare/compare.js"];
  const seen = new Set();
  for (let path = waiting.pop(); path; path = waiting.pop()) {
    if (seen.has(path)) continue;
    seen.add(path);
    const source = readFileSync(new URL(`../../assets/ui/${path}`, import.meta.url), "utf8");
    waiting.push(...importsOf(source, path));
    assert.ok(!/from\s*"\./.test(named(source, path)), path);
  }
  for (const path of ["compare/cells.js", "lib/dom.js", "lib/messages.js"]) assert.ok(seen.has(path), path);
  assert.ok(![...seen].some((path) => path.startsWith("stage/")), "the stage is no part of a saved page");
});

test("texts", () => {
  assert.equal(escaped(`<a b="c">'&`), "&#60;a b=&#34;c&#34;&#62;&#39;&#38;");
  assert.deepEqual(JSON.parse(inScript([EVIL])), [EVIL]);
});
