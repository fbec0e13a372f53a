// Runs that came with the demo (opensora_demo/ui/stored_runs.py): what a tab shows before the visitor's first run.

/** @type {Map<string, Promise<any>>} */
const fetched = new Map();

/** @param {string} file */
function fetchOnce(file) {
  const known = fetched.get(file);
  if (known) return known;
  const address = new URL(`../stored/${file}`, import.meta.url);
  const found = fetch(address).then((answer) => {
    if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
    return answer
      .text()
      .then((text) => JSON.parse(text, (key, value) => (key === "url" ? new URL(value, address).href : value)));
  });
  found.catch(() => fetched.delete(file)); // the next look may have more luck
  fetched.set(file, found);
  return found;
}

/**
 * A stored run of a model, addresses of its files made whole; null where there is none, or the server cannot be asked.
 * @param {"scope" | "figures" | "comparison"} name
 * @param {string} [model] any that has one
 * @returns {Promise<any>}
 */
export async function storedRun(name, model) {
  try {
    const index = await fetchOnce("index.json");
    const found = Object.keys(index).find((of) => of === (model ?? of) && index[of].runs.includes(name));
    return found ? await fetchOnce(`${found}/${name}.json`) : null;
  } catch {
    return null;
  }
}

/** What is known of the three ways for text to come in; null where the server cannot be asked.
 * @returns {Promise<import("../types.js").ModesValue | null>} */
export const textModes = () => fetchOnce("../modes/modes.json").catch(() => null);

/**
 * Call `seen` when the element is first looked at, or nearly so.
 * @param {Element} element @param {() => void} seen
 */
export function whenSeen(element, seen) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      seen();
    },
    { rootMargin: "1000px" },
  );
  observer.observe(element);
}
