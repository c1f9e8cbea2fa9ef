import os
from collections.abc import Iterator

import pytest

from tests.support.scoring import Become


@pytest.fixture
def stream() -> Iterator[Become]:
    """Let a file be one of the standard streams; in the end they are as they were."""
    ours = [(number, os.dup(number)) for number in range(3)]

    def become(number: int, file: int) -> None:
        os.dup2(file, number)
        os.close(file)

    yield become
    for number, copy in ours:
        os.dup2(copy, number)
        os.close(copy)
