from service.batching import Timing


def test_a_request_waits_until_its_first_batch_and_computes_in_all() -> None:
    timing = Timing()
    assert (timing.queue_s, timing.compute_s) == (0, 0)
    timing.note(5, 6, 0.25, ())
    timing.note(5, 8, 0.5, ())
    assert (timing.queue_s, timing.compute_s) == (1, 0.75)
