// A clip in other forms than its mp4, made by the server when they are asked for.

/**
 * Links to a clip as GIF, WebP and PNG (of one frame); to a single picture as PNG and WebP.
 * @param {string} name of its mp4 @param {number} frames @param {() => number} frame that is to be the PNG
 * @param {(kind: string) => HTMLAnchorElement} link an empty one
 */
export function otherForms(name, frames, frame, link) {
  const stem = name.replace(/\.mp4$/, "");
  return (frames > 1 ? ["GIF", "WebP", "PNG"] : ["PNG", "WebP"]).map((kind) => formLink(link(kind), stem, kind, frame));
}

/** @param {HTMLAnchorElement} node @param {string} stem @param {string} kind @param {() => number} frame */
function formLink(node, stem, kind, frame) {
  const file = `${stem}.${kind.toLowerCase()}`;
  const address = () => new URL(`clips/${file}${kind === "PNG" ? `?frame=${frame()}` : ""}`, document.baseURI).href;
  node.href = address();
  node.download = file;
  node.addEventListener("click", () => {
    node.href = address();
  });
  return node;
}
