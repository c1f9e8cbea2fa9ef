// The input of a model with named features: a slider and a number for each, a field for a text or
// a boolean.

import { boundary, hasPlane } from "./boundary.js";
import { h } from "./dom.js";
import { fieldsElement, rowOf, valueField } from "./field.js";
import { number, rounded, words } from "./format.js";

// `listed` is what /models says of the columns. Returns {element, beside, again(), instances()}:
// `beside` is the plane of a classifier of two features, which again() paints if it could not be.
// `memory.values` keeps what was typed.
export function tabular({ card, listed = [], memory, changed, classify }) {
  memory.values ??= Object.create(null); // a feature may be called constructor
  const columns = card.features.map((feature) => listed.find(({ name }) => name === feature.name));
  const isWhole = columns.map((column, i) => column?.type === "integer" || isInteger(card, i));
  const rows = card.features.map((feature, i) => {
    const column = columns[i];
    const isNumber = (feature.type ?? "number") === "number";
    const of = {
      ...feature,
      type: isNumber ? (column?.type ?? "number") : feature.type,
      label: words(feature.name),
      takesMissing: column?.takes_missing ?? false,
    };
    const beginning = { first: feature.default, memory: memory.values, changed: onInput };
    return isNumber ? numberRow(of, isWhole[i], beginning) : valueField(of, beginning);
  });
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
  const plane = hasPlane(card) ? boundary({ card, classify, moved }) : null;

  function onInput() {
    mark();
    changed();
  }
  function fill(input) {
    input.forEach((value, i) => rows[i].set(value));
    onInput();
  }
  function moved(point) {
    fill(point.map((value, i) => (columns[i]?.type === "integer" ? Math.round(value) : value)));
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
    fieldsElement(rows),
  );
  return {
    element,
    beside: plane?.element,
    again: plane?.start,
    instances: async () => rowOf(rows),
  };
}

// Whether a feature has only integers, as far as its card shows.
function isInteger(card, i) {
  const { minimum, maximum, default: usual } = card.features[i];
  const seen = card.examples.map(({ input }) => input[i]).filter((value) => value !== null);
  return (
    [minimum, maximum, usual, ...seen].every(Number.isInteger) &&
    maximum > minimum &&
    maximum - minimum < 1000
  );
}

// The field of a number, with a slider where its values differ.
function numberRow(of, isInteger, { first, memory, changed }) {
  const { minimum, maximum, unit } = of;
  const range = maximum - minimum;
  const outside = h("span.outside", { hidden: true }, "outside training");
  const slider = h("input", {
    type: "range",
    min: minimum,
    max: maximum,
    step: isInteger ? 1 : "any",
    "aria-label": `${of.label}, slider`,
  });
  const between =
    range > 0 ? `${number(minimum)} – ${number(maximum)}` : `always ${number(minimum)}`;
  const row = valueField(
    { ...of, range: between },
    {
      first,
      memory,
      changed: onInput,
      beside: outside,
      below: range > 0 ? slider : [],
    },
  );
  row.describe(slider);

  function onInput() {
    show();
    changed();
  }
  function show() {
    const now = row.value() ?? null;
    if (now !== null) slider.value = now;
    slider.style.setProperty("--at", `${(100 * (slider.value - minimum)) / (range || 1)}%`);
    slider.setAttribute(
      "aria-valuetext",
      [now ?? "empty", unit].filter((each) => each !== "").join(" "),
    );
    const isOutside = now !== null && (now < minimum || now > maximum);
    outside.hidden = !isOutside;
    row.element.classList.toggle("is-outside", isOutside);
  }
  function set(value) {
    row.set(value);
    show();
  }
  slider.addEventListener("input", () => {
    // The ends are exact, what lies between them is rounded to what a person would type.
    const at = Number(slider.value);
    set(at === minimum || at === maximum ? at : rounded(at, range));
    changed();
  });
  show();
  return { ...row, set };
}
