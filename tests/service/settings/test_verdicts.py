import pytest

from service.settings.verdicts import MissingValues, Verdicts


def test_what_is_said_of_a_model_is_said_of_it_alone() -> None:
    said = Verdicts(" a=rows  b.c-d=requests ")
    assert [said.of(name) for name in ("a", "b.c-d", "e")] == ["rows", "requests", None]
    assert said.names == {"a", "b.c-d"}
    assert str(said) == " a=rows  b.c-d=requests "
    assert [MissingValues("a=allow b=refuse").of(name) for name in "abc"] == [
        "allow",
        "refuse",
        None,
    ]


def test_nothing_is_said_by_default() -> None:
    assert Verdicts().names == set()
    assert Verdicts() == Verdicts(" ")
    assert Verdicts() != MissingValues()
    assert hash(Verdicts("a=rows b=rows")) == hash(Verdicts("b=rows a=rows"))


@pytest.mark.parametrize("text", ["rows", "a=row", "=rows", "a=rows a=requests", "a = rows", "a="])
def test_what_does_not_fit_is_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected `name=rows` or `name=requests`, .*, got '"):
        Verdicts(text)


@pytest.mark.parametrize("text", ["a=rows", "a=allow a=allow", "allow"])
def test_whether_missing_values_are_taken_has_words_of_its_own(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected `name=allow` or `name=refuse`, .*, got '"):
        MissingValues(text)
