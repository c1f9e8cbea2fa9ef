from pathlib import Path

import pytest

from service.engine.providers import choose_providers
from service.errors import StartupError


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver")
def test_without_a_driver_cuda_is_not_even_tried(caplog: pytest.LogCaptureFixture) -> None:
    """What the extra `gpu` brings knows CUDA; each model would fail in its own words."""
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    for _ in range(2):
        assert choose_providers("auto", available) == ["CPUExecutionProvider"]
        with pytest.raises(
            StartupError, match=r"expected cuda, but NVIDIA's driver is not here \(lib"
        ):
            choose_providers("cuda", available)
    assert choose_providers("cpu", available) == ["CPUExecutionProvider"]
    assert choose_providers("cuda", available[1:]) == ["CPUExecutionProvider"]
    assert len(caplog.records) == 1
