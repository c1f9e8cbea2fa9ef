import assert from "node:assert/strict";
import { mock, test } from "node:test";

import "./fake_document.js";
import { h, keyed, latest, soon } from "#pages/dom.js";

const settled = () => new Promise(setImmediate);

// A function whose calls end when they are told to; or when they are aborted, if they listen.
function held() {
  const calls = [];
  const run = (signal) =>
    new Promise((resolve, reject) => {
      calls.push({ signal, end: resolve, fail: reject });
      signal.addEventListener("abort", resolve);
    });
  return { calls, run };
}

test("an element has its classes, attributes, listeners and children", () => {
  let clicks = 0;
  const element = h(
    "p.note.row",
    { id: "x", hidden: true, title: null, open: false, onclick: () => (clicks += 1), value: 3 },
    ["a", [null, h("b", {}, "b")], undefined],
    "",
  );
  assert.equal(element.className, "note row");
  assert.deepEqual(element.attributes, { id: "x", hidden: "" });
  assert.equal(element.value, 3);
  assert.equal(element.textContent, "ab");
  element.dispatch("click");
  assert.equal(clicks, 1);
});

test("while one call runs, many others become one", async () => {
  const { calls, run } = held();
  const start = latest(run, 1000);
  for (let i = 0; i < 5; i += 1) start();
  assert.equal(calls.length, 1);
  calls[0].end();
  await settled();
  assert.equal(calls.length, 2);
  calls[1].end();
  await settled();
  assert.equal(calls.length, 2);
});

test("a call that lasts is aborted once its time is over and another waits", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { calls, run } = held();
  const start = latest(run, 1000);
  start();
  mock.timers.tick(5000);
  assert.equal(calls[0].signal.aborted, false); // nobody waits
  start();
  mock.timers.tick(1001);
  assert.equal(calls[0].signal.aborted, true);
  mock.timers.reset();
  await settled();
  assert.equal(calls.length, 2);
  assert.equal(calls[1].signal.aborted, false);
});

test("a call that fails lets the next one begin", async () => {
  const { calls, run } = held();
  const start = latest(run, 1000);
  const failed = assert.rejects(start(), /it failed/);
  start();
  calls[0].fail(new Error("it failed"));
  await failed;
  await settled();
  assert.equal(calls.length, 2);
});

test("calls that never cease are made once in a while", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  let count = 0;
  const call = soon(() => (count += 1), 40);
  for (let ms = 0; ms < 400; ms += 10) {
    call();
    mock.timers.tick(10);
  }
  mock.timers.reset();
  assert.equal(count, 10);
});

test("children that stay are the same elements, in the new order", () => {
  const parent = h("ul");
  const show = keyed(parent, () => {
    const element = h("li");
    return { element, show: (text) => (element.textContent = text) };
  });
  show([
    ["a", "1"],
    ["b", "2"],
    ["c", "3"],
  ]);
  const [a, b, c] = parent.children;
  show([
    ["c", "4"],
    ["d", "5"],
    ["a", "6"],
  ]);
  const after = parent.children;
  assert.equal(parent.textContent, "456");
  assert.ok(after[0] === c && after[2] === a && !after.includes(b));
});
