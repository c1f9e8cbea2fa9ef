// The input of a model with an input for each column and no card: a field for each.

import { h } from "./dom.js";
import { fieldsElement, rowOf, valueField } from "./field.js";

const EMPTY = { string: "", boolean: false }; // others are numbers

// `listed` is what /models says of them: [{name, type, takes_missing, example}, ...]. Returns
// {element, instances()}, which gives JSON: the instances, by name, their values as one flat list,
// and each value. `memory.values` keeps what was typed.
export function columns({ memory, changed, listed }) {
  memory.values ??= Object.create(null); // a column may be called constructor
  const fields = listed.map(({ name, type, takes_missing: takesMissing, example }) =>
    valueField(
      { name, type, unit: type === "number" ? type : "", takesMissing },
      { first: example ?? EMPTY[type] ?? 0, memory: memory.values, changed },
    ),
  );
  const mayMiss = listed.some((column) => column.takes_missing);
  const element = h(
    "section.card.input",
    { "aria-label": "Input" },
    h("h2", {}, "Input"),
    fieldsElement(fields),
    h(
      "p.note",
      {},
      "The file has no card, so nobody says what they mean.",
      mayMiss ? " A number that is left empty is missing, where the field says so." : "",
    ),
  );
  return { element, instances: async () => rowOf(fields) };
}
