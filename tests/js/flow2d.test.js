import assert from "node:assert/strict";
import { test } from "node:test";
import { dataOf, judge, noiseOf, paths, trainerOf, velocity } from "../../assets/ui/explain/flow2d.js";
import { adamOf, answer, improve, learn, network, numbersOf } from "../../assets/ui/explain/net.js";

test("numbers of a seed: the same again, uniform and normal", () => {
  const draw = (/** @type {number} */ seed) => Array.from({ length: 4000 }, numbersOf(seed).normal);
  assert.deepEqual(draw(3), draw(3));
  assert.notDeepEqual(draw(3), draw(4));
  const numbers = draw(1);
  const mean = numbers.reduce((a, b) => a + b) / numbers.length;
  const square = numbers.reduce((a, b) => a + b * b, 0) / numbers.length;
  assert.ok(Math.abs(mean) < 0.05 && Math.abs(square - 1) < 0.06);
});

test("gradients are those of finite differences", () => {
  const { normal } = numbersOf(7);
  const net = network([3, 5, 4, 2], normal);
  net.values.forEach((value, i) => {
    net.values[i] = value || 0.3 * normal(); // the last layer and all biases too
  });
  const input = Float64Array.from({ length: 12 }, normal);
  const target = Float64Array.from({ length: 8 }, normal);
  const { gradient, loss } = learn(net, input, target, 4);
  const direct = answer(net, input, 4).output.reduce((sum, y, i) => sum + (y - (target[i] ?? 0)) ** 2, 0) / 8;
  assert.ok(Math.abs(loss - direct) < 1e-12);
  for (let i = 0; i < net.values.length; i++) {
    const value = net.values[i] ?? 0;
    const [high, low] = [1e-5, -1e-5].map((by) => {
      net.values[i] = value + by;
      return learn(net, input, target, 4).loss;
    });
    net.values[i] = value;
    assert.ok(Math.abs(((high ?? 0) - (low ?? 0)) / 2e-5 - (gradient[i] ?? 0)) < 1e-7, String(i));
  }
});

test("Adam goes its rate at first, against the gradient", () => {
  const net = network([1, 1, 1], () => 1);
  const before = Float64Array.from(net.values);
  improve(net, adamOf(net), Float64Array.from(net.values, (_, i) => (i % 2 ? 3 : -0.01)), 0.1);
  net.values.forEach((value, i) => {
    assert.ok(Math.abs(value - ((before[i] ?? 0) + (i % 2 ? -0.1 : 0.1))) < 1e-6);
  });
});

test("a flow learns its data, guidance makes it surer and narrower, and the same seed does it again", () => {
  const data = dataOf("moons", 1);
  const trainer = trainerOf(data, 5, 0.1);
  for (let i = 0; i < 400; i++) trainer.step();
  const mean = (/** @type {number[]} */ list) => list.reduce((a, b) => a + b, 0) / list.length;
  assert.ok(mean(trainer.losses.slice(-50)) < 0.7 * mean(trainer.losses.slice(0, 5)));
  const noise = noiseOf(150, 9);
  const ended = (/** @type {number} */ scale) => judge(paths(trainer.net, noise, 0, scale, 20).at(-1) ?? [], data, 0);
  const [none, plain, strong] = [ended(0), ended(1), ended(4)];
  assert.ok(none.right < 0.75); // without its class it makes both
  assert.ok(plain.right > 0.9 && plain.spread > 0.8 && plain.spread < 1.2);
  assert.ok(strong.right >= plain.right && strong.spread < plain.spread);
  const again = trainerOf(data, 5, 0.1);
  again.step();
  assert.equal(again.losses[0], trainer.losses[0]);
});

test("the guided velocity is u + s (c - u), and paths begin at the noise", () => {
  const trainer = trainerOf(dataOf("rings", 1), 2, 0.1);
  for (let i = 0; i < 20; i++) trainer.step();
  const at = noiseOf(5, 1);
  const [u, c, guided] = [0, 1, 3].map((scale) => velocity(trainer.net, at, 0.6, 1, scale).flat());
  guided?.forEach((value, i) => {
    assert.ok(Math.abs(value - ((u?.[i] ?? 0) + 3 * ((c?.[i] ?? 0) - (u?.[i] ?? 0)))) < 1e-9);
  });
  const way = paths(trainer.net, at, 1, 1, 4);
  assert.equal(way.length, 5);
  assert.deepEqual(way[0], at);
});

test("each data set has two classes that lie apart", () => {
  for (const name of /** @type {const} */ (["moons", "rings", "islands"])) {
    const data = dataOf(name, 3);
    const own = data.points.filter((_, i) => data.classes[i] === 1);
    assert.equal(own.length, 200);
    assert.deepEqual(judge(own, data, 1), { right: 1, spread: 1 });
    assert.ok(judge(own, data, 0).right < 0.05);
  }
});
