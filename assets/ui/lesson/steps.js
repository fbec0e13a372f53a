// The six steps: what each asks, what it runs on the real tabs, and what its exercise is called. Pure.

/** @typedef {"noise" | "guess" | "steps" | "guidance" | "seed" | "failure"} StepName */
/** @typedef {"ui.generate" | "ui.compare" | "ui.scope"} Tab the code of its name */
/**
 * Texts are codes of the catalogs; `right` is the option that is right.
 * @typedef {object} Step
 * @property {StepName} name
 * @property {string} title
 * @property {string} text
 * @property {string} ask
 * @property {string[]} options
 * @property {number} right
 * @property {string} answer
 * @property {string} exercise
 * @property {string} notes for whoever teaches
 * @property {"clip" | "compare"} run
 * @property {Tab} tab where one sees what comes of it
 * @property {string} prompt
 * @property {Record<string, number | string>} settings beside the prompt and the model
 */

export const MODEL = "nano";
const ONE = { seed: 7, steps: 16, guidance: 4, fps: 8, frames: 17, rule: "plain" };

/** @type {Step[]} */
export const STEPS = [
  {
    name: "noise",
    title: "ui.lesson.noise",
    text: "ui.lesson.noise.text",
    ask: "ui.lesson.noise.ask",
    options: ["ui.lesson.noise.a", "ui.lesson.noise.b", "ui.lesson.noise.c"],
    right: 1,
    answer: "ui.lesson.noise.answer",
    exercise: "ui.lesson.noise.exercise",
    notes: "ui.lesson.noise.notes",
    run: "clip",
    tab: "ui.generate",
    prompt: "ui.example_toy",
    settings: ONE,
  },
  {
    name: "guess",
    title: "ui.lesson.guess",
    text: "ui.lesson.guess.text",
    ask: "ui.lesson.guess.ask",
    options: ["ui.lesson.guess.a", "ui.lesson.guess.b", "ui.lesson.guess.c"],
    right: 2,
    answer: "ui.lesson.guess.answer",
    exercise: "ui.lesson.guess.exercise",
    notes: "ui.lesson.guess.notes",
    run: "clip",
    tab: "ui.scope",
    prompt: "ui.example_toy",
    settings: ONE,
  },
  {
    name: "steps",
    title: "ui.lesson.steps",
    text: "ui.lesson.steps.text",
    ask: "ui.lesson.steps.ask",
    options: ["ui.lesson.steps.a", "ui.lesson.steps.b", "ui.lesson.steps.c"],
    right: 0,
    answer: "ui.lesson.steps.answer",
    exercise: "ui.lesson.steps.exercise",
    notes: "ui.lesson.steps.notes",
    run: "compare",
    tab: "ui.compare",
    prompt: "ui.lesson.prompt_star",
    settings: { ...ONE, scales: "4", axis: "steps", rows: "1, 3, 6, 16" },
  },
  {
    name: "guidance",
    title: "ui.lesson.guidance",
    text: "ui.lesson.guidance.text",
    ask: "ui.lesson.guidance.ask",
    options: ["ui.lesson.guidance.a", "ui.lesson.guidance.b", "ui.lesson.guidance.c"],
    right: 1,
    answer: "ui.lesson.guidance.answer",
    exercise: "ui.lesson.guidance.exercise",
    notes: "ui.lesson.guidance.notes",
    run: "compare",
    tab: "ui.compare",
    prompt: "ui.example_toy",
    settings: { ...ONE, scales: "0, 1, 4, 15", axis: "none", rows: "" },
  },
  {
    name: "seed",
    title: "ui.lesson.seed",
    text: "ui.lesson.seed.text",
    ask: "ui.lesson.seed.ask",
    options: ["ui.lesson.seed.a", "ui.lesson.seed.b", "ui.lesson.seed.c"],
    right: 2,
    answer: "ui.lesson.seed.answer",
    exercise: "ui.lesson.seed.exercise",
    notes: "ui.lesson.seed.notes",
    run: "compare",
    tab: "ui.compare",
    prompt: "ui.lesson.prompt_star",
    settings: { ...ONE, scales: "1, 7", axis: "seed", rows: "1, 2, 3" },
  },
  {
    name: "failure",
    title: "ui.lesson.failure",
    text: "ui.lesson.failure.text",
    ask: "ui.lesson.failure.ask",
    options: ["ui.lesson.failure.a", "ui.lesson.failure.b", "ui.lesson.failure.c"],
    right: 1,
    answer: "ui.lesson.failure.answer",
    exercise: "ui.lesson.failure.exercise",
    notes: "ui.lesson.failure.notes",
    run: "clip",
    tab: "ui.generate",
    prompt: "ui.lesson.prompt_elephant",
    settings: ONE,
  },
];

/**
 * Which step (from 0) an address opens, null for none: "?lesson=3" is the third.
 * @param {string} query @param {number} [count]
 */
export function stepOf(query, count = STEPS.length) {
  const text = new URLSearchParams(query).get("lesson");
  if (text === null) return null;
  const number = Math.round(Number(text)) || 1;
  return Math.min(Math.max(number, 1), count) - 1;
}

/** The query of an address with a step of the lesson (from 0) in it, or without one. @param {string} query @param {number | null} step */
export function withStep(query, step) {
  const search = new URLSearchParams(query);
  if (step === null) search.delete("lesson");
  else search.set("lesson", String(step + 1));
  const text = search.toString();
  return text ? `?${text}` : "";
}
