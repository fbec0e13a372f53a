// The steps of a run as pictures: which of them a strip shows, and what lies between two of them. Pure.

/** @typedef {"noise" | "guess" | "latent"} View */

/** The most cells of a strip: beyond them several steps share one, and ticks beneath tell them apart. */
export const MOST_CELLS = 24;

/**
 * The steps [first, last] of each cell of a strip; one step a cell as long as they are few.
 * @param {number} total
 * @returns {[number, number][]}
 */
export function cells(total) {
  const count = Math.max(1, Math.min(total, MOST_CELLS));
  return Array.from({ length: count }, (_, k) => [
    Math.floor((k * total) / count),
    Math.max(Math.floor(((k + 1) * total) / count) - 1, Math.floor((k * total) / count)),
  ]);
}

/**
 * The step at a place of the strip, a share 0..1 of its width.
 * @param {number} share @param {number} total
 */
export const stepAt = (share, total) => Math.max(Math.min(Math.floor(share * total), total - 1), 0);

/**
 * The picture of a view that belongs to a step: its own, or of those that were left out the last before it.
 * @template T
 * @param {Partial<Record<View, T | null>>[]} pictures of each step @param {number} at @param {View} view
 * @param {(picture: T) => boolean} here
 * @returns {T | null}
 */
export function pictureAt(pictures, at, view, here) {
  for (let i = Math.min(at, pictures.length - 1); i >= 0; i--) {
    const picture = pictures[i]?.[view];
    if (picture && here(picture)) return picture;
  }
  return null;
}

/**
 * Of a finished clip, the one it was branched off: its settings are the same but for the branch.
 * @template {{ settings: Record<string, any> }} C
 * @param {Record<string, any>} settings of the branched clip @param {C[]} clips
 * @returns {C | undefined}
 */
export function trunkOf(settings, clips) {
  if (settings.branch_step === undefined) return undefined;
  const trunk = JSON.stringify(asked(settings));
  return clips.find(
    (clip) => !BRANCHED.some((name) => name in clip.settings) && JSON.stringify(asked(clip.settings)) === trunk,
  );
}

const BRANCHED = ["branch_step", "stop_step"];
const RECORDED = new Set(["version", "seconds", "unknown", "refined", "reused_steps", "peak_gb", "precision", "lora"]);

/** What a clip was asked for, without its branch. @param {Record<string, any>} settings */
function asked(settings) {
  const names = Object.keys(settings).filter((name) => !RECORDED.has(name) && !name.startsWith("branch_"));
  return names.sort().map((name) => [name, settings[name]]);
}

/**
 * How a run is replayed: every step is seen for a while, and all of them for at most so many seconds.
 * @param {number} total
 */
export const replayStepMs = (total) => Math.max(Math.min(160, 4000 / total), 20);

/** Which of several scenes is shown at a second of a clip. @param {{ start: number }[]} scenes @param {number} seconds */
export const sceneAt = (scenes, seconds) =>
  Math.max(scenes.filter(({ start }) => start <= seconds + 1e-3).length - 1, 0);
