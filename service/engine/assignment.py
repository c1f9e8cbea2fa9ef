"""Which execution provider runs which nodes of a graph, as ONNX Runtime reports it."""

from collections import Counter
from collections.abc import Mapping

import onnxruntime as ort
from msgspec import Struct

from service.engine.providers import CPU, device_of

RECORD = "session.record_ep_graph_assignment_info"  # the entry of a session that is to report
_MOST_OPERATORS = 8  # in one sentence


class Assignment(Struct, frozen=True):
    """How many nodes run on each execution provider of a session.

    ONNX Runtime takes its report between two rounds of fusion. So these are neither the nodes of
    the file nor quite those that run, and their number says shares, not work.
    """

    nodes: Mapping[str, int]  # of each provider, the one that is tried first before the others
    fallen: Mapping[str, int]  # operator -> nodes that run on the CPU, though it is not the first

    @property
    def provider(self) -> str:
        """The first execution provider that runs a node; the first of all if none does."""
        return next((name for name, count in self.nodes.items() if count), next(iter(self.nodes)))

    @property
    def is_on_a_device(self) -> bool:
        """Whether nodes were to run elsewhere than on the CPU."""
        return next(iter(self.nodes)) != CPU

    def __str__(self) -> str:
        total = sum(self.nodes.values())
        first, *_ = self.nodes
        share = f"{self.nodes[first]} of {total} nodes on {device_of(first)}"
        if not self.fallen:
            return share
        operators = [
            each if count == 1 else f"{each} ({count})" for each, count in self.fallen.items()
        ]
        if len(operators) > _MOST_OPERATORS:
            more = len(operators) - _MOST_OPERATORS
            operators = [*operators[:_MOST_OPERATORS], f"{more} more"]
        return f"{share}, {sum(self.fallen.values())} on the CPU: {', '.join(operators)}"


def assignment_of(session: ort.InferenceSession) -> Assignment:
    """Return where the nodes of a session run; it was opened with RECORD."""
    names: list[str] = session.get_providers()
    nodes: Counter[str] = Counter(dict.fromkeys(names, 0))
    fallen: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        operators = [node.op_type for node in part.get_nodes()]
        nodes[part.ep_name] += len(operators)
        if part.ep_name == CPU != names[0]:
            fallen.update(operators)
    return Assignment(dict(nodes), dict(fallen.most_common()))
