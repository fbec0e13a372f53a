// A flow of points on a plane: data of two classes, a network that learns where noise has to go, guided paths. Pure.
//
// As in the models of this demo: t runs from 1 (noise) to 0 (data), a point on the way is x = (1 - t) data + t noise, and
// the network learns v = noise - data (rectified flow; Liu et al., 2022, equation 1). The class is hidden from it now and
// then, so that it can be asked without one, and guidance is u + s (c - u) (Ho and Salimans, 2021).
import { adamOf, answer, improve, learn, network, numbersOf } from "./net.js";

/** @typedef {[number, number]} Point */
/** @typedef {0 | 1} Class */
/** @typedef {{ points: Point[], classes: Class[] }} Data */
/** @typedef {"moons" | "rings" | "islands" | "own"} DataName */
/**
 * @typedef {object} Trainer
 * @property {import("./net.js").Net} net
 * @property {number[]} losses of every step so far
 * @property {() => void} step trains once more
 */

export const HIDDEN = 64;
export const BATCH = 128;
const NONE = 2; // the class that is hidden
const WAVES = [1, 2]; // how often time swings in what the network is told of it
const INPUTS = 2 + 1 + 2 * WAVES.length + 3;
const RATE = 0.01;
const SLOWER = 200; // steps after which the rate has halved
const COUNT = 400; // points of a data set

/** @param {Exclude<DataName, "own">} name @param {number} seed @returns {Data} */
export function dataOf(name, seed) {
  const { uniform, normal } = numbersOf(seed);
  /** @type {Record<Exclude<DataName, "own">, (c: Class) => Point>} */
  const draw = {
    moons: (c) => {
      const angle = Math.PI * uniform();
      const [x, y] = [1.1 * Math.cos(angle), 1.1 * Math.sin(angle)];
      return c ? [0.55 - x, 0.3 - y] : [x - 0.55, y - 0.3];
    },
    rings: (c) => {
      const [radius, angle] = [c ? 0.5 : 1.35, 2 * Math.PI * uniform()];
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    },
    islands: (c) => {
      const side = uniform() < 0.5 ? 1 : -1;
      return [0.9 * side, c ? 0.9 * side : -0.9 * side];
    },
  };
  const wide = name === "islands" ? 0.18 : 0.09;
  const classes = Array.from({ length: COUNT }, (_, i) => /** @type {Class} */ (i % 2));
  const points = classes.map((c) => {
    const [x, y] = draw[name](c);
    return /** @type {Point} */ ([x + wide * normal(), y + wide * normal()]);
  });
  return { points, classes };
}

/** What the network is told of a place, a time and a class, from `at` on. @param {Float64Array} input @param {number} at @param {Point} point @param {number} t @param {number} c */
function tell(input, at, [x, y], t, c) {
  const time = WAVES.flatMap((k) => [Math.sin(Math.PI * k * t), Math.cos(Math.PI * k * t)]);
  input.set([x, y, t, ...time, Number(c === 0), Number(c === 1), Number(c === NONE)], at);
}

/**
 * @param {Data} data both classes have points
 * @param {number} seed of the network's first weights and of all noise
 * @param {number} hidden how often the class is hidden, 0..1
 * @returns {Trainer}
 */
export function trainerOf(data, seed, hidden) {
  const { uniform, normal } = numbersOf(seed);
  const net = network([INPUTS, HIDDEN, HIDDEN, 2], normal);
  const adam = adamOf(net);
  const input = new Float64Array(BATCH * INPUTS);
  const target = new Float64Array(BATCH * 2);
  /** @type {number[]} */
  const losses = [];
  // As many examples of each class, however many points each has.
  const byClass = [0, 1].map((c) => data.points.filter((_, i) => data.classes[i] === c));

  function step() {
    for (let r = 0; r < BATCH; r++) {
      const c = r % 2;
      const own = byClass[c] ?? [];
      const [x, y] = /** @type {Point} */ (own[Math.floor(uniform() * own.length)]);
      const [a, b] = [normal(), normal()];
      const t = uniform();
      tell(input, r * INPUTS, [(1 - t) * x + t * a, (1 - t) * y + t * b], t, uniform() < hidden ? NONE : c);
      target.set([a - x, b - y], 2 * r);
    }
    const { loss, gradient } = learn(net, input, target, BATCH);
    improve(net, adam, gradient, RATE / (1 + losses.length / SLOWER));
    losses.push(loss);
  }
  return { net, losses, step };
}

/** What the network says at points, at one time, for a class or without. @param {import("./net.js").Net} net @param {Point[]} points @param {number} t @param {number} c */
function said(net, points, t, c) {
  const input = new Float64Array(points.length * INPUTS);
  for (const [r, point] of points.entries()) tell(input, r * INPUTS, point, t, c);
  return answer(net, input, points.length).output;
}

/**
 * The guided velocity u + s (c - u) at points.
 * @param {import("./net.js").Net} net @param {Point[]} points @param {number} t @param {Class} c @param {number} scale
 * @returns {Point[]}
 */
export function velocity(net, points, t, c, scale) {
  const prompt = said(net, points, t, c);
  const none = scale === 1 ? prompt : said(net, points, t, NONE);
  /** @param {number} i */
  const mixed = (i) => (none[i] ?? 0) + scale * ((prompt[i] ?? 0) - (none[i] ?? 0));
  return points.map((_, r) => [mixed(2 * r), mixed(2 * r + 1)]);
}

/**
 * The ways of points from noise to data in equal steps of Heun's method: `steps` + 1 places each.
 * @param {import("./net.js").Net} net @param {Point[]} noise @param {Class} c @param {number} scale @param {number} steps
 * @returns {Point[][]} by step, from t = 1 to t = 0
 */
export function paths(net, noise, c, scale, steps) {
  const way = [noise];
  for (let k = 0; k < steps; k++) {
    const from = /** @type {Point[]} */ (way[k]);
    const [t, by] = [1 - k / steps, 1 / steps];
    const first = velocity(net, from, t, c, scale);
    const ahead = from.map(([x, y], i) => {
      const [vx, vy] = first[i] ?? [0, 0];
      return /** @type {Point} */ ([x - by * vx, y - by * vy]);
    });
    const second = velocity(net, ahead, t - by, c, scale);
    way.push(
      from.map(([x, y], i) => {
        const [[ax, ay], [bx, by2]] = [first[i] ?? [0, 0], second[i] ?? [0, 0]];
        return /** @type {Point} */ ([x - (by * (ax + bx)) / 2, y - (by * (ay + by2)) / 2]);
      }),
    );
  }
  return way;
}

/** @param {number} count @param {number} seed @returns {Point[]} */
export function noiseOf(count, seed) {
  const { normal } = numbersOf(seed);
  return Array.from({ length: count }, () => [normal(), normal()]);
}

/** Root mean square distance from the mean. @param {Point[]} points */
function spreadOf(points) {
  const [x, y] = [0, 1].map((k) => points.reduce((sum, point) => sum + (point[k] ?? 0), 0) / points.length);
  const squares = points.reduce((sum, [a, b]) => sum + (a - (x ?? 0)) ** 2 + (b - (y ?? 0)) ** 2, 0);
  return Math.sqrt(squares / points.length);
}

/**
 * What became of points: the share whose nearest point of the data has the class, and how wide they lie, in spreads of
 * that class.
 * @param {Point[]} ended @param {Data} data @param {Class} c
 */
export function judge(ended, data, c) {
  const own = data.points.filter((_, i) => data.classes[i] === c);
  const right = ended.filter(([x, y]) => {
    let [best, found] = [Infinity, -1];
    for (const [i, [a, b]] of data.points.entries()) {
      const far = (a - x) ** 2 + (b - y) ** 2;
      if (far < best) [best, found] = [far, data.classes[i] ?? -1];
    }
    return found === c;
  }).length;
  return { right: right / ended.length, spread: spreadOf(ended) / (spreadOf(own) || 1) };
}
