"""What can be queued, each as the command that does it."""

import time
from collections.abc import Sequence
from pathlib import Path

from itda_core.config import TrainConfig, layers_in_words
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.kept import KeptJobs, listed_trainings_of
from itda_core.runs.run import Run
from itda_core.settings import RESID_POST


class Submissions(KeptJobs):
    """A list of jobs to which each kind of work can be added."""

    def submit(
        self,
        config: TrainConfig,
        device: str = ANY,
        memory: int | None = None,
        ray: str = "",
        then: Sequence[str] = (),
    ) -> Job:
        """Queue a training. The same training, interrupted before, goes on where it stopped.
        memory: bytes that its model may use; ray: the cluster that trains, in place of a device
        here; then: what is queued of its runs once they are there, "map" or "evaluate". Raises
        SettingError where it can't be trained."""
        config.check()
        title = f"{config.model.name} on {Path(config.corpus.name).name}, "
        title += layers_in_words(config.layers, config.site)
        where = {"device": device, "memory": memory, "ray": ray}
        job = Job("", "queued", title, time.time(), then=tuple(then), **where)
        return self._enqueue(job, config)

    def submit_list(
        self, text: str, device: str = ANY, memory: int | None = None, ray: str = ""
    ) -> Job:
        """Queue the trainings of a list as one job. text: of its file. Raises InputError where one
        can't be trained."""
        listed = listed_trainings_of(text)
        models = list(dict.fromkeys(one.config.model.name for one in listed))
        names = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
        count = "1 training" if len(listed) == 1 else f"{len(listed)} trainings"
        about = {"device": device, "memory": memory, "ray": ray}
        job = Job("", "queued", f"{count} of {names}", time.time(), **about)
        return self._enqueue(job, None, text)

    def submit_move(
        self, run: Run, config: TrainConfig, device: str = ANY, memory: int | None = None
    ) -> Job:
        """Queue the move of a run's dictionary; config: of `move_config`. What was interrupted goes
        on where it stopped."""
        model, layers = config.model, ",".join(map(str, config.layers))
        title = f"{config.moved_from.in_words} moved to {model.name}, "
        title += layers_in_words(config.layers, config.site)
        where = ["--model", model.name, "--layer", layers, "--site", config.site]
        where += ["--revision", model.revision] if model.revision else []
        arguments = [*_directories([run]), *where, "--dtype", model.dtype]
        return self.enqueue("move", arguments, title, device=device, memory=memory)

    def submit_evaluation(self, runs: Sequence[Run], device: str = ANY) -> Job:
        """Queue an evaluation on held-out prompts; each result is kept with its run."""
        title = f"Evaluation of {_in_words(runs)}"
        return self.enqueue("evaluate", [*_directories(runs), "--save"], title, device=device)

    def submit_quick_evaluation(self, runs: Sequence[Run], device: str = ANY) -> Job:
        """Queue a quick run of evaluations, each kept with its run where that has no full one."""
        arguments = [*_directories(runs), "--save", "--quick"]
        title = f"Quick evaluation of {_in_words(runs)}"
        return self.enqueue("evaluate", arguments, title, device=device)

    def submit_probing(self, runs: Sequence[Run], device: str = ANY) -> Job:
        """Queue sparse probing of held-out prompts; each result is kept with its run."""
        title = f"Probing {_in_words(runs)}"
        return self.enqueue("probe", [*_directories(runs), "--save"], title, device=device)

    def submit_map(self, run: Run) -> Job:
        """Queue a map of a run's latents, which the CPU makes; it is kept with the run."""
        title = f"Map of {run.config.model.name}, {_layers_of([run])}"
        return self.enqueue("map", _directories([run]), title, device="cpu")

    def submit_scores(self, runs: Sequence[Run]) -> Job:
        """Queue the scores of runs' latents, which the CPU finds; each table is kept with its
        run."""
        title = f"Scores of {_in_words(runs)}"
        return self.enqueue("score", _directories(runs), title, device="cpu")

    def submit_comparison(
        self, runs: Sequence[Run], measures: Sequence[str], device: str = ANY
    ) -> Job:
        """Queue the comparison of every two runs by some measures; the result is kept."""
        models = sorted({run.config.model.name for run in runs})
        what = measures[0].replace("_", " ") if len(measures) == 1 else f"{len(measures)} measures"
        names = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
        title = f"Comparison of {names}, {len(runs)} layers: {what}"
        arguments = [*_directories(runs), "--measures", ",".join(measures), "--save"]
        return self.enqueue("measure", arguments, title, device=device)

    def submit_latent_comparison(self, a: Run, b: Run, device: str = ANY) -> Job:
        """Queue the comparison of the latents of two runs with the same sources; the result is
        kept."""
        names = [f"{run.config.model.name}, {_layers_of([run])}" for run in (a, b)]
        title = f"Same latents in {names[0]}, and {names[1]}"
        arguments = [*_directories([a, b]), "--save"]
        return self.enqueue("compare-latents", arguments, title, device=device)


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
