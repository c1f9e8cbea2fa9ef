import assert from "node:assert/strict";
import { test } from "node:test";

import { withClass } from "./fake_document.js";
import { inWords, resolved, tree } from "#pages/schema.js";

const API = {
  paths: { "/models/{model}": { "~get": { type: "integer" } } },
  components: {
    schemas: {
      Row: {
        type: "object",
        required: ["length"],
        properties: {
          length: { type: "number", minimum: 0, maximum: 7.9, description: "of a leaf" },
          place: { $ref: "#/components/schemas/Place" },
        },
      },
      Place: {
        type: "object",
        properties: {
          inner: {
            type: "object",
            properties: { x: { type: "integer" } },
            additionalProperties: { type: "string" },
          },
        },
      },
      Node: {
        type: "object",
        properties: { nodes: { type: "array", items: { $ref: "#/components/schemas/Node" } } },
      },
      Nested: { type: "array", items: { $ref: "#/components/schemas/Nested" } },
      Alias: { $ref: "#/components/schemas/Row", description: "a row, again" },
      Loop: { $ref: "#/components/schemas/Loop" },
    },
  },
};
const ref = (name) => ({ $ref: `#/components/schemas/${name}` });
const say = (schema) => inWords(API, schema);
const names = (element) => withClass(element, "below")[0].children.map(firstText);
const firstText = ({ children: [head] }) =>
  head.tag === "summary" ? firstText(head) : head.textContent;

test("a reference is followed, also through another, and what stands beside it wins", () => {
  assert.deepEqual(resolved(API, ref("Row")), API.components.schemas.Row);
  const { description, properties } = resolved(API, ref("Alias"));
  assert.equal(description, "a row, again");
  assert.equal(properties, API.components.schemas.Row.properties);
  assert.equal(resolved(API, { ...ref("Alias"), description: "mine" }).description, "mine");
});

test("a reference may have ~1 for a slash and ~0 for a tilde", () => {
  const $ref = "#/paths/~1models~1{model}/~0get";
  assert.deepEqual(resolved(API, { $ref }), { type: "integer" });
});

test("what leads nowhere, or in a circle, is an empty schema or the reference itself", () => {
  assert.deepEqual(resolved(API, undefined), {});
  assert.deepEqual(resolved(API, ref("Missing")), {});
  assert.deepEqual(resolved(API, { $ref: "#/no/such/place" }), {});
  assert.deepEqual(resolved(API, ref("Loop")), ref("Loop"));
});

test("a schema is said in a line", () => {
  const lines = [
    [{ const: "a" }, '"a"'],
    [{ const: null }, "null"],
    [{ enum: ["a", 1, null] }, '"a" | 1 | null'],
    [{}, "any"],
    [{ type: "string", format: "binary" }, "string (binary)"],
    [{ type: ["integer", "null"], minimum: 0 }, "integer | null (≥ 0)"],
    [{ type: "number", minimum: 0.5, maximum: 7.9 }, "number (≥ 0.5, ≤ 7.9)"],
    [{ type: "integer", maximum: 9007199254740991 }, "integer (≤ 9007199254740991)"],
    [{ type: "integer", format: "int64", maximum: 2 ** 63 }, "integer (int64)"],
    [{ type: "number", minimum: -3.4e38, maximum: 3.4e38 }, "number"], // of float32: no limits
    [ref("Row"), "Row"],
    [{ anyOf: [ref("Row"), { type: "number" }] }, "Row | number"],
    [{ oneOf: [{ type: "string" }, { type: "null" }] }, "string | null"],
    [{ anyOf: [{}, {}, {}, {}] }, "one of 4"],
  ];
  for (const [schema, line] of lines) assert.equal(say(schema), line);
});

test("a list is said with its size and its items", () => {
  const list = (rest) => say({ type: "array", items: { type: "number" }, ...rest });
  assert.equal(list({}), "list: number");
  assert.equal(list({ minItems: 4, maxItems: 4 }), "list of 4: number");
  assert.equal(list({ minItems: 1 }), "list of 1 to any: number");
  assert.equal(list({ maxItems: 3 }), "list of 0 to 3: number");
  assert.equal(list({ items: { type: "array", items: {} } }), "list: lists");
  assert.equal(list({ items: ref("Row") }), "list: Row");
  assert.equal(list({ items: undefined }), "list: any");
});

test("a list of itself ends", () => {
  assert.equal(say(API.components.schemas.Nested), "list: Nested");
  assert.equal(say(API.components.schemas.Node.properties.nodes), "list: Node");
});

test("what has nothing below it is a line, with its name and its description", () => {
  const leaf = tree(API, { type: "number", description: "of a leaf" }, "length");
  assert.equal(leaf.className, "leaf");
  assert.deepEqual(
    leaf.children.map((each) => each.textContent),
    ["length", "number", "of a leaf"],
  );
});

test("nested objects fold, and what is in them is made once they are opened", () => {
  const row = tree(API, ref("Row"), "", { isOpen: true });
  assert.equal(row.attributes.open, "");
  row.dispatch("toggle"); // as browsers do for what is open from the start
  assert.deepEqual(names(row), ["length", "place"]);
  const [length, place] = withClass(row, "below")[0].children;
  assert.equal(withClass(length, "required").length, 1);
  assert.equal(withClass(place, "required").length, 0);
  assert.equal(withClass(place, "below")[0].childElementCount, 0);
  place.dispatch("toggle");
  assert.deepEqual(names(place), ["inner"]);
  const [inner] = withClass(place, "below")[0].children;
  inner.dispatch("toggle");
  assert.deepEqual(names(inner), ["x", "any other"]);
  inner.dispatch("toggle"); // closed and opened again
  assert.deepEqual(names(inner), ["x", "any other"]);
});

test("a schema that holds itself folds as deep as one opens it", () => {
  let at = tree(API, ref("Node"), "node", { isOpen: true });
  for (let depth = 0; depth < 6; depth += 1) {
    [at] = withClass(at, "below")[0].children;
    at.dispatch("toggle");
    assert.deepEqual(names(at), [depth % 2 ? "nodes" : "each"]);
  }
});

test("each way that a value may be is below it", () => {
  const either = tree(API, { anyOf: [ref("Row"), { type: "number" }] }, "", { isOpen: true });
  assert.deepEqual(names(either), ["Row", "number"]);
  const both = tree(API, { allOf: [ref("Row")] }, "", { isOpen: true });
  assert.deepEqual(names(both), ["Row"]);
});
