import assert from "node:assert/strict";
import { test } from "node:test";

import { withClass } from "./fake_document.js";
import { NoAnswer } from "#pages/api.js";
import { boundary, css, hasPlane } from "#pages/boundary.js";

const FEATURES = [
  { name: "x", minimum: 0, maximum: 48 },
  { name: "y", minimum: -1, maximum: 1 },
];
const CARD = { features: FEATURES, labels: ["upper", "lower"] };
const refusal = (status) => Object.assign(new Error(`refused with ${status}`), { status });

// A plane whose rows are classified by a function; it keeps the rows of each request.
function plane(classify) {
  const requests = [];
  const view = boundary({
    card: CARD,
    moved() {},
    classify: async (rows) => {
      requests.push(rows);
      return classify(rows);
    },
  });
  const [canvas] = withClass(view.element, "surface")[0].children;
  const status = () => withClass(view.element, "note")[0].textContent;
  return { ...view, requests, canvas, status };
}
const certain = (rows) => rows.flatMap(([, y]) => (y > 0 ? [1, 0] : [0, 1]));

test("only a classifier of two numbers has a plane", () => {
  assert.equal(hasPlane(CARD), true);
  assert.equal(hasPlane({ features: FEATURES }), false);
  assert.equal(hasPlane({ ...CARD, features: [...FEATURES, FEATURES[0]] }), false);
  const [x, y] = FEATURES;
  assert.equal(hasPlane({ ...CARD, features: [x, { name: "a text" }] }), false);
  assert.equal(hasPlane({ ...CARD, features: [x, { ...y, minimum: 1 }] }), false);
  assert.equal(hasPlane(undefined), false);
});

test("rows are the middles of the spots, from the top left, row by row", async () => {
  const { start, requests } = plane(certain);
  await start();
  const [rows] = requests;
  assert.equal(rows.length, 48 * 48);
  assert.deepEqual(rows[0], [0.5, 0.979167]);
  assert.deepEqual(rows[1], [1.5, 0.979167]);
  assert.deepEqual(rows[48], [0.5, 0.9375]);
  assert.deepEqual(rows.at(-1), [47.5, -0.979167]);
});

test("a spot has the colours of its classes, as far as each is probable", async () => {
  const { start, canvas } = plane((rows) => rows.flatMap(() => [0.5, 0.5]));
  await start();
  const mixed = [(224 + 47) / 2, 122, (47 + 184) / 2];
  const [red, green, blue, alpha] = canvas.image.data;
  assert.equal(alpha, 255);
  [red, green, blue].forEach((each, i) => assert.ok(Math.abs(each - mixed[i]) <= 0.5));
  assert.equal(css(0), "rgb(224 122 47)");
  assert.equal(css(8), css(0)); // there are 8
});

test("the upper half is above the lower one", async () => {
  const { start, canvas } = plane(certain);
  await start();
  assert.deepEqual([...canvas.image.data.slice(0, 3)], [224, 122, 47]);
  assert.deepEqual([...canvas.image.data.slice(-4, -1)], [47, 122, 184]);
});

test("it is coarser where a request may hold fewer rows", async () => {
  for (const status of [413, 503]) {
    const { start, requests, element } = plane((rows) => {
      if (rows.length > 600) throw refusal(status);
      return certain(rows);
    });
    await start();
    assert.deepEqual(
      requests.map((rows) => rows.length),
      [48 * 48, 24 * 24],
    );
    assert.equal(Number(element.dataset.rows), 24 * 24);
  }
  const { start, requests, status } = plane(() => {
    throw refusal(413);
  });
  await start();
  assert.equal(requests.length, 3);
  assert.match(status(), /too few rows/);
});

test("it starts again if no answer came, and not if it was refused or is painted", async () => {
  const errors = [new NoAnswer("away"), null];
  const lost = plane((rows) => {
    const error = errors.shift();
    if (error) throw error;
    return certain(rows);
  });
  await lost.start();
  assert.equal(lost.status(), "away");
  await lost.start();
  assert.match(lost.status(), /^Each spot has the colour/);
  await lost.start();
  assert.equal(lost.requests.length, 2);
  const refused = plane(() => {
    throw refusal(400);
  });
  await refused.start();
  await refused.start();
  assert.equal(refused.requests.length, 1);
  assert.equal(refused.status(), "refused with 400");
});
