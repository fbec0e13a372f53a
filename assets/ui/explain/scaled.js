// The scaling factor turned by hand: a latent frame too small, right and too large, decoded.
import { make, penOf } from "../lib/dom.js";
import { say } from "../lib/i18n.js";
import { cut, load } from "../lib/image.js";
import { slider, tile, two } from "./parts.js";

/** @param {import("./explain.js").Drawing<"scaled">} drawing */
export function drawScaled({ body, data, pick }) {
  const { picture, factors } = data;
  const right = factors.indexOf(1);
  const [turned, fit] = [tile(picture.height, picture.width), tile(picture.height, picture.width)];
  const small = factors.map((factor) => tile(picture.height, picture.width, `x ${factor}`));
  const numbers = make("p", "os-explain-note os-explain-num");
  numbers.setAttribute("aria-live", "polite");
  const image = load(picture.uri, () => {
    small.forEach(({ canvas }, i) => {
      paint(canvas, i);
    });
    paint(fit.canvas, right);
    paint(turned.canvas, at());
  });
  const at = () => pick.factor ?? right;

  /** @param {HTMLCanvasElement} canvas @param {number} i */
  function paint(canvas, i) {
    if (!image.naturalWidth) return;
    canvas.width = picture.width;
    canvas.height = picture.height;
    penOf(canvas).drawImage(image, ...cut(image, i, factors.length), 0, 0, picture.width, picture.height);
  }

  /** @param {number} i */
  const tell = (i) =>
    say("ui.explain.scaled.times", { factor: factors[i] ?? 1, deviation: two(data.deviations[i] ?? 0) });

  function show() {
    paint(turned.canvas, at());
    turned.canvas.dataset.factor = String(factors[at()]);
    turned.name.textContent = tell(at());
    numbers.textContent =
      at() === right
        ? say("ui.explain.scaled.same")
        : say("ui.explain.scaled.against", { psnr: (data.psnr[at()] ?? 0).toFixed(1) });
  }

  fit.name.textContent = say("ui.explain.scaled.right");
  const pictures = make("div", "os-explain-scaled");
  const row = make("div", "os-explain-small");
  row.append(...small.map(({ box }) => box));
  pictures.append(turned.box, fit.box, numbers);
  body.append(
    slider(pick, "factor", {
      label: say("ui.explain.scaled.factor"),
      high: factors.length - 1,
      start: right,
      tell,
      act: show,
    }),
    pictures,
    row,
  );
  show();
}
