"""Many calls become few batches. Knows asyncio and NumPy, nothing else."""

from service.batching.batcher import (
    ALONE,
    SLOW_S,
    Batcher,
    Inputs,
    Outputs,
    Spare,
    Timing,
    check_rows,
)

__all__ = ["ALONE", "SLOW_S", "Batcher", "Inputs", "Outputs", "Spare", "Timing", "check_rows"]
