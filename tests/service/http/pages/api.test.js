import assert from "node:assert/strict";
import { test } from "node:test";

import "./fake_document.js";
import { infer, base, Refused, request, timing } from "#pages/api.js";

test("requests go to the folder of the page, behind a proxy too", () => {
  assert.equal(base, "http://service:8000/models/");
});

test("a version that JSON.parse would round stays as it was sent", async (t) => {
  const text =
    '{"models":[{"model":"a \\"version\\":1732700000123456789","default_version":1732700000123456789,' +
    '"versions":[{"version":1732700000},{"version":1732700000123456789,"state":"ready"}]}]}';
  t.mock.method(globalThis, "fetch", async () => new Response(text));
  const { data } = await request("models");
  const [{ model, default_version, versions }] = data.models;
  assert.equal(model, 'a "version":1732700000123456789');
  assert.equal(default_version, "1732700000123456789");
  assert.deepEqual(
    versions.map(({ version }) => version),
    [1732700000, "1732700000123456789"],
  );
});

test("times are those of Server-Timing, whatever else it says", () => {
  const of = (text) => timing(new Headers(text === null ? {} : { "server-timing": text }));
  assert.deepEqual(of('queue;dur=0.5, compute;desc="a b";dur=12'), { queue: 0.5, compute: 12 });
  assert.deepEqual(of(" miss , cache;desc=hit, queue ; dur=3.25"), { queue: 3.25 });
  assert.deepEqual(of(null), {});
});

test("a refusal says what the service said, or else its status", () => {
  const reply = (headers = {}) => new Response(null, { status: 503, statusText: "Busy", headers });
  const full = new Refused(reply({ "retry-after": "2" }), '{"error":"The queue is full."}');
  assert.equal(full.message, "The queue is full.");
  assert.deepEqual([full.status, full.retryAfterS], [503, 2]);
  for (const text of ["<p>Busy</p>", "{}", ""]) {
    const refused = new Refused(reply(), text);
    assert.equal(refused.message, "503 Busy");
    assert.equal(refused.retryAfterS, null);
  }
});

// What infer() makes of outputs that came in binary, and the tensors that it sent.
async function inferred(inputs, outputs, t) {
  const named = outputs.map(({ datatype, data }) => ({
    datatype,
    shape: [1, data.length],
    parameters: { binary_data_size: data.byteLength },
  }));
  const head = new TextEncoder().encode(JSON.stringify({ outputs: named }));
  const body = new Blob([head, ...outputs.map(({ data }) => data)]);
  const headers = { "inference-header-content-length": String(head.length) };
  let sent = null;
  t.mock.method(globalThis, "fetch", async (url, { body: text }) => {
    sent = JSON.parse(text).inputs;
    return new Response(body, { headers });
  });
  return { answer: infer("m", 1, inputs, [[0.5, 1.6]], 2), sent: () => sent };
}

test("the numbers of the classes are found among what else a model answers", async (t) => {
  const input = { name: "x", datatype: "FP32", shape: [-1, 2] };
  const label = { datatype: "INT64", data: new BigInt64Array([1n]) };
  const shares = { datatype: "FP32", data: new Float32Array([0.25, 0.75]) };
  const leaf = { datatype: "FP32", data: new Float32Array([7]) };
  const { answer, sent } = await inferred([input], [label, leaf, shares], t);
  assert.deepEqual([...(await answer)], [0.25, 0.75]);
  assert.deepEqual(sent(), [{ name: "x", datatype: "FP32", shape: [1, 2], data: [0.5, 1.6] }]);
  const alone = await inferred([input], [label], t);
  await assert.rejects(alone.answer, /a form that this page does not read/);
});

test("each of several inputs is sent its column, whole numbers where it takes them", async (t) => {
  const inputs = [
    { name: "age", datatype: "FP32", shape: [-1, 1] },
    { name: "rooms", datatype: "INT64", shape: [-1] },
  ];
  const shares = { datatype: "FP64", data: new Float64Array([1, 0]) };
  const { answer, sent } = await inferred(inputs, [shares], t);
  assert.deepEqual([...(await answer)], [1, 0]);
  assert.deepEqual(sent(), [
    { name: "age", datatype: "FP32", shape: [1, 1], data: [0.5] },
    { name: "rooms", datatype: "INT64", shape: [1], data: [2] },
  ]);
});
