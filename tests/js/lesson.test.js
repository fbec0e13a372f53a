import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { STEPS, stepOf, withStep } from "../../assets/ui/lesson/steps.js";

test("an address opens a step of the lesson, within those there are", () => {
  const opened = ["?lesson=3", "?a=1&lesson=1", "?lesson=99", "?lesson=0", "?lesson=x", "?lesson", "?prompt=a", ""];
  assert.deepEqual(opened.map((query) => stepOf(query)), [2, 0, 5, 0, 0, 0, null, null]);
});

test("the step goes into the address, and out of it; what else stands there stays", () => {
  assert.equal(withStep("?prompt=a+ball", 1), "?prompt=a+ball&lesson=2");
  assert.equal(withStep("?lesson=2&prompt=a", 4), "?lesson=5&prompt=a");
  assert.equal(withStep("?lesson=2", null), "");
  assert.equal(withStep("?lesson=2&prompt=a", null), "?prompt=a");
});

test("every step asks before it shows, and all its words are there", () => {
  const catalog = JSON.parse(readFileSync("../../opensora_demo/messages/en.json", "utf-8"));
  assert.deepEqual(STEPS.map(({ name }) => name), ["noise", "guess", "steps", "guidance", "seed", "failure"]);
  for (const step of STEPS) {
    assert.equal(step.options.length, 3);
    assert.ok(step.right in step.options);
    const codes = [step.title, step.text, step.ask, ...step.options, step.answer, step.exercise, step.notes];
    for (const code of [...codes, step.prompt, step.tab]) assert.ok(catalog[code], code);
    assert.equal("scales" in step.settings, step.run === "compare");
  }
  assert.equal(new Set(STEPS.map(({ right }) => right)).size, 3); // not always the same place
});
