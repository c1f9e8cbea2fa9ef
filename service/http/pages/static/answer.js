// What a model answered: bars of probabilities, a value, a value in its interval, or plain JSON.

import { css, hasPlane } from "./boundary.js";
import { h } from "./dom.js";
import { factor, grouped, percent, withUnit, words } from "./format.js";
import { first, pretty } from "./json.js";

const MOST_BARS = 12;

// {element, show(prediction, reply) => the answer in words, clear(sentence), fail(sentence)}, where
// `reply` is the text that the prediction came in.
export function answerView({ card, classifier }) {
  const body = h("div.answer-body");
  const element = h("section.card.answer", { "aria-label": "Answer" }, h("h2", {}, "Answer"), body);
  const show = classifier?.labels.length
    ? classified(body, classifier.labels, hasPlane(card))
    : card?.targets
      ? valued(body, card)
      : plain(body);
  const sentenceIn = (kind) => (sentence) => {
    body.replaceChildren(h(`p.${kind}`, {}, sentence));
    show.reset?.();
  };
  return { element, show, clear: sentenceIn("empty"), fail: sentenceIn("error") };
}

function classified(body, labels, isInPlane) {
  let rows = null;
  const others = plain(body); // scores, and what stands beside them
  const title = h("p.headline", {}, h("strong"), h("span"));
  const list = h("ul.bars");
  const isLong = labels.length > MOST_BARS;
  function make(count) {
    rows = Array.from({ length: count }, () => {
      const parts = { name: h("span.name"), fill: h("span.fill"), share: h("span.share") };
      const row = h(
        "li",
        {},
        parts.name,
        h("span.track", { "aria-hidden": "true" }, parts.fill),
        parts.share,
      );
      return { row, ...parts };
    });
    list.replaceChildren(...rows.map(({ row }) => row));
    body.replaceChildren(
      title,
      list,
      isLong ? h("p.note", {}, `The ${count} most probable of ${labels.length}.`) : "",
    );
  }
  function show(prediction, reply) {
    const { label, probability, probabilities, ...beside } = prediction;
    if (!probabilities || Object.keys(beside).length) return others(prediction, reply);
    // Keys such as "10" and "9" come in numeric order from JSON; the order of labels counts.
    let shares = labels.map((each, i) => [each, probabilities[each], i]);
    if (isLong) shares = shares.sort(([, a], [, b]) => b - a).slice(0, MOST_BARS);
    if (!rows) make(shares.length);
    title.children[0].textContent = words(`${label}`);
    title.children[1].textContent = percent(probability);
    shares.forEach(([name, share, of], i) => {
      const row = rows[i];
      if (isInPlane) row.fill.style.background = css(of); // as it is in the plane
      row.name.textContent = words(`${name}`);
      row.share.textContent = percent(share);
      row.fill.style.transform = `scaleX(${Math.max(0, Math.min(1, share))})`;
      row.row.classList.toggle("top", name === label);
    });
    return `${words(`${label}`)}, ${percent(probability)}`;
  }
  show.reset = () => (rows = null);
  return show;
}

// Values, each on a scale that the card's examples and the answers so far span.
function valued(body, card) {
  let views = null;
  function make() {
    views = card.targets.map((target, i) => valueView(card, target, i));
    body.replaceChildren(...views.map(({ element }) => element));
  }
  function show(prediction) {
    if (!views) make();
    const inWords = card.targets.map((target, i) => {
      const given = card.targets.length === 1 ? prediction : prediction[target.name];
      return views[i].show(typeof given === "number" ? { value: given } : given);
    });
    return inWords.join("; ");
  }
  show.reset = () => (views = null);
  return show;
}

function valueView(card, target, i) {
  const several = card.targets.length;
  const seen = card.examples.flatMap(({ output, interval = [] }) => [
    output[i],
    ...interval.slice(2 * i, 2 * i + 2),
  ]);
  let [low, high] = [Math.min(...seen), Math.max(...seen)];
  const value = h("strong");
  const title = h("p.headline", {}, value, h("span", {}, factor(target.unit)));
  const heading = several > 1 ? h("h3", {}, words(target.name)) : "";
  const what = target.description ? h("p.note", {}, target.description) : "";
  const parts = {
    span: h("span.span"),
    dot: h("span.dot"),
    low: h("span"),
    high: h("span"),
    words: h("p.between"),
  };
  const scale = h(
    "div.scale",
    { "aria-hidden": "true" },
    h("div.track", {}, parts.span, parts.dot),
    h("div.ends", {}, parts.low, parts.high),
  );
  const place = (x) => `${(100 * (x - low)) / (high - low || 1)}%`;
  function show({ value: middle, lower, upper }) {
    const isBounded = lower !== undefined;
    low = Math.min(low, middle, lower ?? middle);
    high = Math.max(high, middle, upper ?? middle);
    value.textContent = grouped(middle);
    parts.dot.style.left = place(middle);
    parts.low.textContent = grouped(low);
    parts.high.textContent = grouped(high);
    const inWords = withUnit(grouped(middle), target.unit);
    if (!isBounded) return inWords;
    parts.span.style.left = place(lower);
    parts.span.style.width = `calc(${place(upper)} - ${place(lower)})`;
    const coverage = Math.round(100 * card.interval.coverage);
    parts.words.replaceChildren(
      "between ",
      h("b", {}, grouped(lower)),
      " and ",
      h("b", {}, grouped(upper)),
      `${withUnit("", target.unit)}: so wide that it holds ${coverage} % of the true values`,
    );
    return `${inWords}, between ${grouped(lower)} and ${grouped(upper)}`;
  }
  return {
    element: h(
      several > 1 ? "div.value.of-several" : "div.value",
      {},
      heading,
      title,
      what,
      scale,
      card.interval ? parts.words : "",
    ),
    show,
  };
}

function plain(body) {
  return (prediction, reply) => {
    const text = pretty(first(reply, "predictions"), { width: 60 });
    body.replaceChildren(
      h("pre.code", { tabindex: "0", role: "region", "aria-label": "Prediction" }, text),
    );
    return text.slice(0, 200);
  };
}
