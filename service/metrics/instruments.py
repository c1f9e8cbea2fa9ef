"""Every Prometheus instrument of the service: name, help, label or buckets."""

from msgspec import Struct

OUTCOMES = (
    *("ok", "invalid", "not_found", "too_large", "queue_full", "deadline"),
    *("unavailable", "memory_full", "failed", "cancelled"),
)
UNMATCHED_OUTCOMES = (
    *("invalid", "unauthorized", "not_found", "timeout", "too_large", "deadline"),
    *("unavailable", "memory_full", "too_many_connections", "failed", "cancelled"),
)
REASONS = ("queue_full", "deadline", "cancelled")
RELOAD_OUTCOMES = ("ok", "failed")
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Instrument(Struct, frozen=True):
    """One metric: its name without suffix, its help, and its own label or its buckets."""

    name: str
    help: str
    label: str = ""
    buckets: tuple[float, ...] = ()
    is_now: bool = False  # what is, and ends with its worker; else what was counted


REQUESTS = Instrument("torchlit_requests", "Requests to a model, by outcome.", "outcome")
REJECTED = Instrument("torchlit_rejected_rows", "Rows that were never computed.", "reason")
PREDICTIONS = Instrument("torchlit_predictions", "Rows predicted, by label.", "label")
OUTSIDE = Instrument(
    "torchlit_inputs_outside_training_range",
    "Values below the minimum or above the maximum seen in training, by feature.",
    "feature",
)
QUEUE_ROWS = Instrument("torchlit_queue_rows", "Rows that wait for a batch now.", is_now=True)
QUEUE_LIMIT = Instrument(
    "torchlit_queue_limit_rows",
    "Rows that may wait: TORCHLIT_MAX_QUEUE_ROWS of each worker.",
    is_now=True,
)
REQUEST_SECONDS = Instrument(
    "torchlit_request_seconds", "From the request's start to its reply.", buckets=SECONDS
)
QUEUE_SECONDS = Instrument(
    "torchlit_queue_seconds", "From a request's rows waiting to their batch.", buckets=SECONDS
)
COMPUTE_SECONDS = Instrument("torchlit_compute_seconds", "Running one batch.", buckets=SECONDS)
BATCH_ROWS = Instrument("torchlit_batch_rows", "Rows in one batch.", buckets=ROWS)
# Not shown, but a part of `statistics`.
FAILED_SECONDS = Instrument("failed_seconds", "That part of request_seconds that failed took.")
LAST = Instrument("last", "When the last batch was run, in seconds since 1970.")
OF_A_MODEL = (
    *(REQUESTS, REJECTED, PREDICTIONS, OUTSIDE, QUEUE_ROWS, QUEUE_LIMIT),
    *(REQUEST_SECONDS, QUEUE_SECONDS, COMPUTE_SECONDS, BATCH_ROWS),
)

UNMATCHED = Instrument(
    "torchlit_unmatched_requests", "Requests refused before a model was known.", "outcome"
)
RELOADS = Instrument(
    "torchlit_reloads", "Openings of a new or changed version while serving.", "outcome"
)
STALE = Instrument(
    "torchlit_model_stale",
    "Workers that serve an older file, as the newer could not be opened.",
    is_now=True,
)
UNAPPROVED = Instrument(
    "torchlit_model_unapproved",
    "Workers that found files of the version that are not as SHA256SUMS says.",
    is_now=True,
)
SPLIT_FALLBACKS = Instrument(
    "torchlit_split_fallbacks",
    "Requests that the weights gave to this version, and another answered, as it was not ready.",
)
INFO = Instrument(
    "torchlit_model_info", "1 for each model version; how the answering worker serves it."
)
NODES = Instrument(
    "torchlit_model_nodes",
    "Nodes of the model's graph that run on a provider, as the answering worker opened it.",
)
READY = Instrument(
    "torchlit_model_ready", "1 if the model version answers in every worker, else 0."
)
ROWS_TOTAL = Instrument("torchlit_rows", "Rows that went through the model.")
BATCHES_TOTAL = Instrument("torchlit_batches", "Batches that went through the model.")
CONNECTIONS = Instrument("torchlit_connections", "Connections that are open now.", is_now=True)
CONNECTIONS_LIMIT = Instrument(
    "torchlit_connections_limit",
    "Connections that may be open: TORCHLIT_MAX_CONNECTIONS of each worker.",
    is_now=True,
)
WORKERS = Instrument("torchlit_workers", "Worker processes that live now.")
# Not shown as such.
PID = Instrument("pid", "The worker's process id.")
SERVING = Instrument("serving", "The process id of a worker that takes requests.")
CPU = Instrument("cpu", "CPU seconds of the worker, and of those before it.")
OF_A_WORKER = (CONNECTIONS, CONNECTIONS_LIMIT, PID, SERVING, CPU)
