"""Which versions of each model are opened, as TORCHLIT_VERSIONS says."""

import re
from collections.abc import Sequence

from msgspec import Struct

from service.card import LAST_VERSION, VERSION

EXPECTED = "`all`, `latest`, `latest:2` or `1,3`, also as `name=...`, each once for a model"

_WITH_ZEROS = re.compile(r"(^|[=,\s])0+[1-9]")
_COUNT = "[1-9][0-9]{0,8}"
_NUMBER = VERSION.pattern
_ITEM = re.compile(
    rf"((?P<name>[^=]+)=)?"
    rf"((?P<all>all)|latest(:(?P<latest>{_COUNT}))?|(?P<listed>{_NUMBER}(,{_NUMBER})*))"
)


def expected(text: str) -> str:
    """Say what is expected where `text` stands, which is no policy."""
    return EXPECTED + (", versions without zeros in front" if _WITH_ZEROS.search(text) else "")


class Policy(Struct, frozen=True):
    """All versions of a model; or the `latest` so many, or those that are `listed`."""

    latest: int | None = None
    listed: tuple[int, ...] = ()

    def choose(self, found: Sequence[int]) -> list[int]:
        """Return which versions to open, lowest first; those listed even if they are not there.

        found: the versions there are, lowest first.
        """
        if self.listed:
            return sorted(set(self.listed))
        return list(found if self.latest is None else found[-self.latest :])


class Versions:
    """A policy for every model, and others for models by their name."""

    def __init__(self, text: str = "all") -> None:
        """Read blank-separated policies. Raises ValueError for what is not as EXPECTED."""
        self._text = text
        self._policies: dict[str, Policy] = {}  # by name, "" for every other model
        for item in text.split():
            match = _ITEM.fullmatch(item)
            name = match["name"] or "" if match else ""
            policy = _policy(match) if match else Policy()
            is_beyond = max(policy.listed, default=0) > LAST_VERSION
            if match is None or name in self._policies or is_beyond:
                raise ValueError(f"expected {expected(item)}, got {item!r}")
            self._policies[name] = policy
        if not self._policies:
            raise ValueError(f"expected {EXPECTED}, got {text!r}")

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Versions) and self._policies == other._policies

    def __hash__(self) -> int:
        return hash(frozenset(self._policies.items()))

    @property
    def names(self) -> set[str]:
        """The models that have a policy of their own."""
        return self._policies.keys() - {""}

    def choose(self, name: str, found: Sequence[int]) -> list[int]:
        """Return which versions of the model `name` to open; see Policy.choose."""
        policy = self._policies.get(name) or self._policies.get("") or Policy()
        return policy.choose(found)


def _policy(match: re.Match[str]) -> Policy:
    if match["all"]:
        return Policy()
    if match["listed"]:
        return Policy(listed=tuple(map(int, match["listed"].split(","))))
    return Policy(latest=int(match["latest"] or 1))
