#!/usr/bin/env bash
# grpcio 1.85.3 and h2 4.4.1 (Linux, Python 3.11)
#
# grpcio's client opens two windows of HTTP/2 again for every unary call, that of the connection and that of
# the stream, though the answer has 75 bytes and the windows have 64 KiB and more. The stream is over by then.
#
# Expected: a window is opened again when a good part of it is used: a few WINDOW_UPDATE frames for 500 small
# calls, and none for a stream that has ended.
# Seen: 500 calls, 500 of the streams and 501 of the connection: half of all frames that the client sends.
#
# Who is hurt: a server that counts WINDOW_UPDATE as a flood (CVE-2019-9511, 9517) sends a busy client away
# as soon as it answers it fast enough; and each call costs the server two frames more.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.3 h2==4.4.1
cd "$work"

timeout 60 "$work/venv/bin/python" - <<'PY'
import socket
import threading
from collections import Counter

import grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded, WindowUpdated

CALLS = 500
ANSWER = b"a" * 70
seen = Counter()


def serve(listener: socket.socket) -> None:
    """Answer one client."""
    client, _ = listener.accept()
    h2 = H2Connection(H2Configuration(client_side=False))
    h2.initiate_connection()
    client.sendall(h2.data_to_send())
    while data := client.recv(65_536):
        for event in h2.receive_data(data):
            if isinstance(event, WindowUpdated):
                seen["stream" if event.stream_id else "connection"] += 1
            elif isinstance(event, StreamEnded):
                id = event.stream_id
                h2.send_headers(id, [(":status", "200"), ("content-type", "application/grpc")])
                h2.send_data(id, b"\0" + len(ANSWER).to_bytes(4) + ANSWER)
                h2.send_headers(id, [("grpc-status", "0")], end_stream=True)
        client.sendall(h2.data_to_send())


with socket.create_server(("127.0.0.1", 0)) as listener:
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
        ask = channel.unary_unary("/some.Service/Method")
        for _ in range(CALLS):
            assert ask(b"question", timeout=10) == ANSWER
print(f"{CALLS} calls, WINDOW_UPDATE frames: {dict(seen)}")
assert seen["stream"] >= CALLS - 1, seen
assert seen["connection"] >= CALLS - 1, seen
PY
