import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "#pages/format.js";

// Each function with what it makes of some values.
const TABLE = {
  number: [
    [0, "0"],
    [-0.5, "-0.5"],
    [1234.56, "1235"],
    [0.000123456, "0.0001235"],
    [0.00009, "9.00e-5"],
    [999999, "1000000"],
    [-1234567, "-1.23e+6"],
  ],
  grouped: [
    [9999, "9999"],
    [12345, "12,350"],
    [-7654321, "-7,654,000"],
  ],
  percent: [
    [0, "0.0 %"],
    [0.9576, "95.8 %"],
    [1, "100.0 %"],
  ],
  duration: [
    [null, "–"],
    [NaN, "–"],
    [0.1234, "0.12 ms"],
    [1.26, "1.3 ms"],
    [12.6, "13 ms"],
    [1500, "1.50 s"],
  ],
  bytes: [
    [0, "0 bytes"],
    [999, "999 bytes"],
    [1250, "1.3 kB"],
    [2_500_000, "2.5 MB"],
  ],
  words: [["mean_sepal_length", "mean sepal length"]],
  factor: [
    ["cm", "cm"],
    ["1000 USD", "× 1000 USD"],
  ],
};

for (const [name, rows] of Object.entries(TABLE)) {
  test(`${name} is as people read it`, () => {
    for (const [value, text] of rows) assert.equal(format[name](value), text);
  });
}

test("a unit that begins with a digit is a factor", () => {
  assert.equal(format.withUnit("20.77", "1000 USD"), "20.77 × 1000 USD");
  assert.equal(format.withUnit("5.1", "cm"), "5.1 cm");
});

test("a rounded value is within a five-hundredth of its range, and short", () => {
  for (const range of [1e-6, 0.05, 1, 7.3, 400, 1e9]) {
    for (let i = 0; i <= 50; i += 1) {
      const value = (range * i) / 50 / Math.PI;
      const rounded = format.rounded(value, range);
      assert.ok(Math.abs(rounded - value) <= range / 1000 + 0.5 * (range > 1000), `${value}`);
      if (range >= 1) assert.ok(String(rounded).length <= 10, String(rounded));
    }
  }
});

test("a value with no range stays as it is", () => {
  assert.equal(format.rounded(Math.PI, 0), Math.PI);
  assert.equal(format.rounded(Math.PI, NaN), Math.PI);
});
