// Calls /predict with Node's http and fetch, each way in turn: node calls.mjs URL PICTURE < BODY
// Prints {way: {status, reply}}, `reused` where the connection was one that was kept, and Node's version.
import { readFile } from "node:fs/promises";
import http from "node:http";
import { buffer, text } from "node:stream/consumers";

const [url, picture] = process.argv.slice(2);
const body = await buffer(process.stdin);
const half = body.length >> 1;
const pieces = [body.subarray(0, half), body.subarray(half)];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const websocket = { Connection: "Upgrade", Upgrade: "websocket" };
const h2c = { Connection: "Upgrade, HTTP2-Settings", Upgrade: "h2c", "HTTP2-Settings": "AAMAAABk" };

// A request of Node's http: in chunks unless its length is said, announced if it expects to be.
function post(headers, chunks) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${url}/predict`, { method: "POST", agent, headers });
    const send = () => {
      for (const each of chunks) request.write(each);
      request.end();
    };
    request.on("error", reject);
    request.on("upgrade", () => reject(new Error("the connection was handed over")));
    request.on("response", async (response) =>
      resolve({
        status: response.statusCode,
        reply: await text(response),
        reused: request.reusedSocket,
      }),
    );
    if (headers.Expect) request.on("continue", send).flushHeaders();
    else send();
  });
}

async function fetched(path, options) {
  const response = await fetch(url + path, { method: "POST", ...options });
  return { status: response.status, reply: await response.text() };
}

const length = { "Content-Length": body.length };
const form = new FormData();
form.append("file", new Blob([await readFile(picture)], { type: "image/png" }), "ramp.png");

const said = {
  length: await post(length, [body]),
  chunks: await post({}, pieces),
  websocket: await post({ ...websocket, ...length }, [body]),
  "websocket, in chunks": await post(websocket, pieces),
  h2c: await post({ ...h2c, ...length }, pieces),
  announced: await post({ Expect: "100-continue", ...length }, [body]),
  after: await post(length, [body]),
  fetch: await fetched("/predict", { body }),
  "fetch, in chunks": await fetched("/predict", { body: ReadableStream.from(pieces), duplex: "half" }),
  "fetch, a form": await fetched("/predict/mean", { body: form }),
};
agent.destroy();
process.stdout.write(JSON.stringify({ version: process.version, said }));
