// Which picture belongs to which time. Pure.

/**
 * Frame of a clip at a time; a clip that is shorter holds its last.
 * @param {number} seconds @param {number} fps @param {number} count
 */
export const frameAt = (seconds, fps, count) => Math.max(Math.min(Math.floor(seconds * fps + 1e-6), count - 1), 0);

/**
 * The two latent frames between which a time lies, and how far it is from the first to the second, 0..1.
 * @param {number} seconds in a loop of `span` seconds @param {number} span @param {number} latent
 */
export function latentAt(seconds, span, latent) {
  const at = ((seconds % span) / span) * latent;
  const first = Math.min(Math.floor(at), latent - 1);
  return { first, blend: first + 1 < latent ? at - first : 0 };
}

/**
 * What is seen at a time of a clip whose first frames are decoded while the others are estimated, in a loop over both:
 * a decoded part and which of its frames, or the second within the estimate of `frames` frames from `start` on.
 * @template {{ first: number, count: number }} P
 * @param {number} seconds
 * @param {{ fps: number, start: number, frames: number }} clip
 * @param {P[]} parts in order, from the first frame on
 * @returns {{ part: P, frame: number } | { part: null, seconds: number }}
 */
export function decodedAt(seconds, { fps, start, frames }, parts) {
  const span = (start + frames) / fps;
  const at = seconds % span;
  const frame = frameAt(at, fps, start + frames);
  const part = parts.find(({ first, count }) => first <= frame && frame < first + count);
  return part ? { part, frame: frame - part.first } : { part: null, seconds: Math.max(at - start / fps, 0) };
}

/**
 * A clock that has gone on: where it stands, and whether it ran into the end.
 * @param {number} at @param {number} by seconds @param {number} duration @param {boolean} loops
 */
export function advanced(at, by, duration, loops) {
  const next = at + by;
  if (next < duration) return { at: next, ended: false };
  return loops ? { at: next % duration, ended: false } : { at: duration, ended: true };
}

/** The clip that lasts longest. @template {{ frames: number, fps: number }} T @param {T[]} clips */
export const longest = (clips) => clips.reduce((a, b) => (b.frames / b.fps > a.frames / a.fps ? b : a));
