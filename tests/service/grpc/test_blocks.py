"""hpack reads the blocks of answers as it reads its own, and those of requests mean the same."""

import pytest
from hpack import (
    Decoder,
    Encoder,
    HeaderTuple,
    HPACKDecodingError,
    NeverIndexedHeaderTuple,
    OversizedHeaderListError,
)
from hypothesis import given
from hypothesis import strategies as st

from service.grpc.blocks import (
    LONGEST_KNOWN,
    MOST_FIELDS,
    MOST_KNOWN,
    BlockDecoder,
    BlockEncoder,
    begin_of_answer,
    with_id,
    written,
)

COMMON = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,gzip")]


@pytest.mark.parametrize("size", [1, 17, 126, 127, 128])  # an id has 128 characters at most
def test_a_block_is_its_headers(size: int) -> None:
    id = b"i" * size
    headers = [(b":status", b"200"), *COMMON, (b"x-request-id", id)]
    encoder, decoder = BlockEncoder(), Decoder()
    for _ in range(2):
        assert (
            decoder.decode(encoder.encode(written(with_id(begin_of_answer(*COMMON), id))), raw=True)
            == headers
        )
        other = [(b"a", b"b"), *headers]  # the tables are right between them
        assert decoder.decode(encoder.encode(other), raw=True) == other


def test_a_table_that_changes_its_size_is_told_of_first() -> None:
    encoder, decoder = BlockEncoder(), Decoder()
    encoder.header_table_size = 0
    decoder.max_allowed_table_size = 0
    for _ in range(2):
        block = encoder.encode(written(with_id(begin_of_answer(), b"1")))
        assert decoder.decode(block, raw=True) == [(b":status", b"200"), (b"x-request-id", b"1")]


FIELDS = [
    (b"user", b"/a"),
    (b"te", b"trailers"),
    (b"x-id", b"1"),
    (b"x-id", b"2"),
    (b"k", b"v" * 40),
]


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4),
            st.booleans(),  # whether tables keep them
            st.one_of(st.none(), st.integers(0, 200)),  # a new size of the table
        ),
        max_size=30,
    )
)
def test_a_block_that_comes_again_means_what_it_means_to_hpack(
    blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    encoder, ours, plain = Encoder(), BlockDecoder(65_536), Decoder()
    for headers, is_kept, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        kind = HeaderTuple if is_kept else NeverIndexedHeaderTuple
        block = encoder.encode([kind(*each) for each in headers])
        for _ in range(1 + (not is_kept and size is None)):  # twice where no table changes
            assert ours.decode(block) == plain.decode(block, raw=True) == headers


def test_a_block_that_comes_again_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    decode = Decoder.decode
    monkeypatch.setattr(
        Decoder, "decode", lambda self, data, raw: (read.append(data), decode(self, data, raw))[1]
    )
    encoder, decoder = Encoder(), BlockDecoder(65_536)
    blocks = [encoder.encode(COMMON) for _ in range(5)]
    assert [decoder.decode(each) for each in blocks] == [COMMON] * 5
    assert read == blocks[:2]  # the first fills the table
    for number in range(2 * MOST_KNOWN):  # few are known at a time
        decoder.decode(encoder.encode([NeverIndexedHeaderTuple(b"x-id", b"%d" % number)]))
    assert len(decoder._known) <= MOST_KNOWN
    long = encoder.encode([NeverIndexedHeaderTuple(b"x-id", b"i" * 2 * LONGEST_KNOWN)])
    decoder.decode(long)
    assert long not in decoder._known


def test_headers_are_as_many_bytes_as_they_may_be() -> None:
    block = Encoder().encode([(b"a", b"b" * 100)])
    with pytest.raises(OversizedHeaderListError):
        BlockDecoder(100).decode(block)


BROKEN = b"\x00"  # the beginning of a field


@pytest.mark.parametrize(
    "field",
    [b"\x82", b"\x04\x01a", b"\x00\x01a\x00", b"\x40\x01a\x00", b"\x20"],
    ids=["indexed", "name indexed", "new", "new and kept", "size of the table"],
)
def test_what_is_behind_too_many_fields_is_not_read(field: bytes) -> None:
    with pytest.raises(HPACKDecodingError) as raised:
        BlockDecoder(65_536).decode((MOST_FIELDS - 1) * field + BROKEN)
    assert not isinstance(raised.value, OversizedHeaderListError)
    with pytest.raises(OversizedHeaderListError):
        BlockDecoder(65_536).decode(MOST_FIELDS * field + BROKEN)


def test_a_block_of_too_many_bytes_is_not_read() -> None:
    with pytest.raises(OversizedHeaderListError):
        BlockDecoder(100).decode(b"\x00\x01a\x7f\xff\x7f" + bytes(100))  # a value that is broken
