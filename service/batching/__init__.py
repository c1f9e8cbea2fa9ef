"""Many calls become few batches. Knows asyncio and NumPy, nothing else.

batcher    the queue, and when it is run
execution  a batch is run, and each of its entries gets an answer
entry      what waits in it; who observes it
arrays     arrays of several calls in one, and back
"""

from service.batching.arrays import Inputs, Outputs, check_rows, stacked
from service.batching.batcher import SLOW_S, Batcher
from service.batching.entry import UNSHARED, Entry, Observer, Spare, Stop, Timing, Waiter

__all__ = [
    "SLOW_S",
    "UNSHARED",
    "Batcher",
    "Entry",
    "Inputs",
    "Observer",
    "Outputs",
    "Spare",
    "Stop",
    "Timing",
    "Waiter",
    "check_rows",
    "stacked",
]
