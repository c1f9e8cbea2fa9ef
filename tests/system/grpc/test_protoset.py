"""What is committed beside the .proto files is what they are compiled to (`make protoset`)."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.grpc.messages import PROTOSET

pytest.importorskip("grpc_tools", reason="grpcio-tools is not here")


@pytest.mark.grpc
def test_the_protoset_is_that_of_the_files(tmp_path: Path) -> None:
    names = [path.name for path in sorted(PROTOSET.parent.glob("*.proto"), reverse=True)]
    out = tmp_path / "protoset"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}", *names],
        cwd=PROTOSET.parent,
        check=True,
    )
    assert out.read_bytes() == PROTOSET.read_bytes()
