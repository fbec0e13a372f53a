// A small network and how it learns: layers of products and SiLU, gradients by the chain rule, Adam. Pure.

/**
 * @typedef {object} Layer
 * @property {number} inputs
 * @property {number} outputs
 * @property {Float64Array} weights outputs x inputs
 * @property {Float64Array} biases
 */
/** @typedef {{ layers: Layer[], values: Float64Array }} Net all weights lie in `values`, the layers look into it */
/** @typedef {{ mean: Float64Array, square: Float64Array, count: number }} Adam */
/** @typedef {{ loss: number, gradient: Float64Array }} Learned */

const BETA = /** @type {const} */ ([0.9, 0.99]);

/**
 * Numbers of a seed: uniform in 0..1 (mulberry32), and normal ones made of them (Box and Muller, 1958).
 * @param {number} seed
 */
export function numbersOf(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

/** @param {number[]} sizes of the input, the hidden layers, the output */
const counted = (sizes) => sizes.slice(1).reduce((sum, size, i) => sum + size * ((sizes[i] ?? 0) + 1), 0);

/** The layers over a list of values. @param {number[]} sizes @param {Float64Array} values @returns {Layer[]} */
function layersOf(sizes, values) {
  let at = 0;
  /** @param {number} length */
  function part(length) {
    at += length;
    return values.subarray(at - length, at);
  }
  return sizes.slice(1).map((outputs, i) => {
    const inputs = sizes[i] ?? 0;
    return { inputs, outputs, weights: part(inputs * outputs), biases: part(outputs) };
  });
}

/**
 * Normal weights of variance 1 / inputs; the last layer begins at zero, so that the first answer is none.
 * @param {number[]} sizes @param {() => number} normal @returns {Net}
 */
export function network(sizes, normal) {
  const values = new Float64Array(counted(sizes));
  const layers = layersOf(sizes, values);
  for (const { weights, inputs } of layers.slice(0, -1)) {
    for (let i = 0; i < weights.length; i++) weights[i] = normal() / Math.sqrt(inputs);
  }
  return { layers, values };
}

/** @param {number} z */
const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/**
 * What goes into every layer, and what comes out of the last: `rows` lines of numbers each. `sums` are what SiLU was
 * given.
 * @param {Net} net @param {Float64Array} input @param {number} rows
 */
export function answer({ layers }, input, rows) {
  const inputs = [input];
  const sums = [];
  for (const [k, { weights, biases, inputs: n, outputs: m }] of layers.entries()) {
    const from = /** @type {Float64Array} */ (inputs[k]);
    const sum = new Float64Array(rows * m);
    for (let r = 0; r < rows; r++) {
      for (let o = 0; o < m; o++) {
        let total = biases[o] ?? 0;
        for (let i = 0; i < n; i++) total += (weights[o * n + i] ?? 0) * (from[r * n + i] ?? 0);
        sum[r * m + o] = total;
      }
    }
    sums.push(sum);
    inputs.push(k === layers.length - 1 ? sum : sum.map((z) => z * sigmoid(z)));
  }
  return { inputs, sums, output: /** @type {Float64Array} */ (inputs[layers.length]) };
}

/**
 * The mean squared error of the answer to `input` against `target`, and its gradient for every value of the network.
 * @param {Net} net @param {Float64Array} input @param {Float64Array} target @param {number} rows
 * @returns {Learned}
 */
export function learn(net, input, target, rows) {
  const { inputs, sums, output } = answer(net, input, rows);
  const gradient = new Float64Array(net.values.length);
  const first = /** @type {Layer} */ (net.layers[0]);
  const parts = layersOf([first.inputs, ...net.layers.map((layer) => layer.outputs)], gradient);
  let loss = 0;
  let back = output.map((value, i) => {
    const error = value - (target[i] ?? 0);
    loss += error * error;
    return (2 * error) / output.length;
  });
  for (let k = net.layers.length - 1; k >= 0; k--) {
    const { weights, inputs: n, outputs: m } = /** @type {Layer} */ (net.layers[k]);
    const part = /** @type {Layer} */ (parts[k]);
    const from = /** @type {Float64Array} */ (inputs[k]);
    const before = new Float64Array(rows * n);
    for (let r = 0; r < rows; r++) {
      for (let o = 0; o < m; o++) {
        const g = back[r * m + o] ?? 0;
        part.biases[o] = (part.biases[o] ?? 0) + g;
        for (let i = 0; i < n; i++) {
          part.weights[o * n + i] = (part.weights[o * n + i] ?? 0) + g * (from[r * n + i] ?? 0);
          before[r * n + i] = (before[r * n + i] ?? 0) + g * (weights[o * n + i] ?? 0);
        }
      }
    }
    const sum = sums[k - 1];
    back = sum ? before.map((g, i) => g * slope(sum[i] ?? 0)) : before;
  }
  return { loss: loss / output.length, gradient };
}

/** Of SiLU. @param {number} z */
function slope(z) {
  const s = sigmoid(z);
  return s * (1 + z * (1 - s));
}

/** @param {Net} net @returns {Adam} */
export const adamOf = ({ values }) => ({
  mean: new Float64Array(values.length),
  square: new Float64Array(values.length),
  count: 0,
});

/**
 * One step of Adam (Kingma and Ba, 2015, algorithm 1), in place.
 * @param {Net} net @param {Adam} adam @param {Float64Array} gradient @param {number} rate
 */
export function improve({ values }, adam, gradient, rate) {
  adam.count += 1;
  const [mean, square] = BETA.map((beta) => 1 - beta ** adam.count);
  for (let i = 0; i < values.length; i++) {
    const g = gradient[i] ?? 0;
    adam.mean[i] = BETA[0] * (adam.mean[i] ?? 0) + (1 - BETA[0]) * g;
    adam.square[i] = BETA[1] * (adam.square[i] ?? 0) + (1 - BETA[1]) * g * g;
    const by = (adam.mean[i] ?? 0) / (mean ?? 1) / (Math.sqrt((adam.square[i] ?? 0) / (square ?? 1)) + 1e-8);
    values[i] = (values[i] ?? 0) - rate * by;
  }
}
