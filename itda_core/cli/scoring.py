"""The scores of what was trained, at the end of a training on the command line."""

import argparse
import copy
import sys
from collections.abc import Sequence

from itda_core.cli.console import follow
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.run import Run


def score_trained(runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Score the latents of runs that have no scores yet and explored tokens, unless --no-scores
    leaves it out. The runs are whole without: where it is stopped or fails, a line on standard
    error says so, and how to do it later. Whoever reads --progress follows the training alone."""
    from itda_core.analysis.latent_scores import score_runs

    left = [run for run in runs if not (run.directory / SCORES_FILE).exists()]
    left = [run for run in left if run.metrics["explored_tokens"]]
    if options.no_scores or not left:
        return
    quietly = copy.copy(options)
    quietly.progress = None
    later = f"score {' '.join(str(run.directory) for run in left)}"
    try:
        steps = score_runs(left, options.device, options.memory)
        follow(steps, quietly, can_resume=True, remedy="")
    except Exception as error:  # what was trained is told of, whatever becomes of its scores
        print(f"Not scored: {error} Later: python -m itda_core {later}", file=sys.stderr)
