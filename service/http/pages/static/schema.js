// JSON Schema as a tree that folds; references are followed when they are opened.

import { h } from "./dom.js";
import { number } from "./format.js";

export function resolved(document, schema) {
  let at = schema ?? {};
  for (let i = 0; at.$ref && i < 20; i += 1) {
    const { $ref, ...beside } = at;
    const found = $ref
      .slice(2)
      .split("/")
      .reduce((part, name) => part?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], document);
    at = { ...found, ...beside };
  }
  return at;
}

const nameOf = (schema) => schema?.$ref?.split("/").at(-1);

// What a schema is, in one line.
export function inWords(document, schema) {
  const is = resolved(document, schema);
  if (is.const !== undefined) return JSON.stringify(is.const);
  if (is.enum) return is.enum.map((each) => JSON.stringify(each)).join(" | ");
  const some = is.anyOf ?? is.oneOf;
  if (some)
    return some.length > 3
      ? `one of ${some.length}`
      : some.map((each) => nameOf(each) ?? inWords(document, each)).join(" | ");
  if (is.type === "array") {
    const { minItems: least, maxItems: most } = is;
    const size =
      least === undefined && most === undefined
        ? ""
        : least === most
          ? ` of ${least}`
          : ` of ${least ?? 0} to ${most ?? "any"}`;
    const items = is.items ?? {};
    const what = nameOf(items) ?? (items.type === "array" ? "lists" : inWords(document, items));
    return `list${size}: ${what}`;
  }
  const type = Array.isArray(is.type) ? is.type.join(" | ") : is.type;
  return `${nameOf(schema) ?? type ?? "any"}${limits(is)}`;
}

function limits({ minimum, maximum, format }) {
  const parts = [];
  const isShown = (bound) => Math.abs(bound) <= Number.MAX_SAFE_INTEGER; // others are rounded
  if (isShown(minimum)) parts.push(`≥ ${number(minimum)}`);
  if (isShown(maximum)) parts.push(`≤ ${maximum >= 1e6 ? maximum : number(maximum)}`);
  if (format) parts.push(format);
  return parts.length ? ` (${parts.join(", ")})` : "";
}

// The element of one named part: a line, with what lies below it folded.
export function tree(document, schema, name = "", { isRequired = false, isOpen = false } = {}) {
  const is = resolved(document, schema);
  const head = [
    name ? h("code", {}, name) : null,
    h("span.type", {}, inWords(document, schema)),
    isRequired ? h("span.required", {}, "required") : null,
    is.description ? h("span.about", {}, is.description) : null,
  ];
  const below = parts(is);
  if (!below.length) return h("div.leaf", {}, head);
  const inside = h("div.below");
  const details = h("details.fold", { open: isOpen }, h("summary", {}, head), inside);
  const fill = () => {
    if (inside.childElementCount) return;
    inside.append(...below.map(([part, each, options]) => tree(document, each, part, options)));
  };
  if (isOpen) fill();
  details.addEventListener("toggle", fill, { once: true });
  return details;
}

function parts(is) {
  const found = Object.entries(is.properties ?? {}).map(([name, each]) => [
    name,
    each,
    { isRequired: is.required?.includes(name) },
  ]);
  if (is.additionalProperties && typeof is.additionalProperties === "object")
    found.push(["any other", is.additionalProperties]);
  if (is.items && typeof is.items === "object" && hasMore(is.items)) found.push(["each", is.items]);
  for (const each of is.anyOf ?? is.oneOf ?? is.allOf ?? []) found.push(["", each]);
  return found;
}

const hasMore = (items) =>
  Boolean(items.$ref || items.properties || items.items || items.anyOf || items.oneOf);
