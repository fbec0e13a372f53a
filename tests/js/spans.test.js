// The words of a prompt while it is typed.
import assert from "node:assert/strict";
import test from "node:test";
import { changeOf, finished, moved, pieces } from "../../assets/ui/composer/spans.js";

/** @param {number} start @param {number} end @param {import("../../assets/ui/types.js").PromptWordKind} kind */
const word = (start, end, kind) => ({ start, end, kind, value: "", near: "" });
const text = "a red ball at night";
const words = [word(2, 5, "colour"), word(6, 10, "shape"), word(11, 19, "place")];
/** @param {string} after */
const shown = (after) => moved(words, text, after).map((w) => after.slice(w.start, w.end));

test("the smallest change between two texts", () => {
  assert.deepEqual(changeOf("a red ball", "a blue ball"), { start: 2, end: 5, text: "blue" });
  assert.deepEqual(changeOf("aa", "aaa"), { start: 2, end: 2, text: "a" });
  assert.deepEqual(changeOf("abc", "abc"), { start: 3, end: 3, text: "" });
  assert.deepEqual(changeOf("", "x"), { start: 0, end: 0, text: "x" });
  assert.deepEqual(changeOf("x", ""), { start: 0, end: 1, text: "" });
});

test("words that a change leaves whole stay coloured and move along", () => {
  assert.deepEqual(shown("a red ball at night, "), ["red", "ball", "at night"]);
  assert.deepEqual(shown("a very red ball at night"), ["red", "ball", "at night"]);
  assert.deepEqual(shown("a ball at night"), ["ball", "at night"]);
  assert.deepEqual(shown("a reddish ball at night"), ["ball", "at night"]); // no longer the word that it was
  assert.deepEqual(shown("a red football at night"), ["red", "at night"]);
  assert.deepEqual(shown(""), []);
});

test("a text in pieces is the text", () => {
  const cut = pieces(text, words);
  assert.equal(cut.map((piece) => piece.text).join(""), text);
  assert.deepEqual(
    cut.filter((piece) => piece.word).map((piece) => piece.text),
    ["red", "ball", "at night"],
  );
  assert.deepEqual(pieces("", []), []);
});

test("an unknown word at the caret is still being typed", () => {
  const unknown = [word(0, 3, "unknown"), word(4, 7, "colour")];
  assert.equal(finished(unknown, 3).length, 1);
  assert.equal(finished(unknown, 7).length, 2);
  assert.equal(finished(unknown, null).length, 2);
});
