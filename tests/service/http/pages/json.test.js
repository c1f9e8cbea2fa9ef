import assert from "node:assert/strict";
import { test } from "node:test";

import { first, pretty } from "#pages/json.js";

const NUMBERS = [
  ...["9007199254740993", "-9223372036854775808", "18446744073709551615"],
  ...["-0", "-0.0", "1.0", "1e400", "1E+2", "1.5e-7", "0.10000000000000000555"],
];
const STRINGS = ['"[1, {2}: 3]"', '"a \\" b"', '"\\\\"', '"\\u2028"', '""', '" "', '"true"', '"é"'];

// Values of all kinds, the same in each run.
function random(seed) {
  let state = seed;
  return (below) => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function anyValue(below, depth = 0) {
  const some = (make) => Array.from({ length: below(5) }, make);
  const kind = below(depth < 4 ? 6 : 4);
  if (kind === 0) return [true, false, null][below(3)];
  if (kind === 1) return below(2000) - 1000;
  if (kind === 2) return JSON.parse(STRINGS[below(STRINGS.length)]);
  if (kind === 3) return some(() => below(100) / 8);
  if (kind === 4) return some(() => anyValue(below, depth + 1));
  return Object.fromEntries(some((_, i) => [`"key, ${i}`, anyValue(below, depth + 1)]));
}

test("numbers stay as they are written", () => {
  for (const number of NUMBERS) {
    assert.equal(pretty(`[${number},{"a":${number}}]`), `[${number}, {"a": ${number}}]`);
    assert.equal(pretty(number), number);
  }
});

test("strings and what is in them stay as they are", () => {
  for (const string of STRINGS) {
    assert.equal(pretty(`{${string}:[${string}]}`), `{${string}: [${string}]}`);
  }
});

test("a key that comes twice stays twice", () => {
  assert.equal(pretty('{"a":1,"a":2}'), '{"a": 1, "a": 2}');
});

test("empty lists, objects and texts stay empty", () => {
  assert.equal(pretty("[ ]"), "[]");
  assert.equal(pretty("{ }"), "{}");
  assert.equal(pretty('[[],{"a":{}}]', { width: 6 }), '[\n  [],\n  {\n    "a": {}\n  }\n]');
});

test("JSON.parse reads the same from any value, however narrow the lines are", () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const value = anyValue(random(seed));
    for (const width of [1, 20, 96]) {
      assert.deepEqual(JSON.parse(pretty(JSON.stringify(value), { width })), value);
    }
  }
});

test("what fits stays in a line, at any indentation", () => {
  const line = '{"a": [1, 2], "b": {"c": "d"}}';
  assert.equal(pretty(line, { width: line.length }), line);
  const broken = '{\n  "a": [1, 2],\n  "b": {"c": "d"}\n}';
  assert.equal(pretty(line, { width: line.length - 1 }), broken);
});

test("a long list of numbers fills its lines, each as far as it goes", () => {
  const numbers = Array.from({ length: 200 }, (_, i) => String(i * i));
  const lines = pretty(`[${numbers}]`, { width: 30 }).split("\n");
  assert.deepEqual([lines.shift(), lines.pop()], ["[", "]"]);
  lines.forEach((line, i) => {
    assert.ok(line.replace(/,$/, "").length <= 30, line);
    const next = lines[i + 1]?.trim().split(",")[0];
    if (next) assert.ok(`${line} ${next}`.length > 30, line);
  });
});

test("other words stand for true, false and null, but not in strings", () => {
  const words = { true: "True", false: "False", null: "None" };
  const text = pretty('{"true":[true,false,null,"null"]}', { words });
  assert.equal(text, '{"true": [True, False, None, "null"]}');
});

test("the first item of a list is found, whatever it is", () => {
  for (const item of [...NUMBERS, ...STRINGS, "[1,[2,3]]", '{"a":[{"b":1}],"c":"]"}', "null"]) {
    for (const others of ["", ",1", ",[2]"]) {
      assert.equal(first(`{"version":1,"predictions":[${item}${others}]}`, "predictions"), item);
    }
  }
});

test("the first item of a list is found where a string has the list's name", () => {
  assert.equal(first('{"model":"predictions","predictions":[[1],[2]]}', "predictions"), "[1]");
});
