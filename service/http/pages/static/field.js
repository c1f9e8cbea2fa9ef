// A value of a row: a field for its type, and what is known of it.

import { h, id } from "./dom.js";

const TYPES = { string: "text", boolean: "checkbox" }; // others are numbers
const EMPTY = { text: "", checkbox: false, number: "" };
const HINTS = { string: "text", boolean: "yes or no", integer: "integer" };

// `of`: {name, label, type, unit, range, description, values, takesMissing}, of which all but name
// and type may be absent; `first` is what it begins with. `memory[name]` keeps what was typed.
// `beside` stands at its label and `below` under it. Returns {element, name, label, json(),
// value(), set(value), describe(element)}: json() is the value as it was typed, as a program would
// write it, and null where it is none; value() is the same as JSON.parse has it, and undefined
// where it is none; describe() leads from another element to what is said of the value.
export function valueField(of, { first, memory, changed, beside = [], below = [] }) {
  const { name, label = name, range = "", description = "", values = [], takesMissing } = of;
  const type = TYPES[of.type] ?? "number";
  const isChecked = type === "checkbox";
  const unit = of.unit || (HINTS[of.type] ?? "");
  const known = { unit, note: range || description };
  const ids = { field: id("field"), unit: id("unit"), note: id("note"), list: id("list") };
  const describedBy = Object.keys(known).filter((each) => known[each]);
  const describe = (element) =>
    describedBy.length &&
    element.setAttribute("aria-describedby", describedBy.map((each) => ids[each]).join(" "));
  const field = h("input", {
    type,
    id: ids.field,
    autocomplete: "off",
    spellcheck: "false",
    list: values.length ? ids.list : null,
    ...(type === "number"
      ? {
          step: "any",
          inputmode: "decimal",
          required: !takesMissing,
          placeholder: takesMissing ? "missing" : null,
        }
      : {}),
  });
  describe(field);

  function json() {
    if (type === "text") return JSON.stringify(field.value);
    return isChecked ? String(Boolean(field.checked)) : numberAsTyped(field, takesMissing);
  }
  function value() {
    const text = json();
    return text === null ? undefined : JSON.parse(text);
  }
  function keep() {
    memory[name] = isChecked ? field.checked : field.value;
    if (type === "number") field.setAttribute("aria-invalid", json() === null);
  }
  function set(now) {
    if (isChecked) field.checked = Boolean(now);
    else field.value = String(now ?? "");
    keep();
  }
  field.addEventListener("input", () => {
    keep();
    changed();
  });
  set(memory[name] ?? first ?? EMPTY[type]);

  const head = h(
    "div.feature-head",
    {},
    h("label", { for: ids.field }, label),
    unit ? h("span.unit", { id: ids.unit }, unit) : null,
    beside,
    field,
  );
  const note = h(
    "p.note",
    { id: ids.note },
    range ? h("span.range", {}, range) : null,
    " ",
    h("span", {}, description),
  );
  const list = h(
    "datalist",
    { id: ids.list },
    values.map((each) => h("option", { value: each })),
  );
  const element = h(
    "div.feature",
    {},
    head,
    below,
    known.note ? note : null,
    values.length ? list : null,
  );
  return { element, name, label, json, value, set, describe };
}

// Integers above 2^53 stay as they were typed; .5 and 5. are no JSON.
function numberAsTyped({ value, validity }, takesMissing) {
  if (value === "") return takesMissing && !validity?.badInput ? "null" : null;
  if (/^-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?$/i.test(value) && Number.isFinite(Number(value)))
    return value;
  return Number.isFinite(Number(value)) ? String(Number(value)) : null;
}

// The fields, side by side where they are many.
export function fieldsElement(fields) {
  return h(
    fields.length > 5 ? "div.features.many" : "div.features",
    {},
    fields.map(({ element }) => element),
  );
}

// What a panel of fields sends: the row that they hold, or why they hold none.
export function rowOf(fields) {
  const wrong = fields.find((field) => field.json() === null);
  if (wrong) return { why: `${wrong.label}: give a number.` };
  return named(
    fields.map(({ name }) => name),
    fields.map((field) => field.json()),
  );
}

// A row as JSON, of values as JSON: by name, as one flat list, and each value.
export function named(names, values) {
  const fields = names.map((name, i) => `${JSON.stringify(name)}:${values[i]}`);
  return { instances: `[{${fields.join(",")}}]`, flat: `[${values.join(",")}]`, values };
}
