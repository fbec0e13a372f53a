// A clip or picture of ours dropped anywhere on the page gives its settings; over a field for images it is the image.
import { onDocument } from "../lib/dom.js";

const FIELDS = "#reference, #last-frame, #video";
const OPENER = "#open-file input[type=file], input#open-file[type=file]";

/** @param {DragEvent} event */
const carriesFile = (event) => Boolean(event.dataTransfer?.types.includes("Files"));
/** @param {DragEvent} event */
const overField = (event) => event.target instanceof Element && event.target.closest(FIELDS) !== null;

function opener() {
  const beside = document.querySelector("#open-file")?.parentElement?.querySelector("input[type=file]");
  const found = document.querySelector(OPENER) ?? beside;
  return found instanceof HTMLInputElement ? found : null;
}

/** @param {HTMLElement} element */
export function startDrop(element) {
  onDocument(element, "dragover", (event) => {
    if (carriesFile(event) && !overField(event)) event.preventDefault();
  });
  onDocument(element, "drop", (event) => {
    if (!carriesFile(event) || overField(event)) return;
    event.preventDefault();
    const field = opener();
    const file = event.dataTransfer?.files[0];
    if (!field || !file) return;
    const files = new DataTransfer();
    files.items.add(file);
    field.files = files.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
}
