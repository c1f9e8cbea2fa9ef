import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { afterEach, test } from "node:test";

import "./fake_document.js";
import { key } from "#pages/api.js";
import { curl, python, v2 } from "#pages/snippets.js";

const ROW = '{"o\'clock":9007199254740993,"is \\"new\\"":true,"$HOME":null,"`id`":-0.0}';
const GIVEN = { instances: `[${ROW}]`, flat: "[9007199254740993,1,0,-0.0]" };
const REQUEST = { model: "iris", version: null, given: GIVEN, isImage: false, input: null };
const IMAGE = { ...REQUEST, isImage: true };

afterEach(() => key.set(""));

// What a shell hands to curl: its words, and what it reads where it is told to.
function run(command) {
  const curl = `curl() { printf '%s\\0' "$@"; if [ "\${!#}" = @- ]; then cat; fi; }`;
  const printed = execFileSync("bash", {
    input: `${curl}\n${command}\n`,
    encoding: "utf8",
    env: { ...process.env, TORCHLIT_KEY: "a key" },
  }).split("\0");
  return { stdin: printed.pop(), words: printed };
}

// What a program in Python would give to httpx.post; numbers as Python writes them.
function runPython(program) {
  const script = `
import json, pathlib, sys, types
pathlib.Path.read_bytes = lambda path: path.name.encode()
class Reply:
    def raise_for_status(self): pass
    def json(self): return {"predictions": ["answer"]}
def post(*args, **named):
    print(json.dumps([args, {name: str(value) for name, value in named.items()}]))
    return Reply()
sys.modules["httpx"] = types.SimpleNamespace(post=post)
exec(sys.stdin.read())`;
  const printed = execFileSync("python3", ["-c", script], {
    input: program,
    encoding: "utf8",
    env: { ...process.env, TORCHLIT_KEY: "a key" },
  }).split("\n");
  assert.equal(printed[1], "answer");
  return JSON.parse(printed[0]);
}

test("a shell hands curl the very numbers and names, whatever they hold", () => {
  const { words } = run(curl(REQUEST));
  assert.equal(words[0], "http://service:8000/models/predict/iris");
  assert.deepEqual(words.slice(1, 4), ["-H", "Content-Type: application/json", "-d"]);
  assert.ok(words[4].includes("9007199254740993") && words[4].includes("-0.0"));
  assert.deepEqual(JSON.parse(words[4]), { instances: [JSON.parse(ROW)] });
});

test("Python is given the same values, as Python writes them", () => {
  const [[url], { json }] = runPython(python(REQUEST));
  assert.equal(url, "http://service:8000/models/predict/iris");
  const row = `"o'clock": 9007199254740993, 'is "new"': True, '$HOME': None, '\`id\`': -0.0`;
  assert.equal(json, `{'instances': [{${row}}]}`);
});

test("a name and a version are in the URL, or in the body", () => {
  const request = { ...REQUEST, model: "a b/c'd", version: 3 };
  const url = "http://service:8000/models/predict/a%20b%2Fc'd";
  const { words } = run(curl(request));
  assert.equal(words[0], url);
  assert.equal(JSON.parse(words[4]).version, 3);
  assert.equal(runPython(python(request))[0][0], url);
  const [infer] = run(v2(request)).words;
  assert.equal(infer, "http://service:8000/models/v2/models/a%20b%2Fc'd/versions/3/infer");
});

test("an image is a file, and is prepared unless it is exact", () => {
  const file = ["-H", "Content-Type: image/png", "--data-binary", "@image.png"];
  const url = "http://service:8000/models/predict/iris";
  assert.deepEqual(run(curl(IMAGE)).words, [url, ...file]);
  const exact = { ...IMAGE, version: 2, given: { ...GIVEN, isExact: true } };
  assert.deepEqual(run(curl(exact)).words, [`${url}?version=2&prepare=false`, ...file]);
  const [, named] = runPython(python(exact));
  assert.deepEqual(named, {
    params: "{'version': 2, 'prepare': 'false'}",
    content: "b'image.png'",
    headers: "{'Content-Type': 'image/png'}",
  });
});

test("a key is named and not shown", () => {
  key.set("a-secret");
  for (const write of [curl, python, v2]) {
    for (const request of [REQUEST, IMAGE]) assert.ok(!write(request).includes("a-secret"));
  }
  const { words } = run(curl(REQUEST));
  assert.deepEqual(words.slice(1, 3), ["-H", "Authorization: Bearer a key"]);
  const [, { headers }] = runPython(python(IMAGE));
  assert.equal(headers, "{'Content-Type': 'image/png', 'Authorization': 'Bearer a key'}");
});

test("a body that is too long for an argument is read from standard input", () => {
  const numbers = JSON.stringify(Array.from({ length: 30_000 }, (_, i) => i));
  const given = { instances: `[${numbers}]`, flat: numbers };
  for (const write of [curl, v2]) {
    const { words, stdin } = run(write({ ...REQUEST, given }));
    assert.deepEqual(words.slice(-2), ["-d", "@-"]);
    assert.ok(stdin.replaceAll(/\s/g, "").includes(numbers));
  }
});

test("V2 is given a tensor, whose open sizes are what the numbers fill", () => {
  const sizes = [
    [
      [-1, 4],
      [1, 4],
    ],
    [
      [-1, -1],
      [1, 4],
    ],
    [
      [-1, -1, 2],
      [1, 2, 2],
    ],
    [
      [-1, 2, -1, -1],
      [1, 2, 2, 1],
    ],
    [[-1], [1]],
  ];
  for (const [shape, filled] of sizes) {
    const input = { name: 'the "x"', datatype: "INT64", shape };
    const { words } = run(v2({ ...REQUEST, input }));
    const { inputs } = JSON.parse(words.at(-1));
    assert.deepEqual(inputs, [
      { name: 'the "x"', shape: filled, datatype: "INT64", data: JSON.parse(GIVEN.flat) },
    ]);
    assert.ok(words.at(-1).includes("9007199254740993"));
  }
});

test("V2 says where JSON has no form for a type", () => {
  for (const datatype of ["FP16", "BF16"]) {
    const text = v2({ ...REQUEST, input: { name: "x", datatype, shape: [-1, 4] } });
    assert.match(text, new RegExp(`^# V2 takes ${datatype} as binary data only`));
  }
});

test("V2 has a tensor for each column", () => {
  const inputs = [
    { name: "age", datatype: "FP32", shape: [-1, 1] },
    { name: "city", datatype: "BYTES", shape: [-1] },
  ];
  const given = { instances: "[]", flat: '[1.5,"rome"]', values: ["1.5", '"rome"'] };
  const { words } = run(v2({ ...REQUEST, given, input: inputs[0], inputs }));
  assert.deepEqual(JSON.parse(words.at(-1)).inputs, [
    { name: "age", shape: [1, 1], datatype: "FP32", data: [1.5] },
    { name: "city", shape: [1], datatype: "BYTES", data: ["rome"] },
  ]);
});

test("V2 has one tensor for named columns that stand in one input", () => {
  const input = { name: "x", datatype: "FP32", shape: [-1, 2] };
  const given = { instances: '[{"a":1.5,"b":null}]', flat: "[1.5,null]", values: ["1.5", "null"] };
  const { words } = run(v2({ ...REQUEST, given, input, inputs: [input] }));
  assert.deepEqual(JSON.parse(words.at(-1)).inputs, [
    { name: "x", shape: [1, 2], datatype: "FP32", data: [1.5, null] },
  ]);
});
