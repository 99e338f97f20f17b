"""Events are one line each, of ids and counts, and no text of a person is among them."""

import io
import re
import subprocess
import sys

import pytest

from itda_core import events
from itda_core.events import tell, tell_error, write_events
from itda_core.jobs.queue import JobQueue


@pytest.fixture
def lines(monkeypatch):
    """What was written so far."""
    written = io.StringIO()
    handlers = [*events._LOG.handlers]
    write_events(written)
    yield lambda: written.getvalue().splitlines()
    events._LOG.handlers[:] = handlers


def test_an_event_is_a_line_of_time_level_and_what_it_is_of(lines):
    tell("job-done", job="00003", seconds=12.345, place="", run=None, count=0)
    [line] = lines()
    when, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", when)
    assert rest == "INFO job-done job=00003 seconds=12.3 count=0"


def test_whatever_a_value_holds_the_event_stays_one_line(lines):
    tell(
        "opened", data='a b\n2026-01-01T00:00:00Z INFO forged x="y\u2028\x1b[2J', other="x" * 9_000
    )
    [line] = lines()
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 3_000
    assert r"\n2026-01-01" in line


def test_an_error_comes_with_its_place_and_without_its_message(lines):
    def fails():
        raise ValueError("a prompt that nobody else may read")

    try:
        fails()
    except ValueError as error:
        tell_error("page-failed", error)
    [line] = lines()
    assert " ERROR page-failed error=ValueError where=" in line
    assert f"{__file__}:" in line
    assert " fails < " in line
    assert "nobody" not in line


def test_a_command_writes_none():
    code = "from itda_core.events import tell; tell('opened', 40)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (said.stdout, said.stderr) == (b"", b"")


def test_each_state_of_a_job_is_told_once(lines, tmp_path):
    queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
    try:
        job = queue.enqueue("map", [str(tmp_path / "a secret.txt")], "A title", device="cuda:9")
        queue.cancel(job.job_id)
    finally:
        queue.close()
    told = [line.split(" ", 2)[2] for line in lines()]
    assert told[0] == f"job-queued job={job.job_id} command=map"
    assert told[1:] == [f"job-cancelled job={job.job_id} command=map"]
