"""The door to the models, where requests are traced."""

from service.batching import Outputs, Waiter
from service.inference import Call, Inference, Work
from service.tracing.spans import Trace


class TracedInference(Inference):
    """Notes of a call that is traced when its rows are handed over, and how it is counted."""

    async def run(self, call: Call, work: Work) -> Outputs:
        """As Inference has it."""
        if isinstance(call.timing, Trace):
            call.timing.handed_over(work.rows)
        return await super().run(call, work)

    def start(self, call: Call, work: Work, waiter: Waiter) -> Outputs | None:
        """As Inference has it."""
        if isinstance(call.timing, Trace):
            call.timing.handed_over(work.rows)
        return super().start(call, work, waiter)

    def count(self, call: Call, outcome: str) -> None:
        """As Inference has it."""
        super().count(call, outcome)
        if isinstance(call.timing, Trace):
            note_counted(call.timing, call, outcome)


def note_counted(trace: Trace, call: Call, outcome: str) -> None:
    """Note how a call is counted, and for which model."""
    served = call.served
    if served is None:
        trace.counted(None, None, outcome)
    else:
        trace.counted(served.name, served.version, outcome)
