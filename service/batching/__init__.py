"""Many calls become few batches. Knows asyncio and NumPy, nothing else.

batcher   the queue, and when it is run
entry     what waits in it; who observes it
arrays    arrays of several calls in one, and back
"""

from service.batching.arrays import Inputs, Outputs, check_rows
from service.batching.batcher import SLOW_S, Batcher
from service.batching.entry import UNSHARED, Entry, Observer, Spare, Timing, Waiter

__all__ = [
    "SLOW_S",
    "UNSHARED",
    "Batcher",
    "Entry",
    "Inputs",
    "Observer",
    "Outputs",
    "Spare",
    "Timing",
    "Waiter",
    "check_rows",
]
