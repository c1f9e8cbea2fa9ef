import pytest

from service.settings.versions import Versions


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", [1, 2, 3, 10]),
        ("latest", [10]),
        ("latest:2", [3, 10]),
        ("latest:9", [1, 2, 3, 10]),
        ("3,1", [1, 3]),
        ("3,4", [3, 4]),  # also what is not there, so that it is reported
        ("toy=2", [2]),
        (f"1732700000,{2**63 - 1}", [1732700000, 2**63 - 1]),
        ("latest toy=1,2", [1, 2]),
        ("latest other=1", [10]),
        ("other=1", [1, 2, 3, 10]),
        ("toy=latest:3\n1", [2, 3, 10]),
    ],
)
def test_a_policy_chooses_versions(text: str, chosen: list[int]) -> None:
    assert Versions(text).choose("toy", [1, 2, 3, 10]) == chosen


def test_of_nothing_nothing_is_chosen_unless_it_is_listed() -> None:
    assert Versions("latest").choose("toy", []) == Versions("all").choose("toy", []) == []
    assert Versions("1").choose("toy", []) == [1]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "newest", "latest:0", "latest:", "0", "001", "1,", "1;2", "-1"),
        *("latest:1732700000", "9223372036854775808", "1,9999999999999999999"),
        *("toy=", "=1", "toy=1=2", "toy:1", "all latest", "toy=1 toy=2", "1 2", "1, 2", "ALL"),
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        Versions(text)


def test_versions_are_equal_if_they_choose_alike_and_are_shown_as_written() -> None:
    assert Versions("toy=1  latest") == Versions("latest toy=1") != Versions("latest")
    assert hash(Versions("toy=1  latest")) == hash(Versions("latest toy=1"))
    assert str(Versions("latest toy=1")) == "latest toy=1"
    assert Versions("latest toy=1").names == {"toy"}
