import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { render, writtenNumber } from "../../assets/ui/lib/messages.js";

const CATALOG = {
  "join.words": " + ",
  plain: "{text}",
  between: "from {low} to {high}",
  outer: "<{inner}> {list}",
};

test("places are filled, and braces in a text mean nothing", () => {
  assert.equal(render(CATALOG, { code: "between", params: { low: 1, high: "{low} $& \\1" } }), "from 1 to {low} $& \\1");
});

test("messages in messages and lists", () => {
  const inner = { code: "between", params: { low: 0.5, high: ["a", { code: "plain", params: { text: "b" } }, 3] } };
  assert.equal(render(CATALOG, { code: "outer", params: { inner, list: ["x", "y"] } }), "<from 0.5 to a + b + 3> x + y");
});

test("what is missing is said in the log, and shown as it is", (context) => {
  const log = context.mock.method(console, "error", () => {});
  assert.equal(render(CATALOG, { code: "nothing", params: {} }), "nothing");
  assert.equal(render(CATALOG, { code: "between", params: { low: 1 } }), "from 1 to {high}");
  assert.equal(log.mock.callCount(), 2);
});

// The same as tests/unit/test_messages.py asks of Python.
const json = (/** @type {string} */ path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf-8"));
const TABLE = json("messages.json");

test("messages of the catalogs, as Python renders them", () => {
  assert.ok(TABLE.length > 12);
  for (const language of ["en", "zh"]) {
    const catalog = json(`../../opensora_demo/messages/${language}.json`);
    for (const row of TABLE) assert.equal(render(catalog, row.said), row[language]);
  }
});

// The same as tests/js/test_js.py asks of Python.
const NUMBERS = json("numbers.json");

test("numbers as a reader expects them", () => {
  assert.ok(NUMBERS.length > 9);
  for (const [number, text] of NUMBERS) assert.equal(writtenNumber(number), text);
  assert.equal(writtenNumber(1e21), "1000000000000000000000");
});
