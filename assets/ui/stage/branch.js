// What one may do at a step of a run that is over: go on from it otherwise, or decode what it expects.
import { find, make } from "../lib/dom.js";
import { say, words } from "../lib/i18n.js";

/** @typedef {import("../types.js").StageValue} StageValue */

const SEEDS = 2 ** 32;

/** Settings that a branch may not start from: it would be one of a branch. @param {StageValue} view @param {number} step */
export const branchesTo = (view, step) => step < view.settings.steps && step <= (view.settings.branch_step ?? step);

/**
 * @param {HTMLElement} element
 * @param {(changes: Record<string, any>) => void} again run the clip's settings with changes
 * @param {() => void} close
 */
export function startBranch(element, again, close) {
  const form = find(element, ".os-branch", HTMLFormElement);
  /** @param {string} name */
  const input = (name) => find(form, `.os-branch-${name}`, HTMLInputElement);
  const rule = find(form, ".os-branch-rule", HTMLSelectElement);
  const go = find(form, ".os-branch-go", HTMLButtonElement);
  /** @type {{ view: StageValue | null, step: number }} */
  const at = { view: null, step: 0 };

  /** What stands in the form, where it is not what the clip has. @returns {Record<string, any>} */
  function changes() {
    if (!at.view) return {};
    const { settings } = at.view;
    /** @type {Record<string, any>} */
    const changed = {};
    const [prompt, negative, scale] = [
      input("prompt").value.trim(),
      input("negative").value.trim(),
      input("guidance").value,
    ];
    if (prompt && prompt !== settings.prompt) changed.branch_prompt = prompt;
    if (negative && negative !== (settings.negative ?? "")) changed.branch_negative = negative;
    if (scale !== "" && Number(scale) !== settings.guidance) changed.branch_guidance = Number(scale);
    if (rule.value !== (settings.rule ?? at.view.rules[0]?.name)) changed.branch_rule = rule.value;
    if (input("noise").checked) changed.branch_seed = Math.floor(Math.random() * SEEDS);
    return changed;
  }

  /** Nothing of a branch the clip may already have. @param {Record<string, any>} changed */
  function ask(changed) {
    const none = {
      branch_step: null,
      branch_prompt: "",
      branch_negative: "",
      branch_guidance: null,
      branch_rule: null,
    };
    again({ ...none, branch_seed: null, stop_step: null, ...changed });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask({ branch_step: at.step, ...changes() });
  });
  find(form, ".os-branch-decode", HTMLButtonElement).addEventListener("click", () => decode(at.view, at.step));
  find(form, ".os-branch-close", HTMLButtonElement).addEventListener("click", close);

  /** The clip of what a run expected after a step. @param {StageValue | null} view @param {number} step */
  function decode(view, step) {
    if (!view) return;
    const { settings } = view;
    const branched = (settings.branch_step ?? step) < step;
    if (branched) again({ stop_step: step });
    else ask({ stop_step: step });
  }

  return {
    decode,
    hide() {
      form.hidden = true;
    },
    /** The form for a step of a run, counted from 1. @param {StageValue} view @param {number} step */
    show(view, step) {
      const fresh = at.view?.run !== view.run;
      at.view = view;
      at.step = step;
      const can = branchesTo(view, step);
      find(form, ".os-branch-title", HTMLElement).textContent = say(can ? "ui.stage.from_step" : "ui.stage.at_step", {
        step,
        total: view.settings.steps,
      });
      find(form, ".os-branch-fields", HTMLElement).hidden = !can;
      go.hidden = !can;
      find(form, ".os-branch-decode", HTMLButtonElement).hidden = step >= view.settings.steps;
      form.hidden = false;
      if (!fresh) return;
      const { settings } = view;
      input("prompt").value = settings.prompt;
      input("negative").value = settings.negative ?? "";
      input("guidance").value = String(settings.guidance);
      input("guidance").min = String(view.scales[0]);
      input("guidance").max = String(view.scales[1]);
      input("noise").checked = false;
      rule.replaceChildren(
        ...view.rules.map(({ name, title }) => {
          const option = make("option", "", words(title));
          option.value = name;
          return option;
        }),
      );
      rule.value = settings.rule ?? view.rules[0]?.name ?? "";
    },
  };
}
