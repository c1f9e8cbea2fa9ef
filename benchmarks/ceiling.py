"""The ceiling: plain uvicorn that reads each body and sends a reply it was given before."""

import json
import os
from pathlib import Path
from typing import Any

REPLIES = json.loads(Path(os.environ["BENCH_REPLIES"]).read_text())  # by query string


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the reply of the query string."""
    while (await receive())["more_body"]:
        pass
    reply = REPLIES[scope["query_string"].decode()].encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})
