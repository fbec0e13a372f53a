// The patches of every frame: picked with a click or the keys, lit by how much the picked one looks at them.
import { button, make, penOf } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { cut, load, put } from "../lib/image.js";
import { clamp } from "../lib/maths.js";
import { tile } from "./parts.js";

/** @typedef {{ frame: number, y: number, x: number }} Patch all from 0 */
/** @typedef {[number, number, number]} Grid frames, rows, columns */

/**
 * The patch a key leads to, null for other keys; over the edge of a frame lies the next.
 * @param {string} key @param {Patch} from @param {Grid} grid
 * @returns {Patch | null}
 */
export function moved(key, { frame, y, x }, [frames, rows, columns]) {
  /** @type {Record<string, Patch>} */
  const keys = {
    ArrowLeft: x > 0 || frame === 0 ? { frame, y, x: x - 1 } : { frame: frame - 1, y, x: columns - 1 },
    ArrowRight: x < columns - 1 || frame === frames - 1 ? { frame, y, x: x + 1 } : { frame: frame + 1, y, x: 0 },
    ArrowUp: { frame, y: y - 1, x },
    ArrowDown: { frame, y: y + 1, x },
    PageUp: { frame: frame - 1, y, x },
    PageDown: { frame: frame + 1, y, x },
  };
  const to = keys[key];
  if (!to) return null;
  return { frame: clamp(to.frame, 0, frames - 1), y: clamp(to.y, 0, rows - 1), x: clamp(to.x, 0, columns - 1) };
}

const LIGHT = "79 191 178"; // what is looked at glows
const SHADE = "7 9 11"; // what is not lies in the shade, out of reach in a deeper one; the clip stays to be seen

/**
 * What lies over a patch of the clip, by its share (0..1) of the largest weight; null is out of reach.
 * @param {number | null} share
 */
export function veil(share) {
  if (share === null) return `rgb(${SHADE} / 0.550)`;
  return share < 0.5
    ? `rgb(${SHADE} / ${(0.35 * (1 - 2 * share)).toFixed(3)})`
    : `rgb(${LIGHT} / ${(0.7 * (2 * share - 1)).toFixed(3)})`;
}

/**
 * @param {Grid} grid
 * @param {() => Patch} picked
 * @param {(patch: Patch) => void} pick
 */
export function startPatches(grid, picked, pick) {
  const [frames, rows, columns] = grid;
  const node = make("div", "os-explain-frames");
  node.setAttribute("role", "listbox");
  node.setAttribute("aria-label", say("ui.explain.patches"));
  /** @param {Patch} patch */
  const indexOf = ({ frame, y, x }) => (frame * rows + y) * columns + x;

  /** @type {HTMLButtonElement[]} */
  const cells = [];
  const tiles = Array.from({ length: frames }, (_, frame) => {
    const label = say("ui.explain.latent_frame", { frame: frame + 1 });
    const made = tile(rows, columns, label);
    const box = make("div", "os-explain-cells");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", label);
    box.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
    for (let place = 0; place < rows * columns; place++) {
      const to = { frame, y: Math.floor(place / columns), x: place % columns };
      const cell = button("os-explain-cell", "", () => pick(to));
      cell.tabIndex = -1;
      cell.setAttribute("role", "option");
      const counted = { frame: frame + 1, row: to.y + 1, column: to.x + 1 };
      cell.setAttribute("aria-label", say("ui.explain.patch", counted));
      cells.push(cell);
      box.append(cell);
    }
    made.canvas.className = "os-explain-look";
    made.frame.append(box);
    node.append(made.box);
    return made;
  });

  node.addEventListener("keydown", (event) => {
    const to = moved(event.key, picked(), grid);
    if (!to) return;
    event.preventDefault();
    pick(to);
    cells[indexOf(to)]?.focus();
  });

  return {
    node,
    /** @param {({ share: number, weight: number } | null)[]} light of every patch; null is out of reach */
    show(light) {
      const own = indexOf(picked());
      cells.forEach((cell, i) => {
        const lit = light[i];
        cell.style.background = veil(lit?.share ?? null);
        cell.title = lit ? lit.weight.toFixed(3) : say("ui.explain.look.out");
        cell.setAttribute("aria-selected", String(i === own));
        cell.tabIndex = i === own ? 0 : -1;
      });
    },
    /** The clip behind the patches, a frame for each latent frame. @param {import("../types.js").StripValue} clip */
    paint(clip) {
      load(clip.uri, (image) => {
        tiles.forEach(({ canvas }, frame) => {
          const part = cut(image, frame, clip.frames);
          [canvas.width, canvas.height] = [part[2], part[3]];
          put(penOf(canvas), image, part, [0, 0, part[2], part[3]]);
        });
      });
    },
  };
}
