import assert from "node:assert/strict";
import { test } from "node:test";

import { withClass } from "./fake_document.js";
import { tabular } from "#pages/tabular.js";

const NUMBER = { unit: "", description: "", minimum: 0, maximum: 10, default: 5 };
const AGE = { ...NUMBER, name: "age", unit: "years", description: "Of the house." };
const OTHERS = [
  { ...NUMBER, name: "floors", minimum: 2, maximum: 2, default: 2 },
  {
    name: "the_city",
    unit: "",
    description: "",
    type: "string",
    default: "rome",
    values: ["rome"],
  },
  { name: "paid", unit: "", description: "", type: "boolean", default: true },
];
const CARD = {
  features: [AGE, ...OTHERS],
  examples: [{ name: "row 1", input: [null, 2, "Łódź", false], output: [1] }],
};
const MISSING = [{ name: "age", type: "number", takes_missing: true }];

function panelOf({ card = CARD, listed = MISSING, memory = {} } = {}) {
  const panel = tabular({ card, listed, memory, changed() {}, classify() {} });
  const fields = withClass(panel.element, "feature-head").map((head) => head.children.at(-1));
  return { panel, fields, chips: withClass(panel.element, "chip") };
}

const texts = (element, name) => withClass(element, name).map((each) => each.textContent);
const pressed = (chips) => chips.map((chip) => chip.getAttribute("aria-pressed"));

test("each feature has a field of its type, and begins with its default", async () => {
  const { panel, fields } = panelOf();
  const types = fields.map((field) => field.getAttribute("type"));
  assert.deepEqual(types, ["number", "number", "text", "checkbox"]);
  assert.deepEqual(await panel.instances(), {
    instances: '[{"age":5,"floors":2,"the_city":"rome","paid":true}]',
    flat: '[5,2,"rome",true]',
    values: ["5", "2", '"rome"', "true"],
  });
});

test("what is not said of a feature takes no room", () => {
  const { panel } = panelOf();
  assert.deepEqual(texts(panel.element, "unit"), ["years", "text", "yes or no"]);
  assert.deepEqual(texts(panel.element, "range"), ["0 – 10", "always 2"]);
  assert.deepEqual(texts(panel.element, "note"), ["0 – 10 Of the house.", "always 2 "]);
  const sliders = withClass(panel.element, "feature").map(
    (row) => row.children.filter((child) => child.getAttribute("type") === "range").length,
  );
  assert.deepEqual(sliders, [1, 0, 0, 0]); // none where nothing varies
});

test("an example fills in what it has, and leaves empty what is missing", async () => {
  const { panel, fields, chips } = panelOf();
  assert.deepEqual(pressed(chips), ["true", "false"]);
  chips[1].dispatch("click");
  assert.deepEqual(pressed(chips), ["false", "true"]);
  assert.equal(fields[0].value, "");
  assert.equal((await panel.instances()).flat, '[null,2,"Łódź",false]');
});

test("an empty field is no number for a model that takes no missing values", async () => {
  const { panel, fields, chips } = panelOf({ listed: [] });
  chips[1].dispatch("click");
  assert.equal(fields[0].getAttribute("aria-invalid"), "true");
  assert.deepEqual(await panel.instances(), { why: "age: give a number." });
});

test("common texts are offered, and others may be typed", async () => {
  const memory = {};
  const { panel, fields } = panelOf({ memory });
  const list = withClass(panel.element, "feature")[2].children.at(-1);
  assert.equal(fields[2].getAttribute("list"), list.getAttribute("id"));
  assert.deepEqual(
    list.children.map((option) => option.value),
    ["rome"],
  );
  fields[2].value = 'a "town"';
  fields[2].dispatch("input");
  fields[3].checked = false;
  fields[3].dispatch("input");
  const sent = '[5,2,"a \\"town\\"",false]';
  assert.equal((await panel.instances()).flat, sent);
  assert.equal((await panelOf({ memory }).panel.instances()).flat, sent);
});

test("a slider of whole numbers moves by whole numbers, however far it goes", () => {
  const card = { features: [{ ...NUMBER, name: "metres", maximum: 5000.5 }], examples: [] };
  const step = (type) => {
    const { panel } = panelOf({ card, listed: [{ name: "metres", type }] });
    return withClass(panel.element, "feature")[0].children[1].getAttribute("step");
  };
  assert.equal(step("integer"), "1");
  assert.equal(step("number"), "any");
});

test("what is outside of the training rows is marked", () => {
  const { panel, fields } = panelOf();
  fields[0].value = "11";
  fields[0].dispatch("input");
  fields[1].value = "3";
  fields[1].dispatch("input");
  assert.equal(withClass(panel.element, "is-outside").length, 2);
});
