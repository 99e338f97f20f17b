"""How far work is, told of its parts."""

import json
from types import SimpleNamespace

import pytest

from itda_core.files.json_files import newest_lines
from itda_core.progress import Progress
from itda_core.training import report as report_module
from itda_core.training.report import Report


@pytest.mark.parametrize("parts", range(1, 60))
def test_at_the_end_of_the_last_part_nothing_is_left(parts):
    progress, before = Progress("measuring"), 0.0
    for _ in range(parts):
        progress.follow(1.0, before, 1 / parts, 3.0)
        before += 1 / parts
    assert 0.999 < progress.fraction <= 1.0
    assert f"{progress.seconds_left:.0f}" == "0"


def test_what_is_left_takes_as_long_as_what_was_done():
    progress = Progress("measuring")
    progress.follow(0.5, 0.25, 0.25, 10.0)  # half of the second of four parts took 10 s
    assert progress.fraction == pytest.approx(0.375)
    assert progress.seconds_left == pytest.approx(50.0)  # half a part and two whole ones


def test_what_is_left_is_said_once_enough_is_done_to_tell():
    progress = Progress("measuring")
    progress.follow(0.05, 0.0, 1.0, 9.0)
    assert progress.likely_seconds_left is None
    progress.follow(0.5, 0.0, 1.0, 20.0)
    assert progress.likely_seconds_left == progress.seconds_left == pytest.approx(20.0)


def reported():
    """The report of a training, and the capture that it follows."""
    capture = SimpleNamespace(tokens=0, fraction=0.0, seconds=0.0, block=None, left_out=dict)
    capture.builders = {}
    workspace = SimpleNamespace(training_id="x", add_to_log=lambda _line: None)
    context = SimpleNamespace(
        workspace=workspace, plan=SimpleNamespace(total_rows=16),
        config=SimpleNamespace(max_atoms=1), asked_tokens=0, notes=[], moved=None,
    )  # fmt: skip
    return Report(context, capture), capture


def test_the_speed_of_machines_whose_work_comes_at_once_is_that_of_all_together(monkeypatch):
    """Two workers give 100 tokens each every 60 s, of three layers, and nothing in between."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(report_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    report, capture = reported()
    speeds = []
    for second in range(1, 361):
        clock.now = float(second)
        report.window()
        for event in range(6 if second % 60 == 0 else 0):
            capture.tokens += 100 * (event in (2, 5))  # the last layer of each
            speeds.append(report.window().tokens_per_second)
    of_all = 2 * 100 / 60
    assert speeds[-1] == pytest.approx(of_all, rel=0.2)
    assert max(speeds) < 1.35 * of_all


def test_a_slow_beginning_does_not_count_for_what_is_left_of_a_training():
    """The first part takes 30 s, each of the 16 others 1 s; reading is 85 % of all."""
    report, capture = reported()
    for part in range(1, 9):
        capture.fraction, capture.seconds = part / 16, 29.0 + part
        report._follow()
    left = 16 / 0.85 - 8  # at a second a part
    assert report.progress.seconds_left == pytest.approx(left)


def rows(n, **states):
    """Of a long list: waiting but for those of some numbers."""
    by_number = {number: state for state, numbers in states.items() for number in numbers}
    title = "a-model-of-some-length-7b-instruct at step1000, layers 3 and 7, seed 0"
    about = {"title": title, "where": "node-12", "fraction": 0.5, "stage": "", "error": ""}
    each = range(1, n + 1)
    return [{"number": i, "state": by_number.get(i, "waiting"), **about} for i in each]


def test_a_line_of_a_long_list_stays_short_and_counts_all():
    """It names those that run, then those that failed."""
    trainings = rows(1_000, done=range(1, 301), failed=[302, 500], running=[301, 700])
    finished = [f"a-model-of-some-length-0123abcd-L{number:02d}" for number in range(900)]
    line = Progress("training", trainings=trainings, finished=finished).to_dict()
    assert len(json.dumps(line)) < 6_000
    assert line["states"] == {"done": 300, "failed": 2, "running": 2, "waiting": 696}
    assert [row["number"] for row in line["trainings"]][:4] == [301, 700, 302, 500]
    assert line["finished"] == finished[-20:]
    short = Progress("done", trainings=trainings[:20], finished=finished).to_dict()
    assert (short["trainings"], short["finished"]) == (trainings[:20], finished)


@pytest.mark.parametrize("n_bytes", [1, 40, 300, 10_000])
def test_the_newest_line_of_a_file_is_found_however_long_it_is(tmp_path, n_bytes):
    file = tmp_path / "progress.jsonl"
    assert newest_lines(file, n_bytes) == []
    lines = [f"{number} {'x' * number}\n".encode() for number in range(100)]
    file.write_bytes(b"".join(lines) + b"half of")
    found = newest_lines(file, n_bytes)
    assert found[-2:] == [lines[-1], b"half of"]
    assert lines[-len(found) + 1 :] == found[:-1]
