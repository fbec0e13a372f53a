// The words of the prompt, and how much a patch reads each of them.
import { make } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { largest } from "../lib/maths.js";
import { two } from "./parts.js";

/** What closes a prompt, as the server names it. @type {Record<string, string>} */
const MARKS = { end: "ui.explain.mark.end", padding: "ui.explain.mark.padding" };

/** Whether the k-th of a prompt's words is a mark behind it. @param {string[]} words @param {number} k */
export function isMark(words, k) {
  const last = words.length - 1;
  const closing = k === last || (k === last - 1 && words[last] === "padding");
  return closing && (words[k] ?? "") in MARKS;
}

/** @param {string[]} words */
function chipsOf(words) {
  const list = make("div", "os-explain-chips");
  const chips = words.map((word, k) => {
    const node = make("span", "os-explain-chip");
    const weight = make("small");
    const bar = make("i");
    const mark = isMark(words, k) ? MARKS[word] : undefined;
    if (mark) node.classList.add("os-explain-mark");
    node.append(make("b", "", mark ? say(mark) : word), weight, bar);
    list.append(node);
    return { node, weight, bar };
  });
  return { title: make("span"), list, chips };
}

/** @param {string[]} words */
export function startWords(words) {
  const node = make("div", "os-explain-reads");
  /** @type {ReturnType<typeof chipsOf>[]} */
  const rows = [];
  return {
    node,
    /**
     * @param {number[][]} weights a row for each reading
     * @param {string[]} kinds after which attention each is read
     */
    show(weights, kinds) {
      const most = largest(weights.flat()) || 1;
      while (rows.length < weights.length) rows.push(chipsOf(words));
      rows.length = weights.length;
      weights.forEach((row, r) => {
        const { title, chips } = /** @type {ReturnType<typeof chipsOf>} */ (rows[r]);
        title.textContent = say(
          weights.length === 1 ? "ui.explain.reads" : (AFTER[kinds[r] ?? ""] ?? "ui.explain.reads"),
        );
        row.forEach((weight, k) => {
          const chip = chips[k];
          if (!chip) return;
          chip.weight.textContent = two(weight);
          chip.bar.style.transform = `scaleX(${(weight / most).toFixed(3)})`;
          chip.node.dataset.weight = weight.toFixed(4);
        });
      });
      node.replaceChildren(...rows.flatMap(({ title, list }) => [title, list]));
    },
  };
}

/** @type {Record<string, string>} */
const AFTER = { space: "ui.explain.reads_space", time: "ui.explain.reads_time" };
