// The input of a model with an input for each column: a field for each.

import { h, id } from "./dom.js";

// `listed` is what /models says of them: [{name, type, example}, ...]. Returns {element,
// instances()}, which gives JSON: the instances, by name, their values as one flat list, and each
// value. `memory.values` keeps what was typed.
export function columns({ memory, changed, listed }) {
  memory.values ??= Object.create(null); // a column may be called constructor
  const fields = listed.map((column) => columnField(column, memory.values, changed));
  const element = h(
    "section.card.input",
    { "aria-label": "Input" },
    h("h2", {}, "Input"),
    h(
      fields.length > 5 ? "div.features.many" : "div.features",
      {},
      fields.map((field) => field.element),
    ),
    h(
      "p.note",
      {},
      "The file has no card, so nobody says what they mean. An empty number is missing.",
    ),
  );
  return {
    element,
    async instances() {
      const wrong = fields.find((field) => field.json() === null);
      if (wrong) return { why: `${wrong.name}: give a number.` };
      const named = fields.map((field) => `${JSON.stringify(field.name)}:${field.json()}`);
      const values = fields.map((field) => field.json());
      return { instances: `[{${named.join(",")}}]`, flat: `[${values.join(",")}]`, values };
    },
  };
}

// Its json() is the value as it was typed, as a program would write it; null where it is none.
function columnField({ name, type: kind, example }, values, changed) {
  const fieldId = id("field");
  const type = { string: "text", boolean: "checkbox" }[kind] ?? "number";
  values[name] ??= example ?? { text: "", number: 0, checkbox: false }[type];
  const isChecked = type === "checkbox";
  const field = h("input", {
    type,
    id: fieldId,
    ...(isChecked ? { checked: values[name] } : { value: String(values[name]) }),
    step: type === "number" ? "any" : null,
    autocomplete: "off",
    spellcheck: "false",
  });
  field.addEventListener("input", () => {
    values[name] = isChecked ? field.checked : field.value;
    changed();
  });
  const unit = { text: "text", checkbox: "yes or no", number: kind }[type];
  const element = h(
    "div.feature",
    {},
    h("div.feature-head", {}, h("label", { for: fieldId }, name), h("span.unit", {}, unit), field),
  );
  function json() {
    if (type === "text") return JSON.stringify(field.value);
    if (isChecked) return String(Boolean(field.checked));
    if (field.value === "") return field.validity?.badInput ? null : "null";
    // Integers above 2^53 stay as they were typed; .5 and 5. are no JSON.
    return /^-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?$/i.test(field.value)
      ? field.value
      : Number.isFinite(Number(field.value))
        ? String(Number(field.value))
        : null;
  }
  return { element, name, json };
}
