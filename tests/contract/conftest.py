from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.servers import SERVERS


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The models folder of a server; each is written once."""
    folders: dict[str, Path] = {}

    def folder(server: str) -> Path:
        if server not in folders:
            inner = tmp_path_factory.mktemp(server) / "models"
            inner.mkdir()
            folders[server] = SERVERS[server].save_models(inner)
        return folders[server]

    return folder
