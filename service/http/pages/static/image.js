// The input of a model of images: a canvas to draw on, a file, or an example of the card.

import { prepare } from "./api.js";
import { h, id } from "./dom.js";
import { words } from "./format.js";
import { nested, pixels, save, toBlob } from "./pixels.js";

const SIDE = 420; // pixels of the canvas, whatever size it is shown in
const PEN = 30;
const LARGEST_SENT = 512; // pixels: a photograph is sent no larger than this

// Returns {element, instances(signal), sent(given), isHeld()}. `memory` keeps strokes, file and the
// name of the example while the panel is built anew, which must not be while isHeld() says that a
// stroke is being drawn; released() is called at its end.
export function image({ card, memory, changed, released, model, version }) {
  const { height, width } = card.image;
  if (!memory.strokes) {
    memory.strokes = [];
    memory.example = card.examples[0]?.name; // a first view with an answer
  }
  const example = () => card.examples.find(({ name }) => name === memory.example);
  const examplePixels = () => nested(example().input, card.image);
  const scale = SIDE / Math.max(height, width);
  const canvas = h("canvas", { width: width * scale, height: height * scale, role: "img" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const hint = h("p.hint", { "aria-hidden": "true" }, "Draw here");
  const fileId = id("file");
  const file = h("input.unseen", { type: "file", id: fileId, accept: "image/*" });
  const undo = h(
    "button",
    { type: "button", onclick: () => edit(() => memory.strokes.pop()) },
    "Undo",
  );
  const clear = h("button", { type: "button", onclick: () => edit(empty) }, "Clear");
  const saving = h("button", { type: "button", onclick: download }, "Save image");
  const surface = h("div.drawing", {}, canvas, hint);
  const examples = card.examples.map(({ name, input }) =>
    h(
      "button.thumb",
      {
        type: "button",
        "aria-label": words(name),
        title: words(name),
        onclick: () => choose(name),
      },
      pixels(nested(input, card.image)),
    ),
  );
  const seen = h("div.seen-image");
  const element = h(
    "section.card.input",
    { "aria-label": "Input" },
    h("h2", {}, "Input"),
    h(
      "div.easel",
      {},
      surface,
      h(
        "div.seen",
        {},
        h("p", {}, "What the model sees"),
        seen,
        h("p.note", {}, `${width} × ${height} pixels`),
      ),
    ),
    h(
      "div.tools",
      {},
      undo,
      clear,
      h("span.upload", {}, file, h("label.button", { for: fileId }, "Choose an image")),
      saving,
    ),
    h(
      "p.note",
      {},
      "Draw above with mouse, finger or pen, drop or choose an image, or take an example:",
    ),
    h("div.thumbs", { role: "group", "aria-label": "Examples" }, examples),
  );

  function empty() {
    memory.strokes = [];
    memory.bitmap = null;
    memory.example = null;
  }
  function edit(how) {
    how();
    paint();
    changed();
  }
  function choose(name) {
    edit(() => {
      empty();
      memory.example = name;
    });
  }
  async function open(blob) {
    try {
      const bitmap = await createImageBitmap(blob);
      edit(() => {
        empty();
        memory.bitmap = bitmap;
        memory.fileName = blob.name ?? "";
      });
    } catch {
      memory.why = "This file is no image that the browser can read.";
      changed();
    }
  }

  function paint() {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (memory.bitmap) drawFitted(memory.bitmap);
    if (example()) {
      context.imageSmoothingEnabled = false;
      context.drawImage(pixels(examplePixels()), 0, 0, canvas.width, canvas.height);
    }
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = "#111";
    context.lineWidth = PEN;
    for (const stroke of memory.strokes) draw(stroke);
    const isEmpty = !memory.strokes.length && !memory.bitmap && !example();
    hint.hidden = !isEmpty;
    undo.disabled = !memory.strokes.length;
    clear.disabled = saving.disabled = isEmpty;
    examples.forEach((button, i) =>
      button.setAttribute("aria-pressed", card.examples[i].name === memory.example),
    );
    const what = isEmpty
      ? "empty"
      : example()
        ? `example ${words(memory.example)}`
        : memory.bitmap
          ? `image ${memory.fileName}`
          : memory.strokes.length === 1
            ? "1 stroke"
            : `${memory.strokes.length} strokes`;
    canvas.setAttribute(
      "aria-label",
      `Drawing: ${what}. Without a pointer, use an example or an image.`,
    );
  }
  function draw(points) {
    context.beginPath();
    context.moveTo(...points[0]);
    if (points.length === 1) context.lineTo(points[0][0] + 0.1, points[0][1]);
    // Through the middles between points: round where the hand was fast.
    for (let i = 1; i < points.length; i += 1) {
      const [a, b] = [points[i - 1], points[i]];
      context.quadraticCurveTo(...a, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    }
    if (points.length > 1) context.lineTo(...points.at(-1));
    context.stroke();
  }
  function drawFitted(bitmap) {
    const fit = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
    const [w, t] = [bitmap.width * fit, bitmap.height * fit];
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (canvas.width - w) / 2, (canvas.height - t) / 2, w, t);
  }

  let stroke = null;
  let finger = -1; // the pointer that draws; a second one does not
  const isHeld = () => canvas.hasPointerCapture(finger); // lost when the canvas leaves the page
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * canvas.width,
      ((event.clientY - box.top) / box.height) * canvas.height,
    ];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || isHeld()) return;
    event.preventDefault();
    finger = event.pointerId;
    canvas.setPointerCapture(finger);
    edit(() => {
      if (example()) empty(); // nobody draws over one
      memory.strokes.push((stroke = [at(event)]));
    });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== finger || !isHeld()) return;
    const events = event.getCoalescedEvents?.() ?? [];
    edit(() => stroke.push(...(events.length ? events : [event]).map(at)));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId !== finger) return;
      finger = -1;
      released();
    });
  }

  file.addEventListener("change", () => {
    if (file.files[0]) open(file.files[0]);
    file.value = "";
  });
  element.addEventListener("dragover", () => surface.classList.add("is-over"));
  element.addEventListener("dragleave", () => surface.classList.remove("is-over"));
  element.addEventListener("drop", (event) => {
    surface.classList.remove("is-over");
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });

  // What is sent: the canvas, or a file as it is, without the canvas's white around it. An example
  // is not sent as an image, only saved: its very pixels.
  function source() {
    if (example()) return pixels(examplePixels());
    if (!memory.bitmap || memory.strokes.length) return canvas;
    const { width: w, height: t } = memory.bitmap;
    const fit = Math.min(1, LARGEST_SENT / Math.max(w, t));
    const sized = h("canvas", {
      width: Math.max(1, Math.round(w * fit)),
      height: Math.max(1, Math.round(t * fit)),
    });
    const into = sized.getContext("2d");
    into.imageSmoothingQuality = "high";
    into.drawImage(memory.bitmap, 0, 0, sized.width, sized.height);
    return sized;
  }
  async function download() {
    save(await toBlob(source()), "image.png");
  }

  paint();
  return {
    element,
    isHeld,
    async instances(signal) {
      const why = memory.why;
      memory.why = null;
      if (why) return { why };
      if (example()) return { ...asJson([examplePixels()]), isExact: true };
      if (!memory.strokes.length && !memory.bitmap) {
        return { why: "Draw something, or choose an example." };
      }
      const { data, ms } = await prepare(model, version, await toBlob(source()), signal);
      return { ...asJson(data.instances), prepareMs: ms };
    },
    sent({ pixels: rows = null }) {
      seen.replaceChildren(pixels(rows, height, width));
    },
  };
}

// Instances as JSON: nested, and their numbers as one flat list; and the pixels of the first.
export function asJson(instances) {
  return {
    instances: JSON.stringify(instances),
    flat: JSON.stringify(instances.flat(Infinity)),
    pixels: instances[0],
  };
}
