"""What can be queued of dictionaries that are there, each as the command that does it."""

from collections.abc import Sequence
from pathlib import Path

from itda_core.config import TrainConfig, layers_in_words
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.kept import KeptJobs
from itda_core.runs.run import Run
from itda_core.settings import RESID_POST

_TITLES = {"evaluate": "Evaluation of", "probe": "Probing", "map": "Map of", "score": "Scores of"}
"""By command, of jobs about runs and nothing else, how their titles begin"""
_NAMED = 3
"""Models on a corpus that a title names"""


def title_of(command: str, arguments: Sequence[str], what: str) -> str:
    """The title of a job about runs and nothing else; "" for other commands. what: the runs in
    words."""
    begins = _TITLES.get(command, "")
    if command == "evaluate" and "--quick" in arguments:
        begins = "Quick evaluation of"
    return begins and f"{begins} {what}"


def submit_move(
    queue: KeptJobs, run: Run, config: TrainConfig, device: str = ANY, memory: int | None = None
) -> Job:
    """Queue the move of a run's dictionary; config: of `move_config`. What was interrupted goes
    on where it stopped."""
    model, layers = config.model, ",".join(map(str, config.layers))
    title = f"{config.moved_from.in_words} on {_corpus_of(run)} moved to {model.name}, "
    title += layers_in_words(config.layers, config.site)
    where = ["--model", model.name, "--layer", layers, "--site", config.site]
    where += ["--revision", model.revision] if model.revision else []
    arguments = [*_directories([run]), *where, "--dtype", model.dtype]
    return queue.enqueue("move", arguments, title, device=device, memory=memory)


def submit_evaluation(queue: KeptJobs, runs: Sequence[Run], device: str = ANY) -> Job:
    """Queue an evaluation on held-out prompts; each result is kept with its run."""
    return _enqueue(queue, "evaluate", runs, ["--save"], device)


def submit_quick_evaluation(queue: KeptJobs, runs: Sequence[Run], device: str = ANY) -> Job:
    """Queue a quick run of evaluations, each kept with its run where that has no full one."""
    return _enqueue(queue, "evaluate", runs, ["--save", "--quick"], device)


def submit_probing(queue: KeptJobs, runs: Sequence[Run], device: str = ANY) -> Job:
    """Queue sparse probing of held-out prompts; each result is kept with its run."""
    return _enqueue(queue, "probe", runs, ["--save"], device)


def submit_map(queue: KeptJobs, run: Run) -> Job:
    """Queue a map of a run's latents, which the CPU makes; it is kept with the run."""
    return _enqueue(queue, "map", [run], [], "cpu")


def submit_scores(queue: KeptJobs, runs: Sequence[Run]) -> Job:
    """Queue the scores of runs' latents, which the CPU finds; each table is kept with its
    run."""
    return _enqueue(queue, "score", runs, [], "cpu")


def _enqueue(
    queue: KeptJobs, command: str, runs: Sequence[Run], options: Sequence[str], device: str
) -> Job:
    title = title_of(command, options, runs_in_words(runs))
    return queue.enqueue(command, [*_directories(runs), *options], title, device=device)


def submit_comparison(
    queue: KeptJobs, runs: Sequence[Run], measures: Sequence[str], device: str = ANY
) -> Job:
    """Queue the comparison of every two runs by some measures; the result is kept."""
    models = sorted({run.config.model.name for run in runs})
    what = measures[0].replace("_", " ") if len(measures) == 1 else f"{len(measures)} measures"
    names = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
    title = f"Comparison of {names}, {len(runs)} layers: {what}"
    arguments = [*_directories(runs), "--measures", ",".join(measures), "--save"]
    return queue.enqueue("measure", arguments, title, device=device)


def submit_latent_comparison(queue: KeptJobs, a: Run, b: Run, device: str = ANY) -> Job:
    """Queue the comparison of the latents of two runs with the same sources; the result is
    kept."""
    title = f"Same latents in {runs_in_words([a])}, and {runs_in_words([b])}"
    arguments = [*_directories([a, b]), "--save"]
    return queue.enqueue("compare-latents", arguments, title, device=device)


def runs_in_words(runs: Sequence[Run]) -> str:
    """Their models, each with the corpus and its layers, as trainings are titled; of many how many
    there are."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(f"{run.config.model.name} on {_corpus_of(run)}", []).append(run)
    if len(alike) <= _NAMED:
        return "; ".join(f"{name}, {_layers_of(some)}" for name, some in alike.items())
    models = list({run.config.model.name: None for run in runs})
    name = models[0] if len(models) == 1 else f"{len(models)} models"
    n_corpora = len({run.config.corpus.name for run in runs})
    on = f" on {n_corpora} corpora" if n_corpora > 1 else ""
    return f"{name}{on}, {len(runs)} layers"


def _corpus_of(run: Run) -> str:
    """A file by its name, a data set of the hub without its owner."""
    return Path(run.config.corpus.name).name


def _layers_of(runs: Sequence[Run]) -> str:
    """Of each site among them; the block's output first, which goes without saying."""
    by_site: dict[str, set[int]] = {}
    for run in sorted(runs, key=lambda run: (run.site != RESID_POST, run.site)):
        by_site.setdefault(run.site, set()).add(run.layer)
    return " and ".join(layers_in_words(sorted(layers), site) for site, layers in by_site.items())


def _directories(runs: Sequence[Run]) -> list[str]:
    return [str(run.directory.resolve()) for run in runs]
