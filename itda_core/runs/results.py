"""What was measured on a run after its training, kept in its directory.

runs/<run_id>/evaluation.json    optional: a run is whole without them
              probing.json
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from itda_core.clock import now, when_written
from itda_core.errors import RunError
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.json_files import json_bytes, read_json
from itda_core.runs.run import Run, check_same
from itda_core.sealed import faults, write_sealed

EVALUATION_FILE = "evaluation.json"
EVALUATION_VERSION = 1
PROBING_FILE = "probing.json"
PROBING_VERSION = 1
_OF_EVALUATION = {
    "created", "seconds", "measured_on", "tokens", "massive_tokens", "unused_share", "by_l0",
    "density", "errors",
}  # fmt: skip
_OF_PROBING = {"created", "seconds", "measured_on", "tokens", "results"}
_OF_PROBE = {"task", "positive", "negative", "features", "k", "chosen"}


def save_evaluation(run: Run, result: dict[str, Any]) -> Path:
    """Keep what an evaluation found of a run; the file appears whole or not at all."""
    return _save(run, EVALUATION_FILE, EVALUATION_VERSION, result)


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """The evaluation kept of a run, None where there is none. Raises RunError where it is damaged
    or of a newer version."""
    remedy = f"Evaluate it again: python -m itda_core evaluate {run.run_id} --save"
    path = run.directory / EVALUATION_FILE
    return _read(path, EVALUATION_VERSION, _OF_EVALUATION, _check_evaluation, remedy)


def save_probing(run: Run, result: dict[str, Any]) -> Path:
    """Keep what a probing found of a run; the file appears whole or not at all."""
    return _save(run, PROBING_FILE, PROBING_VERSION, result)


def read_probing(run: Run) -> dict[str, Any] | None:
    """The probing kept of a run, None where there is none. Raises RunError where it is damaged
    or of a newer version."""
    remedy = f"Probe it again: python -m itda_core probe {run.run_id} --save"
    return _read(run.directory / PROBING_FILE, PROBING_VERSION, _OF_PROBING, _check_probing, remedy)


def _save(run: Run, file: str, version: int, result: dict[str, Any]) -> Path:
    path = run.directory / file
    check_same(run)
    created = now(later_than=when_written(lambda: read_json(path)["created"]))
    with disk_errors_as_sentences(run.directory):
        write_sealed(path, json_bytes({**result, "version": version, "created": created}))
    return path


def _read(
    path: Path,
    version: int,
    fields: set[str],
    check: Callable[[dict[str, Any]], None],
    remedy: str,
) -> dict[str, Any] | None:
    """fields: what a file must say; check: raises ValueError, TypeError or KeyError where what it
    says makes no sense; remedy: what to do then."""
    try:
        result = read_json(path)
        if result["version"] > version:
            raise RunError(f"{path} was written by a newer version: update the explorer.")
        lacking = fields - set(result)
        if lacking:
            raise ValueError(f"it does not say {', '.join(sorted(lacking))}")
        if not isinstance(result["measured_on"], dict):
            raise ValueError("it does not say what was measured")
        check(result)
        for error in faults(path.parent, [path.name]).values():
            raise error
    except FileNotFoundError:
        return None
    except RunError:
        raise
    except Exception as error:
        raise why_unreadable(path, error, remedy) from error
    return result


def _check_evaluation(result: dict[str, Any]) -> None:
    if not all({"l0", "fvu"} <= set(row) for row in result["by_l0"]):
        raise ValueError("a row does not say its L0 and FVU")
    numbers = [result["tokens"], *(row["l0"] for row in result["by_l0"])]
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError("a number is none")


def _check_probing(result: dict[str, Any]) -> None:
    numbers = [result["tokens"]]
    for row in result["results"]:
        if not set(row) >= _OF_PROBE:
            raise ValueError("a row does not say what was asked")
        numbers += [row["accuracy"], row["low"], row["high"]]
        for feature in row["chosen"]:
            numbers += [feature["feature"], feature["difference"], feature["folds"]]
            if row["features"] == "latents" and not isinstance(feature["token"], str):
                raise ValueError("a latent has no token")
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("a number is none")
