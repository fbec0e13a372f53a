// Pictures: loaded, cut, and drawn on canvases.
import { make, penOf } from "./dom.js";
import { bytes } from "./maths.js";

/** @typedef {import("../types.js").PixelsValue} PixelsValue */
/** @typedef {[number, number, number, number]} Cut x, y, width, height inside of a picture */

/**
 * A picture on its way; `then` once it is here.
 * @param {string} source
 * @param {(image: HTMLImageElement) => void} [then]
 */
export function load(source, then) {
  const image = new Image();
  image.addEventListener("load", () => then?.(image));
  image.src = source;
  return image;
}

/** @param {HTMLImageElement | null} image @returns {image is HTMLImageElement} */
export const isHere = (image) => image?.complete === true && image.naturalWidth > 0;

/**
 * A cell of a picture that holds `columns` by `rows` of them.
 * @param {HTMLImageElement | HTMLCanvasElement} image
 * @param {number} column @param {number} columns @param {number} row @param {number} rows
 * @returns {Cut}
 */
export function cut(image, column, columns, row = 0, rows = 1) {
  const width = image instanceof HTMLImageElement ? image.naturalWidth : image.width;
  const height = image instanceof HTMLImageElement ? image.naturalHeight : image.height;
  const w = width / columns;
  const h = height / rows;
  return [column * w, row * h, w, h];
}

/**
 * A frame of a sheet of them. @param {import("../types.js").SheetValue} sheet @param {number} frame @returns {Cut}
 */
export function cutSheet({ size: [h, w], across }, frame) {
  return [(frame % across) * w, Math.floor(frame / across) * h, w, h];
}

/**
 * Draw a part of a picture. Smooth, unless `places` are to be seen as the squares they are: then only what has to shrink.
 * @param {CanvasRenderingContext2D} pen
 * @param {CanvasImageSource} image
 * @param {Cut} part
 * @param {Cut} to
 */
export function put(pen, image, part, to, places = false) {
  pen.imageSmoothingEnabled = !places || part[3] > to[2] * (window.devicePixelRatio || 1);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, ...part, ...to);
}

const MOST_PX = 8192; // browsers refuse larger canvases; a tall one is kept coarser

/**
 * Give a canvas w x h CSS pixels; it is cleared where that changes its size. Its pen counts in CSS pixels.
 * @param {HTMLCanvasElement} canvas @param {number} w @param {number} h
 */
export function fit(canvas, w, h) {
  const scale = Math.min(window.devicePixelRatio || 1, MOST_PX / Math.max(w, h));
  const pen = penOf(canvas);
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
  }
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  return pen;
}

/**
 * Draw rgb places (height x width x 3) on a canvas of that size.
 * @param {HTMLCanvasElement} canvas
 * @param {Uint8Array} rgb
 * @param {number} width @param {number} height
 */
export function paintPlaces(canvas, rgb, width, height, smooth = false) {
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = rgb[3 * i + c] ?? 0;
    image.data[4 * i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.style.imageRendering = smooth ? "auto" : "pixelated";
  penOf(canvas).putImageData(image, 0, 0);
}

/** @type {WeakMap<PixelsValue, Uint8Array>} */
const decoded = new WeakMap();

/**
 * One frame of a small picture of latents.
 * @param {HTMLCanvasElement} canvas
 * @param {PixelsValue} picture
 * @param {number} frame
 */
export function paintPixels(canvas, picture, frame, smooth = false) {
  const rgb = decoded.get(picture) ?? bytes(picture.rgb);
  decoded.set(picture, rgb);
  const size = picture.height * picture.width * 3;
  paintPlaces(canvas, rgb.subarray(frame * size, (frame + 1) * size), picture.width, picture.height, smooth);
}

/** All frames of such a picture side by side. @param {PixelsValue} picture */
export function stripOf(picture) {
  const strip = make("canvas");
  const one = make("canvas");
  strip.width = picture.width * picture.frames;
  strip.height = picture.height;
  for (let i = 0; i < picture.frames; i++) {
    paintPixels(one, picture, i);
    penOf(strip).drawImage(one, i * picture.width, 0);
  }
  return strip;
}
