import assert from "node:assert/strict";
import { test } from "node:test";

import { withClass } from "./fake_document.js";
import { answerView } from "#pages/answer.js";

// The view of a model that answered a prediction: what it says in words, and its element.
function shown(described, prediction) {
  const view = answerView(described);
  const inWords = view.show(prediction, JSON.stringify({ predictions: [prediction] }));
  return { inWords, element: view.element };
}

const texts = (element, name) => withClass(element, name).map((each) => each.textContent);

test("a classifier without a card has a bar for each label, in their order", () => {
  const classifier = { labels: [10, 9], answers: "probabilities" };
  const prediction = { label: 9, probability: 0.75, probabilities: { 9: 0.75, 10: 0.25 } };
  const { inWords, element } = shown({ card: null, classifier }, prediction);
  assert.equal(inWords, "9, 75.0 %");
  assert.deepEqual(texts(element, "name"), ["10", "9"]);
  assert.deepEqual(texts(element, "share"), ["25.0 %", "75.0 %"]);
  assert.deepEqual(texts(element, "top"), ["975.0 %"]);
});

test("scores, and what stands beside probabilities, are shown as they came", () => {
  const classifier = { labels: ["no", "yes"], answers: "scores" };
  const scores = { label: "no", scores: { no: 2.5, yes: -1 } };
  const { inWords, element } = shown({ card: null, classifier }, scores);
  assert.deepEqual(JSON.parse(inWords), scores);
  assert.deepEqual(texts(element, "name"), []);
  const beside = { label: "no", probability: 1, probabilities: { no: 1, yes: 0 }, leaf: [3] };
  classifier.answers = "probabilities";
  const also = shown({ card: null, classifier }, beside);
  assert.deepEqual(JSON.parse(also.inWords), beside);
});

test("labels that are not known have no bars", () => {
  const classifier = { labels: [], answers: "probabilities" };
  const prediction = { label: 1, probability: 0.75, probabilities: [0.25, 0.75] };
  const { inWords } = shown({ card: null, classifier }, prediction);
  assert.deepEqual(JSON.parse(inWords), prediction);
});

test("a model that is no classifier has its prediction as it came", () => {
  const { inWords } = shown({ card: null }, { output: [1, 2] });
  assert.deepEqual(JSON.parse(inWords), { output: [1, 2] });
});

test("a value without unit and description has neither, nor room for them", () => {
  const card = {
    targets: [{ name: "price", unit: "", description: "" }],
    interval: { coverage: 0.9 },
    examples: [{ output: [1], interval: [0, 2] }],
  };
  const { inWords, element } = shown({ card }, { value: 1, lower: 0, upper: 2 });
  assert.equal(inWords, "1, between 0 and 2");
  assert.deepEqual(texts(element, "note"), []);
  assert.match(texts(element, "between")[0], /and 2: so wide/);
});
