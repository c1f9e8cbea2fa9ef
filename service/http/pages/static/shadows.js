// Versions that are compared on live rows, from GET /metrics.

import { h, keyed } from "./dom.js";
import { grouped, percent, words } from "./format.js";

const ROWS = "torchlit_shadow_rows_total";
const HEADS = ["Model", "Agreement", "Compared", "Other answers", "Failed", "Dropped"];

// What came of the rows of each pair: [{model, version, shadow, agree, disagree, failed, dropped}].
export function pairsOf(samples) {
  const pairs = new Map();
  for (const { name, labels, value } of samples) {
    if (name !== ROWS) continue;
    const { model, version, shadow, outcome } = labels;
    const key = JSON.stringify([model, version, shadow]);
    if (!pairs.has(key)) pairs.set(key, { key, model, version, shadow });
    pairs.get(key)[outcome] = value;
  }
  return [...pairs.values()];
}

// {element, update(samples)}: hidden where nothing is compared.
export function shadowsView() {
  const rows = h("tbody");
  const head = (each, i) => h(i > 0 ? "th.n" : "th", { scope: "col" }, each);
  const element = h(
    "section.card",
    { "aria-label": "Versions that are compared", hidden: true },
    h("h2", {}, "Versions that are compared"),
    h(
      "div.scroll",
      { tabindex: "0", role: "group", "aria-label": "Table of versions that are compared" },
      h("table", {}, h("thead", {}, h("tr", {}, HEADS.map(head))), rows),
    ),
    h(
      "p.note",
      {},
      "A shadow gets rows that its version answered; nobody gets its answers. Since the start.",
    ),
  );
  const show = keyed(rows, tableRow);
  function update(samples) {
    const pairs = pairsOf(samples);
    element.hidden = !pairs.length;
    show(pairs.map((each) => [each.key, each]));
  }
  return { element, update };
}

function tableRow() {
  const link = h("a");
  const which = h("span.which");
  const cells = HEADS.slice(1).map(() => h("td.n"));
  const element = h("tr", {}, h("th", { scope: "row" }, link, " ", which), cells);
  function show({ model, version, shadow, agree, disagree, failed, dropped }) {
    link.href = `#${encodeURIComponent(model)}`;
    link.textContent = words(model);
    which.textContent = `${version} and ${shadow}`;
    const compared = agree + disagree;
    const numbers = [compared, disagree, failed, dropped].map(grouped);
    const texts = [compared ? percent(agree / compared) : "–", ...numbers];
    texts.forEach((text, i) => (cells[i].textContent = text));
  }
  return { element, show };
}
