// The input of a model with named features: a slider and a number for each.

import { boundary, hasPlane } from "./boundary.js";
import { h, id } from "./dom.js";
import { number, rounded, words } from "./format.js";

// Returns {element, beside, again(), instances()}: `beside` is the plane of a classifier of two
// features, which again() paints if it could not be. `memory.values` keeps what was typed.
export function tabular({ card, memory, changed, classify }) {
  memory.values ??= Object.create(null); // a feature may be called constructor
  const rows = card.features.map((feature, i) =>
    featureRow(feature, isInteger(card, i), memory, onInput),
  );
  const presets = [
    { name: "defaults", input: card.features.map((feature) => feature.default) },
    ...card.examples,
  ];
  const buttons = presets.map(({ name, input }) =>
    h(
      "button.chip",
      { type: "button", "aria-pressed": "false", onclick: () => fill(input) },
      words(name),
    ),
  );
  const plane = hasPlane(card) ? boundary({ card, classify, moved: fill }) : null;

  function onInput() {
    mark();
    changed();
  }
  function fill(input) {
    input.forEach((value, i) => rows[i].set(value));
    onInput();
  }
  function mark() {
    const values = rows.map((row) => row.value());
    presets.forEach(({ input }, i) => {
      buttons[i].setAttribute(
        "aria-pressed",
        input.every((value, j) => value === values[j]),
      );
    });
    plane?.point(values);
  }
  mark();
  const element = h(
    "section.card.input",
    { "aria-label": "Input" },
    h("h2", {}, "Input"),
    h("div.chips", { role: "group", "aria-label": "Examples" }, buttons),
    h(
      card.features.length > 5 ? "div.features.many" : "div.features",
      {},
      rows.map((row) => row.element),
    ),
  );
  return {
    element,
    beside: plane?.element,
    again: plane?.start,
    async instances() {
      const wrong = rows.find((row) => row.value() === null);
      if (wrong) return { why: `${words(wrong.name)}: give a number.` };
      return named(
        card,
        rows.map((row) => row.value()),
      );
    },
  };
}

// A row as JSON: by name, and in the card's order, which an object with names such as "10" has not.
export function named(card, values) {
  const row = Object.fromEntries(card.features.map(({ name }, i) => [name, values[i]]));
  return { instances: JSON.stringify([row]), flat: JSON.stringify(values) };
}

// Whether a feature takes only integers, as far as its card shows.
function isInteger(card, i) {
  const { minimum, maximum, default: usual } = card.features[i];
  return (
    [minimum, maximum, usual, ...card.examples.map(({ input }) => input[i])].every(
      Number.isInteger,
    ) &&
    maximum > minimum &&
    maximum - minimum < 1000
  );
}

function featureRow(feature, isInteger, memory, onInput) {
  const { name, unit, description, minimum, maximum } = feature;
  const range = maximum - minimum;
  const noteId = id("note");
  const unitId = id("unit");
  const describedBy = `${unitId} ${noteId}`;
  const label = words(name);
  const fieldId = id("field");
  const slider = h("input", {
    type: "range",
    min: minimum,
    max: maximum,
    step: isInteger ? 1 : "any",
    "aria-label": `${label}, slider`,
    "aria-describedby": describedBy,
  });
  const field = h("input", {
    type: "number",
    id: fieldId,
    step: "any",
    inputmode: "decimal",
    "aria-describedby": describedBy,
    autocomplete: "off",
    required: true,
  });
  const outside = h("span.outside", { hidden: true }, "outside training");
  const element = h(
    "div.feature",
    {},
    h(
      "div.feature-head",
      {},
      h("label", { for: fieldId }, label),
      h("span.unit", { id: unitId }, unit),
      outside,
      field,
    ),
    slider,
    h(
      "p.note",
      { id: noteId },
      h("span.range", {}, `${number(minimum)} – ${number(maximum)}`),
      " ",
      h("span", {}, description),
    ),
  );
  const value = () =>
    field.value === "" || !Number.isFinite(field.valueAsNumber) ? null : field.valueAsNumber;
  function show() {
    const now = value();
    memory.values[name] = field.value;
    if (now !== null) slider.value = now;
    slider.style.setProperty(
      "--at",
      `${range > 0 ? (100 * (slider.valueAsNumber - minimum)) / range : 0}%`,
    );
    slider.setAttribute("aria-valuetext", `${field.value} ${unit}`);
    field.setAttribute("aria-invalid", now === null);
    const isOutside = now !== null && (now < minimum || now > maximum);
    outside.hidden = !isOutside;
    element.classList.toggle("is-outside", isOutside);
  }
  function set(text) {
    field.value = text;
    show();
  }
  slider.addEventListener("input", () => {
    // The ends are exact, what lies between them is rounded to what a person would type.
    const at = slider.valueAsNumber;
    set(at === minimum || at === maximum ? at : rounded(at, range));
    onInput();
  });
  field.addEventListener("input", () => {
    show();
    onInput();
  });
  set(memory.values[name] ?? feature.default);
  return { element, name, value, set };
}
