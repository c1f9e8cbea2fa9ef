from pathlib import Path

import pytest

from service.errors import InvalidSetting
from service.settings import Settings
from service.settings.split import Split
from service.settings.split_file import split_of

FIFTY_FIFTY = "mnist=2:1,3:1"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("", {}),
        ("mnist=2:90,3:10", {"mnist": {2: 90, 3: 10}}),
        ("mnist=3:10,2:90\n\n# a comment\niris=1:1 # another", {
            "mnist": {2: 90, 3: 10},
            "iris": {1: 1},
        }),
        ("a.b-c=1:0,2:999999999", {"a.b-c": {1: 0, 2: 999_999_999}}),
        (f"a={2**63 - 1}:1", {"a": {2**63 - 1: 1}}),
        ("#mnist=2:90", {}),
    ],
)  # fmt: skip
def test_weights_are_read(text: str, weights: dict[str, dict[int, int]]) -> None:
    split = Split(text)
    assert {name: split.of(name) for name in split.names} == weights
    assert Split(str(split)) == split
    assert all(list(split.of(name)) == sorted(split.of(name)) for name in weights)


@pytest.mark.parametrize(
    "item",
    [
        *("mnist", "mnist=", "=2:90", "mnist=2", "mnist=2:", "mnist=2:90,", "mnist=2:90;3:10"),
        *("mnist=2:-1", "mnist=2:1.5", "mnist=2:01", "mnist=02:1", "mnist=0:1", "mnist=2:90%"),
        *("mnist=2:0", "mnist=2:0,3:0", "mnist=2:1,2:1", "mnist=2:1000000000"),
        *(f"mnist={2**63}:1", "mnist=2:90,3:10,", "mnist=latest:1"),
    ],
)
def test_what_is_no_weight_is_refused_with_its_line(item: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: expected weights such as .*, got '") as caught:
        Split(f"iris=1:1\n{item}")
    assert str(caught.value).endswith(f"got {item!r}")


def test_a_model_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^line 3: .* got 'iris=2:1'$"):
        Split("iris=1:1\nmnist=2:1\niris=2:1")


def test_the_file_is_read_in_place_of_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "split"
    both = Settings(split=Split("iris=1:1"), split_file=file)
    file.write_text(f"# rollout\n{FIFTY_FIFTY}\n")
    assert split_of(both) == Split(FIFTY_FIFTY)
    assert split_of(Settings(split=Split("iris=1:1"))) == Split("iris=1:1")
    file.write_text("\ufeff# nothing yet\n")
    assert split_of(both) == Split()
    file.write_text("# rollout\nmnist=2:90;3:10\n")
    where = f"^TORCHLIT_SPLIT_FILE: {file}: "
    with pytest.raises(InvalidSetting, match=where + "line 2: expected .*got 'mnist=2:90;3:10'$"):
        split_of(both)
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidSetting, match=where + "cannot be read: not UTF-8 text$"):
        split_of(both)
    file.unlink()
    with pytest.raises(InvalidSetting, match=where + "cannot be read: No such file"):
        split_of(both)


def test_the_variables_are_read() -> None:
    environ = {"TORCHLIT_SPLIT": FIFTY_FIFTY, "TORCHLIT_SPLIT_HEADER": "X-User-Id"}
    settings = Settings.from_env(environ)
    assert (settings.split, settings.split_header) == (Split(FIFTY_FIFTY), "X-User-Id")
    with pytest.raises(InvalidSetting, match=r"^TORCHLIT_SPLIT: expected weights .*'mnist=2:x'$"):
        Settings.from_env({"TORCHLIT_SPLIT": "mnist=2:x"})
    for name in ("X-User Id", "X-User-Id:", "é"):
        with pytest.raises(InvalidSetting, match=r"SPLIT_HEADER: expected the name of a header"):
            Settings.from_env({"TORCHLIT_SPLIT_HEADER": name})
