// The first click: an empty prompt runs what the page shows.
import { type } from "../composer/field.js";
import { memoryOf } from "../lib/session.js";

/** @typedef {import("../types.js").ExampleValue} Example */

/** The example that plays on the stage. @returns {{ shown: Example | null }} */
export const onStage = () => memoryOf("example on the stage", { shown: null });

/**
 * A form whose prompt is empty, with that of the example on the stage and its seed, else with the sentence that stands
 * in the empty field. It is written into the field too.
 * @param {string} selector of the prompt's field @param {string[]} names of the form @param {unknown[]} values
 */
export function filled(selector, names, ...values) {
  const field = document.querySelector(`${selector} textarea`);
  if (!(field instanceof HTMLTextAreaElement) || values[names.indexOf("prompt")] || field.value) return values;
  const example = onStage().shown;
  const prompt = example?.prompt ?? field.placeholder;
  type(field, prompt);
  return values.map((value, i) => {
    if (names[i] === "prompt") return prompt;
    return names[i] === "seed" && example && !value ? String(example.seed) : value;
  });
}
