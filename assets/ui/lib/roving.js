// A group of buttons as one stop of the Tab key: arrows go from one to the next, Home and End to the ends.

const watched = new WeakSet();

/**
 * @param {HTMLElement} group its buttons may come and go
 * @param {string} selector of its buttons
 * @param {string} [lines] of the rows of buttons in it, between which the arrows up and down go
 */
export function roving(group, selector, lines) {
  const all = () => /** @type {HTMLElement[]} */ ([...group.querySelectorAll(selector)]);

  /** @param {HTMLElement | undefined} chosen */
  function settle(chosen) {
    const buttons = all();
    const stop = chosen ?? buttons.find((node) => node.tabIndex === 0) ?? buttons[0];
    for (const node of buttons) node.tabIndex = node === stop ? 0 : -1;
  }
  if (!watched.has(group)) {
    watched.add(group);
    new MutationObserver(() => settle(undefined)).observe(group, { childList: true, subtree: true });
    group.addEventListener("focusin", (event) => {
      if (event.target instanceof HTMLElement && event.target.matches(selector)) settle(event.target);
    });
    group.addEventListener("keydown", (event) => {
      const from = event.target;
      if (!(from instanceof HTMLElement) || !from.matches(selector) || event.ctrlKey || event.metaKey || event.altKey)
        return;
      const to = next(from, event.key);
      if (!to) return;
      event.preventDefault();
      to.focus();
    });
  }
  const buttons = all();
  settle(buttons.find((node) => node === document.activeElement) ?? buttons[0]);

  /** @param {HTMLElement} from @param {string} key */
  function next(from, key) {
    const buttons = all();
    const at = buttons.indexOf(from);
    if (lines && (key === "ArrowUp" || key === "ArrowDown")) return beside(from, key === "ArrowUp" ? -1 : 1);
    /** @type {Record<string, number>} */
    const places = {
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      Home: 0,
      End: buttons.length - 1,
    };
    return key in places ? buttons[Math.min(Math.max(places[key] ?? 0, 0), buttons.length - 1)] : undefined;
  }

  /** The button at the same place in another row. @param {HTMLElement} from @param {number} by */
  function beside(from, by) {
    const rows = [...group.querySelectorAll(lines ?? "")];
    const row = from.closest(lines ?? "");
    const to = row ? rows[rows.indexOf(row) + by] : undefined;
    if (!row || !to) return from;
    const own = [...row.querySelectorAll(selector)];
    const others = /** @type {HTMLElement[]} */ ([...to.querySelectorAll(selector)]);
    return others[Math.min(own.indexOf(from), others.length - 1)] ?? from;
  }
}
