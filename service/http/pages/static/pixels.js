// Images as a model takes them: rows of pixels, each a number or a list of its colours, 0 to 255.

import { h } from "./dom.js";

// Flat numbers as rows of pixels: (height x width x channels) -> nested.
export function nested(flat, { height, width, channels }) {
  return Array.from({ length: height }, (_, i) =>
    Array.from({ length: width }, (_, j) => {
      const at = (i * width + j) * channels;
      return channels === 1 ? flat[at] : flat.slice(at, at + channels);
    }),
  );
}

// A canvas of exactly these pixels; black where there are none.
export function pixels(rows, height = rows.length, width = rows[0].length) {
  const canvas = h("canvas.pixels", { width, height, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i += 1) {
    const given = rows?.[Math.floor(i / width)][i % width] ?? 0;
    const [red, green, blue] = Array.isArray(given) ? given : [given, given, given];
    image.data.set([red, green ?? red, blue ?? red, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export const toBlob = (canvas, type = "image/png") =>
  new Promise((resolve) => canvas.toBlob(resolve, type, 1));

// Save a blob as a file.
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
