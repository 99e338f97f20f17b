"""A comparison of latents that is made again takes the place of the one that is kept, so it is made
of the same tokens."""

from collections.abc import Sequence

from itda_core.config import CorpusSpec
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.kept import KeptJobs
from itda_core.jobs.submissions import runs_in_words
from itda_core.runs.latent_comparisons import LatentComparison
from itda_core.runs.run import Run
from itda_core.training.as_said import as_options


def submit_comparison_again(
    queue: KeptJobs, kept: LatentComparison, runs: Sequence[Run], device: str = ANY
) -> Job:
    """Queue the comparison of two runs in the order and with the settings of the kept one; where
    its file has no settings, with those that come nearest. runs: the two, in either order."""
    by_id = {run.run_id: run for run in runs}
    in_order = [by_id[kept.about[side]] for side in ("run_a", "run_b")]
    settings = kept.likely_settings
    corpus = settings["corpus"]
    arguments = [str(run.directory.resolve()) for run in in_order]
    arguments += ["--save", f"--max-tokens={settings['max_tokens']}"]
    arguments += [] if corpus is None else as_options(CorpusSpec(**corpus))
    names = [runs_in_words([run]) for run in in_order]
    title = f"Same latents in {names[0]}, and {names[1]}, again"
    return queue.enqueue("compare-latents", arguments, title, device=device)
