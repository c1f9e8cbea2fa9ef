"""The ceiling: plain uvicorn that reads each body and sends a reply it was given before."""

import json
import os
from pathlib import Path
from typing import Any

REPLIES = {  # by query string
    query.encode(): reply.encode("latin-1")
    for query, reply in json.loads(Path(os.environ["BENCH_REPLIES"]).read_text()).items()
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the reply of the query string."""
    while (await receive())["more_body"]:
        pass
    reply = REPLIES[scope["query_string"]]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})
