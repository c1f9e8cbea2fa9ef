import assert from "node:assert/strict";
import { test } from "node:test";

import "./fake_document.js";
import { nested, pixels } from "#pages/pixels.js";

const flat = (count) => Array.from({ length: count }, (_, i) => i);
const rgba = (...colours) => colours.flatMap((colour) => [...colour, 255]);

test("flat numbers become rows of pixels, of one number or of one for each colour", () => {
  const grey = nested(flat(6), { height: 2, width: 3, channels: 1 });
  assert.deepEqual(grey, [
    [0, 1, 2],
    [3, 4, 5],
  ]);
  const rgb = nested(flat(12), { height: 2, width: 2, channels: 3 });
  assert.deepEqual(rgb[1], [
    [6, 7, 8],
    [9, 10, 11],
  ]);
  assert.deepEqual(rgb.flat(Infinity), flat(12));
});

test("a canvas has the pixels that it is given, grey or in colours", () => {
  const grey = pixels([
    [0, 7],
    [8, 255],
    [1, 2],
  ]);
  assert.deepEqual([grey.attributes.height, grey.attributes.width], ["3", "2"]);
  const greys = [0, 7, 8, 255, 1, 2].map((each) => [each, each, each]);
  assert.deepEqual([...grey.image.data], rgba(...greys));
  const colours = pixels([
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
  ]);
  assert.deepEqual([...colours.image.data], rgba([1, 2, 3], [4, 5, 6]));
});

test("a canvas is black where there are no pixels", () => {
  assert.deepEqual([...pixels(null, 1, 2).image.data], rgba([0, 0, 0], [0, 0, 0]));
});
