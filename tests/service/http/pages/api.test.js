import assert from "node:assert/strict";
import { test } from "node:test";

import "./fake_document.js";
import { base, Refused, timing } from "#pages/api.js";

test("requests go to the folder of the page, behind a proxy too", () => {
  assert.equal(base, "http://service:8000/models/");
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
