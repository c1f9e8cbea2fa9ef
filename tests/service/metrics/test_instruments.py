from typing import Any

from service.errors import QueueFull, RequestError
from service.metrics.instruments import OUTCOMES, UNMATCHED_OUTCOMES


def kinds(kind: type[Exception]) -> list[Any]:
    return [kind, *(leaf for each in kind.__subclasses__() for leaf in kinds(each))]


def test_every_error_has_a_counter() -> None:
    outcomes = {each.outcome for each in kinds(RequestError)}
    before_a_model_is_known = {"unauthorized", "timeout", "too_many_connections"}
    assert outcomes - before_a_model_is_known <= set(OUTCOMES)
    assert outcomes - {QueueFull.outcome} <= set(UNMATCHED_OUTCOMES)
