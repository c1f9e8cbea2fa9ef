import re

from service import errors
from service.errors import InvalidSetting, RequestError, ServiceError


def tree(kind: type[Exception], depth: int = 1) -> list[tuple[int, str]]:
    """Return how deep each kind is, and its name: a kind before those below it, as defined."""
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    return [(depth, kind.__name__), *(line for each in below for line in tree(each, depth + 1))]


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    assert errors.__doc__ is not None
    written = re.findall(r"^(  +)([A-Z]\w+)(?:  +\S.*)?$", errors.__doc__, re.MULTILINE)
    assert [(len(indent) // 2 - 1, name) for indent, name in written] == tree(ServiceError)
    defined = [each for each in vars(errors).values() if isinstance(each, type)]
    assert len(defined) == len(written)


def test_every_kind_of_error_says_what_it_is() -> None:
    for _, name in tree(ServiceError):
        assert getattr(errors, name).__doc__


def test_every_refusal_is_counted_under_a_name() -> None:
    for _, name in tree(RequestError):
        assert re.fullmatch("[a-z_]+", getattr(errors, name).outcome)


def test_a_setting_that_does_not_fit_names_its_variable() -> None:
    error = InvalidSetting("TORCHLIT_X: expected this, got that", "TORCHLIT_X")
    assert (str(error), error.variable) == ("TORCHLIT_X: expected this, got that", "TORCHLIT_X")
    assert InvalidSetting("no variable").variable == ""
