import errno
import socket

import pytest

from service.errors import StartupError
from service.settings import Settings
from service.settings.port import bind


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_who_has_the_port_is_listening_there(host: str, family: int) -> None:
    with bind(Settings(host=host, port=0)) as listener:
        port = listener.getsockname()[1]
        assert (listener.family, listener.getblocking()) == (family, False)
        with socket.create_connection((host, port), timeout=5):
            pass


def test_two_colons_are_all_addresses_of_both_families() -> None:
    with bind(Settings(host="::", port=0)) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                pass


def test_a_family_that_the_machine_has_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(StartupError, match=r"cannot listen on \[::\]:8000: Address family not"):
        bind(Settings(host="::"))


def test_a_port_that_is_taken_is_told() -> None:
    with bind(Settings(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartupError) as raised:
            bind(Settings(port=port))
    assert str(raised.value) == (
        f"TORCHLIT_HOST, TORCHLIT_PORT: cannot listen on 127.0.0.1:{port}: Address already in use"
    )
    assert isinstance(raised.value.__cause__, OSError)


def test_an_address_that_is_none_of_this_machine_is_told() -> None:
    with pytest.raises(StartupError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign req"):
        bind(Settings(host="192.0.2.1", port=0))


def test_a_port_may_be_shared_and_who_shares_it_gets_no_connection_yet() -> None:
    with bind(Settings(port=0, reuse_port=True)) as first:
        port = first.getsockname()[1]
        with bind(Settings(port=port, reuse_port=True)):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        first.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
