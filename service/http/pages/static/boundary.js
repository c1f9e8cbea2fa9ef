// The plane of a classifier of two features: each spot in the colour of its answer.

import { NoAnswer } from "./api.js";
import { h } from "./dom.js";
import { number, rounded, words } from "./format.js";

const COLOURS = [
  [224, 122, 47],
  [47, 122, 184],
  [63, 155, 107],
  [166, 95, 176],
  [201, 162, 39],
  [91, 107, 214],
  [184, 70, 79],
  [74, 163, 163],
];
export const hasPlane = (card) =>
  card?.features?.length === 2 &&
  Boolean(card.labels) &&
  card.features.every(({ minimum, maximum }) => minimum < maximum); // texts have none

const SIDES = [48, 24, 12]; // how fine; coarser where a request may hold fewer rows

const EXPLANATION =
  "Each spot has the colour of its answer; where colours mix, the model is not sure. " +
  "Click or drag to move the point.";

// {element, point(values), start()}: start() does nothing once the plane is painted.
export function boundary({ card, classify, moved }) {
  const [x, y] = card.features;
  const canvas = h("canvas", { width: 48, height: 48, "aria-hidden": "true" });
  const dot = h("span.dot", { hidden: true });
  const surface = h("div.surface", {}, canvas, dot);
  const ticks = (feature) =>
    [feature.minimum, (feature.minimum + feature.maximum) / 2, feature.maximum].map((each) =>
      h("span", {}, number(rounded(each, feature.maximum - feature.minimum))),
    );
  const legend = h(
    "ul.legend",
    {},
    card.labels.map((label, i) => {
      const swatch = h("span.swatch", { "aria-hidden": "true" });
      swatch.style.background = css(i);
      return h("li", {}, swatch, words(label));
    }),
  );
  const status = h("p.note", {}, EXPLANATION);
  const element = h(
    "section.card.plane",
    { "aria-label": "Decision boundary" },
    h("h2", {}, "Decision boundary"),
    h(
      "figure",
      {
        role: "img",
        "aria-label":
          `Decision boundary over ${words(x.name)} and ${words(y.name)}, ` +
          "with the current point; the sliders move it",
      },
      h(
        "div.axis.y",
        {},
        h("span.title", {}, words(y.name)),
        h("div.ticks", {}, ticks(y).reverse()),
      ),
      surface,
      h("div.axis.x", {}, h("div.ticks", {}, ticks(x)), h("span.title", {}, words(x.name))),
    ),
    legend,
    status,
  );

  let finger = -1; // the pointer that moves the point; a second one does not
  const move = (event) => {
    const box = surface.getBoundingClientRect();
    const share = (at, from, size) => Math.max(0, Math.min(1, (at - from) / size));
    const across = share(event.clientX, box.left, box.width);
    const up = 1 - share(event.clientY, box.top, box.height);
    moved(
      [x, y].map((each, i) => {
        const range = each.maximum - each.minimum;
        return rounded(each.minimum + (i ? up : across) * range, range);
      }),
    );
  };
  surface.addEventListener("pointerdown", (event) => {
    if (surface.hasPointerCapture(finger)) return;
    finger = event.pointerId;
    surface.setPointerCapture(event.pointerId);
    move(event);
  });
  surface.addEventListener("pointermove", (event) => {
    if (event.pointerId === finger && surface.hasPointerCapture(finger)) move(event);
  });

  function point([across, up]) {
    dot.hidden = [across, up].some((each) => typeof each !== "number");
    const share = (value, { minimum, maximum }) =>
      Math.max(-0.02, Math.min(1.02, (value - minimum) / (maximum - minimum || 1)));
    dot.style.left = `${100 * share(across, x)}%`;
    dot.style.bottom = `${100 * share(up, y)}%`;
  }

  let isStarted = false;
  async function start() {
    if (isStarted) return;
    isStarted = true;
    for (const side of SIDES) {
      try {
        paint(side, await classify(grid(side)));
        status.textContent = EXPLANATION;
        return;
      } catch (error) {
        if (error.status === 413 || error.status === 503) continue;
        isStarted = !(error instanceof NoAnswer);
        status.textContent = error.message;
        return;
      }
    }
    status.textContent = "The service takes too few rows per request to draw this.";
  }

  // Rows from the top left, the middle of each spot.
  function grid(side) {
    const at = (i, { minimum, maximum }) =>
      Number((minimum + ((i + 0.5) / side) * (maximum - minimum)).toPrecision(6));
    return Array.from({ length: side * side }, (_, i) => [
      at(i % side, x),
      at(side - 1 - Math.floor(i / side), y),
    ]);
  }

  function paint(side, probabilities) {
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const image = context.createImageData(side, side);
    const classes = card.labels.length;
    for (let i = 0; i < side * side; i += 1) {
      const mixed = [0, 0, 0];
      for (let j = 0; j < classes; j += 1)
        colour(j).forEach((part, k) => (mixed[k] += part * probabilities[i * classes + j]));
      image.data.set([...mixed, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    element.dataset.rows = side * side;
  }

  return { element, point, start };
}

const colour = (i) => COLOURS[i % COLOURS.length];
export const css = (i) => `rgb(${colour(i).join(" ")})`;
