"""The metrics folder is full."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import running
from tests.support.toys import body, save_toy, toy_card
from tests.system.stress.load import small_disk

pytestmark = pytest.mark.stress

MODELS = 100


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that the counters of 100 models do not fit in."""
    with small_disk(tmp_path / "small") as folder:
        if folder is None:
            pytest.skip("to mount a file system needs root")
        yield folder


def test_a_full_metrics_folder_kills_no_worker(tmp_path: Path, full_folder: Path) -> None:
    names = [f"toy-{number}" for number in range(MODELS)]
    toy = save_toy(tmp_path / "made", card=toy_card())
    for name in names:
        version = tmp_path / "models" / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(toy.read_bytes())
    with running(models_dir=tmp_path / "models", workers=2, metrics_dir=full_folder) as service:
        for name in names:
            for _ in range(4):  # connections, so that both workers answer some
                reply = service.post(f"/predict/{name}", content=body(name, [[1, 2, 3, 4]]))
                assert reply.status_code == 200
        assert "torchlit_workers" in service.get("/metrics").text
        assert service.stop() == 0
    assert not [line for line in service.log if "ended with" in line]
    assert [line for line in service.log if "No space left on device" in line]
