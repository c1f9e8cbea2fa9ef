import assert from "node:assert/strict";
import { test } from "node:test";

import { withClass } from "./fake_document.js";
import { columns } from "#pages/columns.js";

const LISTED = [
  { name: "age", type: "number", takes_missing: true, example: 0 },
  { name: "rooms", type: "integer", example: 3 },
  { name: 'the "city"', type: "string", example: "rome" },
  { name: "paid", type: "boolean", example: null },
];

function panelOf(memory = {}) {
  let changes = 0;
  const panel = columns({ memory, changed: () => (changes += 1), listed: LISTED });
  const fields = withClass(panel.element, "feature-head").map((head) => head.children.at(-1));
  return { panel, fields, changes: () => changes };
}

function type(field, value) {
  if (typeof value === "boolean") field.checked = value;
  else field.value = value;
  field.dispatch("input");
}

test("each column has a field of its type, and begins with what is answered", async () => {
  const { panel, fields } = panelOf();
  const types = fields.map((field) => field.getAttribute("type"));
  assert.deepEqual(types, ["number", "number", "text", "checkbox"]);
  assert.deepEqual(JSON.parse((await panel.instances()).instances), [
    { age: 0, rooms: 3, 'the "city"': "rome", paid: false },
  ]);
});

test("what was typed is sent, by name and in order, and kept", async () => {
  const memory = {};
  const { panel, fields, changes } = panelOf(memory);
  const typed = [".5", "9007199254740993", "Łódź", true];
  typed.forEach((value, i) => type(fields[i], value));
  const sent = {
    instances: '[{"age":0.5,"rooms":9007199254740993,"the \\"city\\"":"Łódź","paid":true}]',
    flat: '[0.5,9007199254740993,"Łódź",true]',
    values: ["0.5", "9007199254740993", '"Łódź"', "true"],
  };
  assert.deepEqual(await panel.instances(), sent);
  assert.equal(changes(), 4);
  assert.deepEqual(await panelOf(memory).panel.instances(), sent);
});

test("no number is a missing value where the model takes one, and what is none is said", async () => {
  const { panel, fields } = panelOf();
  type(fields[0], "");
  assert.equal(JSON.parse((await panel.instances()).flat)[0], null);
  type(fields[0], "abc");
  assert.deepEqual(await panel.instances(), { why: "age: give a number." });
  type(fields[0], "1");
  type(fields[1], ""); // which may not be missing
  assert.deepEqual(await panel.instances(), { why: "rooms: give a number." });
});
