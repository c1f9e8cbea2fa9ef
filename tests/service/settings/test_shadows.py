import pytest

from service.errors import InvalidSetting
from service.settings import Settings
from service.settings.shadows import Shadowing, ShadowVersions


def test_a_version_has_a_shadow_and_a_share() -> None:
    said = list(ShadowVersions("mnist/2=3  toy/1=4:0.25\ntoy/4=1:1"))
    assert said == [
        Shadowing("mnist", 2, 3),
        Shadowing("toy", 1, 4, 0.25),
        Shadowing("toy", 4, 1, 1.0),
    ]
    assert list(ShadowVersions("")) == []


def test_what_is_compared_with_another_is_no_shadow_only() -> None:
    assert ShadowVersions("a/1=2 a/2=3 b/1=3:0.1").only_shadows == {("a", 3), ("b", 3)}
    assert not ShadowVersions("a/1=2 a/2=1").only_shadows


@pytest.mark.parametrize(
    "item",
    [
        *("mnist", "mnist/2", "mnist/2=", "mnist=3", "2=3", "/2=3", "mnist/2=03", "mnist/0=3"),
        *("mnist/2=2", "mnist/2=3:", "mnist/2=3:0", "mnist/2=3:1.1", "mnist/2=3:-1", "mnist/2=3:x"),
        *("mnist/2=3:1e-1", "mnist/2=9223372036854775808", "mnist/2=3 mnist/2=4", "mnist/2=3,4"),
    ],
)
def test_what_is_no_shadow_is_refused(item: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Settings.from_env({"TORCHLIT_SHADOW": item})
    assert str(refused.value) == (
        "TORCHLIT_SHADOW: expected `name/2=3` or `name/2=3:0.1`, a share above 0 and at most 1, "
        f"each version once and none of itself, got {item!r}"
    )


def test_they_are_equal_if_they_say_the_same() -> None:
    assert ShadowVersions("a/1=2 b/1=2") == ShadowVersions("b/1=2:1.0 a/1=2")
    assert hash(ShadowVersions("a/1=2 b/1=2")) == hash(ShadowVersions("b/1=2:1.0 a/1=2"))
    assert ShadowVersions("a/1=2") != ShadowVersions("a/1=2:0.5")
    assert str(ShadowVersions("a/1=2:0.5")) == "a/1=2:0.5"
