"""What was measured on a run after its training, kept in its directory.

runs/<run_id>/evaluation.json    optional: a run is whole without it
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from itda_core.errors import RunError
from itda_core.runs import Run, told_when_disk_is_full, write_json

EVALUATION_FILE = "evaluation.json"
EVALUATION_VERSION = 1
_TOLD = {
    "created", "seconds", "measured_on", "tokens", "massive_tokens", "unused_share", "by_l0",
    "density", "errors",
}  # fmt: skip


def save_evaluation(run: Run, result: dict[str, Any]) -> Path:
    """Keep what `evaluating.evaluate_runs` found of a run; the file appears whole or not at all."""
    path = run.directory / EVALUATION_FILE
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    with told_when_disk_is_full(run.directory):
        write_json(path, {**result, "version": EVALUATION_VERSION, "created": created})
    return path


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """The evaluation kept of a run, None where there is none. Raises RunError where it is damaged
    or of a newer version."""
    path = run.directory / EVALUATION_FILE
    remedy = f"Evaluate it again: python -m itda_core evaluate {run.run_id} --save"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] > EVALUATION_VERSION:
            raise RunError(f"{path} was written by a newer version: update the explorer.")
        lacking = _TOLD - set(found)
        if lacking:
            raise ValueError(f"it does not say {', '.join(sorted(lacking))}")
        if not all({"l0", "fvu"} <= set(row) for row in found["by_l0"]):
            raise ValueError("a row does not say its L0 and FVU")
        if not isinstance(found["measured_on"], dict):
            raise ValueError("it does not say what was measured")
        numbers = [found["tokens"], *(row["l0"] for row in found["by_l0"])]
        if not all(isinstance(number, int) for number in numbers):
            raise ValueError("a number is none")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error}). {remedy}") from error
    return found
