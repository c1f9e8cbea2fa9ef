"""The id of a request, and the trace that it belongs to."""

import contextvars
import re

import httpx
import pytest

from service.logs import request_id
from tests.support.toys import body

CONTENT = body("toy", [[1, 2, 3, 4]])
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.anyio
async def test_every_reply_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    replies = [
        await client.post("/predict", content=CONTENT),
        await client.post("/predict", content=b"not JSON"),
        await client.get("/models"),
        await client.get("/no/such/path"),
        await client.put("/predict"),
    ]
    assert [reply.status_code for reply in replies] == [200, 400, 200, 404, 405]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == 5
    assert all(re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", each) for each in ids)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("a", True),
        ("6f1c-42/x_Y.z:1+2=", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ("a\tb", False),
        ("\u00e9", False),
        ('"quoted"', False),
    ],
)
async def test_the_callers_id_is_kept_if_it_is_sane(
    client: httpx.AsyncClient, given: str, is_kept: bool
) -> None:
    headers = {"x-request-id": given.encode("latin-1")}
    for reply in (
        await client.post("/predict", content=CONTENT, headers=headers),
        await client.get("/health/live", headers=headers),
    ):
        assert (reply.headers["x-request-id"] == given) == is_kept


def logged(traceparent: str) -> dict[str, str]:
    headers = {b"traceparent": traceparent.encode()}
    return contextvars.Context().run(
        lambda: (request_id.begin(b"r1", headers), request_id.logged_fields())[1]
    )


def test_the_trace_of_a_traceparent_is_logged() -> None:
    expected = {"request_id": "r1", "trace_id": TRACE, "span_id": SPAN}
    assert logged(f"00-{TRACE}-{SPAN}-01") == expected
    assert logged(f"cc-{TRACE}-{SPAN}-01-what-will-be") == expected  # a later version


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_a_traceparent_that_is_none_is_ignored(traceparent: str) -> None:
    assert logged(traceparent) == {"request_id": "r1"}
