"""Spans of calls of gRPC."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from service.grpc.messages import HEALTH, SERVICE
from service.settings import Settings
from tests.support.grpc_client import INFER, Client, framed, infer_request
from tests.support.sockets import listening
from tests.support.spans import SAMPLED, SPAN, TRACE, Kept, queued_rows, until
from tests.support.toys import save_toy, toy_card

pytestmark = pytest.mark.anyio

ROW = np.array([[1, 2, 3, 4]], np.float32)
ASKED = infer_request("toy", ROW).SerializeToString()


async def test_calls_are_traced_by_the_conventions_of_rpc(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    kept = Kept()
    settings = Settings(models_dir=tmp_path, watch=False)
    async with listening(settings, kept.tracing) as service, Client(service.port) as client:
        assert (await client.call(f"/{HEALTH}/Check")).code == 0
        assert not kept.all()
        assert (await client.call(INFER, ASKED, traceparent=SAMPLED, x_request_id="mine")).code == 0
        assert (await client.call(INFER, infer_request("tyo", ROW).SerializeToString())).code == 5
        assert (await client.call(f"/{SERVICE}/ServerMetadata")).code == 0
        assert (await client.call(f"/{SERVICE}/Nothing")).code == 12
        answered, missing, read, unknown = kept.servers()
        assert answered.name == INFER[1:]
        assert dict(answered.attributes or {}) == {
            "rpc.system.name": "grpc",
            "rpc.method": INFER[1:],
            "rpc.response.status_code": "OK",
            "torchlit.model.name": "toy",
            "torchlit.model.version": "1",
            "torchlit.rows": 1,
            "torchlit.outcome": "ok",
            "torchlit.request.id": "mine",
        }
        assert answered.parent is not None
        assert f"{answered.parent.trace_id:032x}" == f"{answered.context.trace_id:032x}" == TRACE
        assert f"{answered.parent.span_id:016x}" == SPAN
        assert [*kept.below(answered)] == ["receive", "compute", "encode"]
        assert (missing.attributes or {})["rpc.response.status_code"] == "NOT_FOUND"
        assert (missing.attributes or {})["torchlit.outcome"] == "not_found"
        assert missing.status.status_code.name == "UNSET"
        assert read.name == f"{SERVICE}/ServerMetadata"
        assert unknown.name == (unknown.attributes or {})["rpc.method"] == "_OTHER"
        assert (unknown.attributes or {})["rpc.method_original"] == f"{SERVICE}/Nothing"
        assert (unknown.attributes or {})["error.type"] == "UNIMPLEMENTED"
        assert unknown.status.status_code.name == "ERROR"


async def test_what_a_caller_s_state_says_in_several_headers_is_kept(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    kept = Kept()
    settings = Settings(models_dir=tmp_path, watch=False)
    async with listening(settings, kept.tracing) as service, Client(service.port) as client:
        others = ("tracestate", "a=1"), ("x", "x"), ("tracestate", "b=2,c=3")
        stream = client.begin(INFER, *others, traceparent=SAMPLED)
        client.send(stream, framed(ASKED))
        assert (await client.answer(stream)).code == 0
        (server,) = kept.servers()
        assert server.context.trace_state.to_header() == "a=1,b=2,c=3"


async def test_calls_share_a_batch_wait_and_leave(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    kept = Kept()
    settings = Settings(
        models_dir=tmp_path, watch=False, max_batch_size=3, max_queue_delay_ms=60_000
    )
    async with listening(settings, kept.tracing) as service, Client(service.port) as client:
        await asyncio.gather(*(client.call(INFER, ASKED) for _ in range(3)))
        (batch,) = [each for each in kept.all() if each.name == "batch"]
        linked = {each.context.span_id for each in batch.links}
        assert linked == {each.context.span_id for each in kept.servers()}
        for server in kept.servers():
            (link,) = kept.below(server)["compute"].links
            assert link.context == batch.context
        kept.clear()

        late = await client.call(INFER, ASKED, grpc_timeout="100m")
        assert late.code == 4
        (expired,) = kept.servers()
        assert (expired.attributes or {})["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
        assert expired.status.status_code.name == "ERROR"
        kept.clear()

        left = client.start(INFER, ASKED)
        await until(lambda: queued_rows(service) == 2)  # with the one that came too late
        client.h2.reset_stream(left)
        client.flush()
        await until(kept.servers)
        (cancelled,) = kept.servers()
        said = cancelled.attributes or {}
        assert said["rpc.response.status_code"] == "CANCELLED"
        assert (said["torchlit.outcome"], said["torchlit.model.name"]) == ("cancelled", "toy")
        assert cancelled.status.status_code.name == "UNSET"
    assert [*kept.below(cancelled)] == ["receive", "queue"]
    assert [*kept.below(expired)] == ["queue"]  # the others were cleared
