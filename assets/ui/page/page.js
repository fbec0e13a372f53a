// The page around the components: its head line, and the notices over it.
import { sayAll } from "../lib/i18n.js";
import { askForPictures, nameButtons, watchRanges } from "./hints.js";
import { helpKeys } from "./keys.js";
import { translateToasts } from "./toasts.js";

/** @param {import("../lib/host.js").Host<unknown>} host */
export function start({ element }) {
  sayAll(element);
  translateToasts();
  helpKeys();
  nameButtons();
  watchRanges(element);
  askForPictures();
}
