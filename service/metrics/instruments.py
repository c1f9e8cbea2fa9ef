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

# Of two versions that are compared on live rows; there are none unless TORCHLIT_SHADOW says so.
SHADOW_OUTCOMES = ("agree", "disagree", "failed", "dropped")
SHADOW_ROWS = Instrument(
    "torchlit_shadow_rows",
    "Rows that a version answered and that were chosen for its shadow, by what became of them.",
    "outcome",
)
SHADOW_LABELS = Instrument(
    "torchlit_shadow_labels",
    "Rows by the label that the version answered and that of its shadow, of up to 16 labels.",
    "label",
)
# From rounding (1e-4) over what may be noise (0.01) to another opinion.
SHADOW_PROBABILITY = Instrument(
    "torchlit_shadow_probability_difference",
    "How far apart the two probabilities of the label are that the version answered.",
    buckets=(0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
)
# The unit is the model's, so its numbers may be of any size: two steps for each power of ten.
SHADOW_ABSOLUTE = Instrument(
    "torchlit_shadow_absolute_difference",
    "How far apart the two answers to a row are, in the unit of the answer.",
    buckets=(
        *(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        *(30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 100_000.0, 1_000_000.0),
    ),
)
SHADOW_RELATIVE = Instrument(
    "torchlit_shadow_relative_difference",
    "The same as a share of the larger of the two, from 0 to 2.",
    buckets=(0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
)
OF_A_SHADOW = (SHADOW_ROWS, SHADOW_PROBABILITY, SHADOW_ABSOLUTE, SHADOW_RELATIVE)
MOST_PAIRED_LABELS = 16  # of which each pair is a time series
