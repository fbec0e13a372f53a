// The shelf under the stage: this visit's clips, then those made before.
import { button, find, languageOf, make, penOf } from "../lib/dom.js";
import { roving } from "../lib/roving.js";

const SIDE_PX = 208; // of a card's picture: twice its size on the page

/** @typedef {{ url: string, poster?: string, prompt: string, act: () => void }} Entry */

/**
 * A card shows one frame, its poster or drawn once, and holds a video only while somebody points at it: a page full of
 * waiting videos costs memory, and browsers blank the ones they suspend.
 * @param {Entry} entry
 */
export function card({ url, poster, prompt, act }) {
  const node = button("os-card", "", act);
  const clip = make("video");
  node.title = prompt;
  node.dataset.url = url;
  Object.assign(clip, { muted: true, loop: true, playsInline: true, preload: "auto", tabIndex: -1 });
  clip.setAttribute("aria-hidden", "true");
  const stop = () => {
    node.classList.remove("os-playing");
    clip.removeAttribute("src");
    clip.load();
  };
  const play = () => {
    clip.src = url;
    clip.play().then(
      () => node.classList.add("os-playing"),
      () => {},
    );
  };
  for (const kind of ["pointerenter", "focus"]) node.addEventListener(kind, play);
  for (const kind of ["pointerleave", "blur"]) node.addEventListener(kind, stop);
  const box = make("span", "os-card-box");
  box.append(poster ? picture(poster) : drawn(clip, url, stop), clip);
  const text = make("span", "os-card-text", prompt);
  text.lang = languageOf(prompt);
  node.append(box, text);
  return node;
}

/** @param {string} poster */
function picture(poster) {
  const image = make("img");
  Object.assign(image, { alt: "", loading: "lazy", decoding: "async", src: poster });
  return image;
}

/** The middle frame of a clip that was just made. @param {HTMLVideoElement} clip @param {string} url @param {() => void} done */
function drawn(clip, url, done) {
  const still = make("canvas");
  still.width = SIDE_PX;
  still.height = SIDE_PX;
  const middle = () => {
    clip.currentTime = clip.duration / 2;
  };
  const draw = () => {
    const side = Math.min(clip.videoWidth, clip.videoHeight);
    const left = (clip.videoWidth - side) / 2;
    const top = (clip.videoHeight - side) / 2;
    penOf(still).drawImage(clip, left, top, side, side, 0, 0, SIDE_PX, SIDE_PX);
    done();
  };
  clip.addEventListener("loadedmetadata", middle, { once: true });
  clip.addEventListener("seeked", draw, { once: true });
  clip.src = url;
  return still;
}

/** @param {HTMLElement} element */
export function startShelf(element) {
  const shelf = find(element, ".os-shelf", HTMLElement);
  /** @type {Map<string, HTMLElement>} kept from one call to the next: a rebuilt card would load its video again */
  const cards = new Map();
  roving(shelf, ".os-card");
  return {
    /** @param {Entry[]} entries @param {string} heading */
    show(entries, heading) {
      find(element, ".os-shelf-box", HTMLElement).hidden = !entries.length;
      find(element, ".os-shelf-title", HTMLElement).textContent = heading;
      entries.forEach((entry, i) => {
        const node = cards.get(entry.url) ?? card(entry);
        cards.set(entry.url, node);
        if (shelf.children[i] !== node) shelf.insertBefore(node, shelf.children[i] ?? null);
      });
      while (shelf.children.length > entries.length) shelf.lastElementChild?.remove();
      for (const [url, node] of cards) if (!node.isConnected) cards.delete(url);
    },
    /** Mark the card of the clip that plays. @param {string | undefined} url */
    mark(url) {
      for (const node of cards.values()) node.classList.toggle("os-on", node.dataset.url === url);
    },
  };
}
