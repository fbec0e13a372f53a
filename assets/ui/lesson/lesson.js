// The lesson: six steps that ask before they show. They run on the real tabs; the reader network checks the exercises.
import { button, find, make, onDocument } from "../lib/dom.js";
import { isHeld, readdress } from "../lib/form.js";
import { language, say, sayAll, words } from "../lib/i18n.js";
import { isBusy, knownRuns, memoryOf } from "../lib/session.js";
import { turnTo } from "../lib/tabs.js";
import { MODEL, STEPS, stepOf, withStep } from "./steps.js";

/** @typedef {import("../types.js").LessonValue} LessonValue */
/** @typedef {import("../types.js").CheckedClip} CheckedClip */
/** @typedef {import("./steps.js").Step} Step */
/** @typedef {{ open: boolean, step: number, picked: Map<string, number>, shown: Set<string>, ran: string, checked: LessonValue | null, linked: boolean }} Memory */

const KINDS = /** @type {const} */ ({
  colour: "ui.compare.mark.colour",
  shape: "ui.compare.mark.shape",
  motion: "ui.compare.mark.motion",
  place: "ui.compare.mark.place",
});

/** What a step hands to Python: its settings as the forms take them. @param {Step} step */
const formOf = (step) => ({ model: MODEL, prompt: say(step.prompt), ...step.settings });

/** A checked clip in a line. @param {CheckedClip} clip */
export function lineOf(clip) {
  const marks = clip.marks.flatMap(({ kind, asked, seen, right }) => {
    if (!asked.length) return [];
    const what = say(KINDS[kind]);
    return [right ? `✓ ${what}` : `✗ ${what} (${seen.map((word) => word[language]).join(", ")})`];
  });
  return `${say("ui.lesson.clip", clip)} ${marks.join("  ")}`;
}

/** @param {import("../lib/host.js").Host<LessonValue | import("../types.js").IdleValue>} host */
export function start({ element, trigger, props, watch }) {
  sayAll(element);
  const root = find(element, ".os-lesson", HTMLElement);
  /** @param {string} selector */
  const $ = (selector) => find(root, selector, HTMLElement);
  /** @param {string} selector */
  const press = (selector) => find(root, selector, HTMLButtonElement);
  const linked = stepOf(location.search);
  // What outlives a rebuilt element.
  /** @type {Memory} */
  const memory = memoryOf("lesson", {
    open: linked !== null,
    step: linked ?? 0,
    picked: new Map(),
    shown: new Set(),
    ran: "",
    checked: null,
    linked: false,
  });
  const step = () => /** @type {Step} */ (STEPS[memory.step]);
  const [again, answer] = [press(".os-lesson-try"), press(".os-lesson-show")];

  const numbers = STEPS.map((own, i) => {
    const node = button("", `${i + 1} ${say(own.title)}`, () => go(i));
    $(".os-lesson-steps").append(node);
    return node;
  });

  function showOptions() {
    const { name, options, right, ask } = step();
    const picked = memory.picked.get(name);
    const shown = memory.shown.has(name);
    const box = $(".os-lesson-options");
    box.setAttribute("aria-label", say(ask));
    box.replaceChildren(
      ...options.map((code, i) => {
        const node = button("", say(code), () => {
          memory.picked.set(name, i);
          render();
          find(box, `[aria-checked="true"]`, HTMLElement).focus();
        });
        node.setAttribute("role", "radio");
        node.setAttribute("aria-checked", String(i === picked));
        node.tabIndex = i === (picked ?? 0) ? 0 : -1;
        if (shown && (i === right || i === picked)) node.dataset.right = String(i === right);
        return node;
      }),
    );
  }
  $(".os-lesson-options").addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const nodes = [...$(".os-lesson-options").children];
    const at = nodes.indexOf(/** @type {Element} */ (document.activeElement));
    const next = nodes[(at + move + nodes.length) % nodes.length];
    if (next instanceof HTMLElement) next.focus();
  });

  function showChecked() {
    const { checked } = memory;
    const own = checked?.exercise === step().name ? checked : null;
    const found = $(".os-lesson-found");
    found.textContent = own ? words(own.text) : "";
    found.dataset.solved = String(own?.solved ?? false);
    $(".os-lesson-clips").replaceChildren(
      ...(own?.clips ?? []).map((clip) => {
        const line = make("li", "", lineOf(clip));
        line.dataset.counts = String(clip.counts);
        return line;
      }),
    );
  }

  function render() {
    const { name, title, text, ask, exercise, notes, answer: said } = step();
    root.hidden = !memory.open;
    document.querySelector(".os-lesson-open")?.setAttribute("aria-expanded", String(memory.open));
    root.dataset.step = name;
    numbers.forEach((node, i) => {
      if (i === memory.step) node.setAttribute("aria-current", "step");
      else node.removeAttribute("aria-current");
    });
    $("h2").textContent = `${memory.step + 1}  ${say(title)}`;
    $(".os-lesson-text").textContent = say(text);
    $(".os-lesson-ask").textContent = say(ask);
    $(".os-lesson-exercise").textContent = say(exercise);
    $(".os-lesson-notes").textContent = say(notes);
    find(root, ".os-lesson-link", HTMLAnchorElement).href = location.pathname + withStep("", memory.step);
    const picked = memory.picked.has(name);
    const shown = memory.shown.has(name);
    again.disabled = !picked || isBusy();
    answer.hidden = !picked || shown;
    $(".os-lesson-hint").textContent = picked ? "" : say("ui.lesson.first");
    $(".os-lesson-answer").textContent = shown ? say(said) : "";
    press(".os-lesson-back").disabled = memory.step === 0;
    press(".os-lesson-next").disabled = memory.step === STEPS.length - 1;
    showOptions();
    showChecked();
  }

  /** The address names the step, so that it can be shared and comes back when the page is loaded anew. */
  function address() {
    const query = withStep(location.search, memory.open ? memory.step : null);
    history.replaceState(history.state, "", location.pathname + query + location.hash);
    readdress();
  }

  /** @param {number} to */
  function go(to) {
    memory.step = to;
    memory.open = true;
    address();
    render();
    turnTo(step().tab);
  }

  function close() {
    memory.open = false;
    address();
    render();
    const opener = document.querySelector(".os-lesson-open");
    if (opener instanceof HTMLElement) opener.focus();
  }

  function reveal() {
    memory.shown.add(step().name);
    render();
  }

  again.addEventListener("click", () => {
    if (isBusy()) return;
    memory.ran = step().name;
    turnTo(step().tab);
    trigger(step().run, formOf(step()));
  });
  answer.addEventListener("click", reveal);
  press(".os-lesson-check").addEventListener("click", () =>
    trigger("check", { exercise: step().name, prompt: say(step().prompt), jobs: knownRuns("grid", "stage") }),
  );
  press(".os-lesson-back").addEventListener("click", () => go(memory.step - 1));
  press(".os-lesson-next").addEventListener("click", () => go(memory.step + 1));
  press(".os-lesson-close").addEventListener("click", close);
  $(".os-lesson-link").addEventListener("click", (event) => {
    if (!navigator.clipboard) return; // the link itself is followed
    event.preventDefault();
    const link = /** @type {HTMLAnchorElement} */ (event.currentTarget);
    navigator.clipboard.writeText(link.href).then(() => {
      link.textContent = say("ui.lesson.copied");
    });
  });
  onDocument(element, "click", (event) => {
    const opener = event.target instanceof Element && event.target.closest(".os-lesson-open");
    if (!opener) return;
    if (memory.open) close();
    else go(memory.step);
  });

  // A run that this step began has ended: what was guessed can be seen.
  let busy = isBusy();
  const watcher = new MutationObserver(() => {
    if (!element.isConnected) return watcher.disconnect();
    const ended = busy && !isBusy();
    busy = isBusy();
    again.disabled = busy || !memory.picked.has(step().name);
    if (!ended || memory.ran !== step().name) return;
    memory.ran = "";
    reveal();
  });
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-os-busy"] });

  function receive() {
    const value = props.value && "exercise" in props.value ? props.value : null;
    if (value) memory.checked = value;
    if (memory.open) showChecked();
  }
  watch("value", receive);
  render();
  receive();
  if (linked !== null && !memory.linked) {
    memory.linked = true;
    turnTo(step().tab);
    if (!isHeld()) trigger("fill", formOf(step())); // a page loaded anew has what its form held
  }
}
