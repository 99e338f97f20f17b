"""Waiting for what a queue's thread does."""

import time


def wait_until(true, seconds=60.0):
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def now(queue, job):
    return next((one for one in queue.jobs() if one.job_id == job.job_id), None)


def ended(queue, job):
    found = now(queue, job)
    return found if found.ended and found.state != "running" else None
