"""What can be queued of dictionaries that are there, each as the command that does it."""

from collections.abc import Sequence

from itda_core.config import TrainConfig, layers_in_words
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.kept import KeptJobs
from itda_core.runs.run import Run
from itda_core.settings import RESID_POST


def submit_move(
    queue: KeptJobs, run: Run, config: TrainConfig, device: str = ANY, memory: int | None = None
) -> Job:
    """Queue the move of a run's dictionary; config: of `move_config`. What was interrupted goes
    on where it stopped."""
    model, layers = config.model, ",".join(map(str, config.layers))
    title = f"{config.moved_from.in_words} moved to {model.name}, "
    title += layers_in_words(config.layers, config.site)
    where = ["--model", model.name, "--layer", layers, "--site", config.site]
    where += ["--revision", model.revision] if model.revision else []
    arguments = [*_directories([run]), *where, "--dtype", model.dtype]
    return queue.enqueue("move", arguments, title, device=device, memory=memory)


def submit_evaluation(queue: KeptJobs, runs: Sequence[Run], device: str = ANY) -> Job:
    """Queue an evaluation on held-out prompts; each result is kept with its run."""
    title = f"Evaluation of {_in_words(runs)}"
    return queue.enqueue("evaluate", [*_directories(runs), "--save"], title, device=device)


def submit_quick_evaluation(queue: KeptJobs, runs: Sequence[Run], device: str = ANY) -> Job:
    """Queue a quick run of evaluations, each kept with its run where that has no full one."""
    arguments = [*_directories(runs), "--save", "--quick"]
    title = f"Quick evaluation of {_in_words(runs)}"
    return queue.enqueue("evaluate", arguments, title, device=device)


def submit_probing(queue: KeptJobs, runs: Sequence[Run], device: str = ANY) -> Job:
    """Queue sparse probing of held-out prompts; each result is kept with its run."""
    title = f"Probing {_in_words(runs)}"
    return queue.enqueue("probe", [*_directories(runs), "--save"], title, device=device)


def submit_map(queue: KeptJobs, run: Run) -> Job:
    """Queue a map of a run's latents, which the CPU makes; it is kept with the run."""
    title = f"Map of {run.config.model.name}, {_layers_of([run])}"
    return queue.enqueue("map", _directories([run]), title, device="cpu")


def submit_scores(queue: KeptJobs, runs: Sequence[Run]) -> Job:
    """Queue the scores of runs' latents, which the CPU finds; each table is kept with its
    run."""
    title = f"Scores of {_in_words(runs)}"
    return queue.enqueue("score", _directories(runs), title, device="cpu")


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
    names = [f"{run.config.model.name}, {_layers_of([run])}" for run in (a, b)]
    title = f"Same latents in {names[0]}, and {names[1]}"
    arguments = [*_directories([a, b]), "--save"]
    return queue.enqueue("compare-latents", arguments, title, device=device)


def _in_words(runs: Sequence[Run]) -> str:
    """Their models, each with its layers; of many models how many there are."""
    by_model: dict[str, list[Run]] = {}
    for run in runs:
        by_model.setdefault(run.config.model.name, []).append(run)
    if len(by_model) > 3:
        return f"{len(by_model)} models, {len(runs)} layers"
    return "; ".join(f"{model}, {_layers_of(some)}" for model, some in by_model.items())


def _layers_of(runs: Sequence[Run]) -> str:
    """Of each site among them; the block's output first, which goes without saying."""
    by_site: dict[str, set[int]] = {}
    for run in sorted(runs, key=lambda run: (run.site != RESID_POST, run.site)):
        by_site.setdefault(run.site, set()).add(run.layer)
    return " and ".join(layers_in_words(sorted(layers), site) for site, layers in by_site.items())


def _directories(runs: Sequence[Run]) -> list[str]:
    return [str(run.directory.resolve()) for run in runs]
