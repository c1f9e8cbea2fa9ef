"""hpack reads the blocks of answers as it reads its own."""

import pytest
from hpack import Decoder

from service.grpc.blocks import BlockEncoder, begin_of_answer, with_id

COMMON = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,gzip")]


@pytest.mark.parametrize("size", [1, 17, 126, 127, 128])  # an id has 128 characters at most
def test_a_block_is_its_headers(size: int) -> None:
    id = b"i" * size
    headers = [(b":status", b"200"), *COMMON, (b"x-request-id", id)]
    encoder, decoder = BlockEncoder(), Decoder()
    for _ in range(2):
        assert (
            decoder.decode(encoder.encode(with_id(begin_of_answer(*COMMON), id)), raw=True)
            == headers
        )
        other = [(b"a", b"b"), *headers]  # the tables are right between them
        assert decoder.decode(encoder.encode(other), raw=True) == other


def test_a_table_that_changes_its_size_is_told_of_first() -> None:
    encoder, decoder = BlockEncoder(), Decoder()
    encoder.header_table_size = 0
    decoder.max_allowed_table_size = 0
    for _ in range(2):
        block = encoder.encode(with_id(begin_of_answer(), b"1"))
        assert decoder.decode(block, raw=True) == [(b":status", b"200"), (b"x-request-id", b"1")]
