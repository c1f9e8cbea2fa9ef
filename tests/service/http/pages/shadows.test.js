import assert from "node:assert/strict";
import { test } from "node:test";

import { withClass } from "./fake_document.js";
import { parse } from "#pages/metrics.js";
import { pairsOf, shadowsView } from "#pages/shadows.js";

const line = (shadow, outcome, value) =>
  `torchlit_shadow_rows_total{model="a_b",outcome="${outcome}",shadow="${shadow}",version="2"}` +
  ` ${value}\n`;
const of = (shadow, ...values) =>
  ["agree", "disagree", "failed", "dropped"]
    .map((each, i) => line(shadow, each, values[i]))
    .join("");

test("a pair has the rows of each outcome", () => {
  const samples = parse(`torchlit_rows_total{model="a_b",version="2"} 9.0\n${of(3, 6, 2, 1, 0)}`);
  const [{ key, ...pair }, ...others] = pairsOf(samples);
  const expected = { model: "a_b", version: "2", shadow: "3" };
  assert.deepEqual(pair, { ...expected, agree: 6, disagree: 2, failed: 1, dropped: 0 });
  assert.deepEqual(others, []);
});

test("agreement is of the rows that were compared, and none is no number", () => {
  const view = shadowsView();
  view.update(parse(of(3, 6, 2, 12345, 7) + of(4, 0, 0, 0, 5)));
  assert.equal(view.element.hidden, false);
  const cells = withClass(view.element, "n").map((each) => each.textContent);
  const heads = 5;
  assert.deepEqual(cells.slice(heads, heads + 5), ["75.0 %", "8", "2", "12,350", "7"]);
  assert.deepEqual(cells.slice(heads + 5), ["–", "0", "0", "0", "5"]);
  const which = withClass(view.element, "which").map((each) => each.textContent);
  assert.deepEqual(which, ["2 and 3", "2 and 4"]);
});

test("where nothing is compared nothing is shown", () => {
  const view = shadowsView();
  view.update(parse(of(3, 1, 0, 0, 0)));
  view.update([]);
  assert.equal(view.element.hidden, true);
});
