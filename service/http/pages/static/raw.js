// The input of a model without a card: values as JSON.

import { h, id } from "./dom.js";

// `input` is what /v2 says of the model's input: {name, datatype, shape}. Returns {element,
// instances()}, which gives JSON: the instances, and their numbers as one flat list.
export function raw({ memory, changed, input }) {
  // Rows are lists, of one number too.
  const shape = input.shape.length > 1 ? input.shape.slice(1) : [1];
  const zero = { BYTES: "", BOOL: false }[input.datatype] ?? 0;
  memory.text ??= JSON.stringify(
    zeros(
      shape.map((size) => Math.max(1, size)),
      zero,
    ),
  );
  const fieldId = id("numbers");
  const field = h("textarea", { id: fieldId, rows: 6, spellcheck: "false", value: memory.text });
  field.addEventListener("input", () => {
    memory.text = field.value;
    changed();
  });
  const sizes = shape.map((size) => (size < 0 ? "any number" : size)).join(" × ");
  const what = `${input.name}: ${input.datatype}, a row is ${sizes}`;
  const element = h(
    "section.card.input",
    { "aria-label": "Input" },
    h("h2", {}, "Input"),
    h("label", { for: fieldId }, zero === 0 ? "One row of numbers, as JSON" : "One row, as JSON"),
    field,
    h("p.note", {}, `${what}. The file has no card, so nobody says what they mean.`),
  );
  return {
    element,
    async instances() {
      try {
        JSON.parse(field.value);
      } catch (error) {
        return { why: `Not JSON: ${error.message}` };
      }
      // As it was typed: JSON.parse alters integers above 2^53. Brackets in strings are theirs.
      const parts = /("(?:[^"\\]|\\.)*")|[[\]\s]+/g;
      const values = field.value.replaceAll(parts, (_, text) => text ?? "");
      return { instances: `[${field.value}]`, flat: `[${values}]` };
    },
  };
}

function zeros([size, ...rest], zero) {
  if (size === undefined) return zero;
  return Array.from({ length: size }, () => zeros(rest, zero));
}
