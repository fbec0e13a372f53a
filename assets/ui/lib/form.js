// What the form holds, kept by the tab, so that a page loaded anew finds it.
import { keptRuns } from "./session.js";

const PLACE = "open-sora-demo-form";
let recalled = false; // what a form holds before that are its defaults

/**
 * What the form held when this address was left, else the runs that go on by themselves, whose form it shall be, or
 * null. An address with other settings in it, a link, begins anew.
 * @returns {Record<string, unknown> | null}
 */
export function recall() {
  recalled = true;
  try {
    const kept = JSON.parse(sessionStorage.getItem(PLACE) || "null");
    if (kept && kept.address === location.search) return kept.form;
  } catch {
    // As in `keep`.
  }
  const jobs = location.search ? [] : keptRuns("stage", "grid");
  return jobs.length ? { jobs } : null;
}

/** Whether `recall` finds, or has found, a form of this address. */
export function isHeld() {
  try {
    return JSON.parse(sessionStorage.getItem(PLACE) || "null")?.address === location.search;
  } catch {
    return false;
  }
}

/** The page's address has changed, and its form has not. */
export function readdress() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(PLACE) || "null");
    if (kept) sessionStorage.setItem(PLACE, JSON.stringify({ ...kept, address: location.search }));
  } catch {
    // As in `keep`.
  }
}

/**
 * Keep the form's values; of a file what the server calls it.
 * @param {string[]} names
 * @param {unknown[]} values
 * @returns {never[]}
 */
export function keep(names, ...values) {
  const form = Object.fromEntries(names.map((name, i) => [name, values[i]]));
  try {
    if (recalled) sessionStorage.setItem(PLACE, JSON.stringify({ address: location.search, form }));
  } catch {
    // A browser that keeps nothing: the form is only lost with the page.
  }
  return [];
}
