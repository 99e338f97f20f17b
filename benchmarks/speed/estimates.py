"""How near estimates are to what jobs take: of the first job of a kind, which nothing was measured
before, and of the next ones, on this machine with all that it does beside.

    python -m benchmarks.speed.estimates --tokens 8192

Prints a table for docs/performance.md: estimate, seconds taken, and their ratio.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.devices import best_device
from itda_core.jobs.job import Job
from itda_core.jobs.likely import likely_estimate, likely_evaluation_seconds
from itda_core.jobs.queue import JobQueue
from itda_core.jobs.submissions import submit_evaluation
from itda_core.runs.run import list_runs

MODEL = "smollm2-135m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16_384)
    tokens = parser.parse_args().tokens
    print("| job | estimate, s | took, s | ratio |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        queue = JobQueue(data / "jobs", data / "runs")
        try:
            _measure(queue, data / "runs", tokens)
        finally:
            queue.close()


def _measure(queue: JobQueue, runs: Path, tokens: int) -> None:
    device = best_device()
    for layers, count in (((7,), tokens), ((15, 22), tokens), ((7,), 2 * tokens)):
        config = TrainConfig(ModelSpec(MODEL), CorpusSpec("sotu"), layers, max_tokens=count)
        guess = likely_estimate(queue, config, device)
        assert guess is not None
        title = f"training, layers {', '.join(map(str, layers))}, {count:,} tokens"
        _row(queue, title, guess.seconds, lambda config=config: queue.submit(config))
    found = {run.layer: run for run in list_runs(runs)}
    for layers in ((15,), (7, 22)):
        chosen = [found[layer] for layer in layers]
        seconds = likely_evaluation_seconds(queue, [(r.config, r.layer) for r in chosen], device)
        assert seconds is not None
        title = f"evaluation, layers {', '.join(map(str, layers))}"
        _row(queue, title, seconds, lambda chosen=chosen: submit_evaluation(queue, chosen))


def _row(queue: JobQueue, title: str, guess: float, submit: Callable[[], Job]) -> None:
    job_id = submit().job_id
    while (job := next(one for one in queue.jobs() if one.job_id == job_id)).is_active:
        time.sleep(0.5)
    assert job.started and job.ended, job.error
    took = job.ended - job.started
    print(f"| {title} | {guess:.0f} | {took:.0f} | {guess / took:.2f} |", flush=True)


if __name__ == "__main__":
    main()
