"""What is in a data folder, what of it can't be used and why, and what to mend.

Nothing is changed by looking, and nothing that is only unreadable is to be deleted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from itda_core.errors import ItdaError, StoreInUseError, StoreOutdatedError, first_line
from itda_core.files.disk_errors import why_unreadable
from itda_core.jobs.folder_mark import folder_mark
from itda_core.jobs.kept import is_of_folder, listed_jobs
from itda_core.leftovers import leftovers, leftovers_of_data
from itda_core.runs.checks import by_digests, check_run, foreign_files, seal_run
from itda_core.runs.comparisons import comparisons_folder, read_comparisons
from itda_core.runs.given_names import names_file, read_names
from itda_core.runs.interrupted import interrupted_trainings, lost_trainings
from itda_core.runs.labels import kept_labels, labels_file, read_labels_file
from itda_core.runs.latent_comparisons import latent_comparisons_folder, read_latent_comparisons
from itda_core.runs.run import Run, survey
from itda_core.sealed import DIGESTS_FILE, faults, is_sealed
from itda_core.store.database import FILE_NAME, check_name
from itda_core.store.look import Looked, look

_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    found: str
    """in words, with what to do where there is anything"""
    ok: bool = True
    """whether there is nothing to mend"""


def check_data(data: Path, runs: Path, deep: bool = False) -> Iterator[Finding]:
    """Look at a data folder and its folder of runs. deep: read every file and compare its digest,
    which takes as long as the disk takes."""
    listed, damaged = survey(runs)
    looked = _looked(data / FILE_NAME, deep)
    yield _database(looked, data / FILE_NAME, listed)
    yield Finding("runs", _counted(listed, damaged), not damaged)
    yield from (Finding("run", str(error), ok=False) for error in damaged)
    for run in listed:
        found = check_run(run, deep=True) if deep else by_digests(run.directory, only_sizes=True)
        yield from (Finding("run", str(error), ok=False) for error in found)
        yield from _foreign(run)
    yield _digests(listed)
    for part, check in (
        ("trainings", lambda: _trainings(runs)),
        ("jobs", lambda: _jobs(data)),
        ("labels", lambda: _labels(runs, looked)),
        ("names", lambda: _names(runs)),
        ("comparisons", lambda: _comparisons(runs)),
        ("leftovers", lambda: _leftovers(data, runs)),
    ):
        yield from _guarded(part, check)


def seal_all(runs: Path) -> Iterator[Finding]:
    """Give digests to all runs that have none, and to files that came without one. What is damaged
    is told and not sealed."""
    listed, damaged = survey(runs)
    yield from (Finding("run", str(error), ok=False) for error in damaged)
    for run in listed:
        try:
            if seal_run(run.directory):
                yield Finding("sealed", run.run_id)
        except ItdaError as error:
            yield Finding("run", str(error), ok=False)


def _guarded(part: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What one check finds; an error of it costs no other."""
    try:
        yield from check()
    except Exception as error:
        said = str(error) if isinstance(error, ItdaError) else first_line(error)
        yield Finding(part, f"could not be looked at ({said})", ok=False)


def _looked(path: Path, deep: bool) -> Looked | ItdaError | None:
    """What the database says of itself; None where there is none yet."""
    try:
        check_name(path)
        return look(path, deep) if path.exists() else None
    except ItdaError as error:
        return error


def _database(looked: Looked | ItdaError | None, path: Path, listed: Sequence[Run]) -> Finding:
    if looked is None:
        return Finding("database", f"{path} is not there yet: the explorer makes it when it opens")
    if isinstance(looked, StoreOutdatedError):
        return Finding("database", "of an earlier version: brought up to date when it is opened")
    if isinstance(looked, ItdaError):
        return Finding("database", str(looked), ok=isinstance(looked, StoreInUseError))
    new = [run.run_id for run in listed if run.run_id not in looked.run_ids]
    more = f"; {len(new):,} are taken in when the explorer opens: {_some(new)}" if new else ""
    return Finding("database", f"{len(looked.run_ids):,} runs, {looked.labels:,} labels{more}")


def _counted(listed: Sequence[Run], damaged: Sequence[ItdaError]) -> str:
    left = f", {len(damaged):,} that can't be used:" if damaged else ""
    return f"{len(listed):,} whole{left}"


def _foreign(run: Run) -> Iterator[Finding]:
    """What somebody put beside the files of a run."""
    if names := foreign_files(run.directory):
        told = f"not of a run, and left as found in {run.directory}: {_some(names)}"
        yield Finding("foreign", told)


def _digests(listed: Sequence[Run]) -> Finding:
    bare = [run.run_id for run in listed if not is_sealed(run.directory)]
    if not bare:
        return Finding("digests", f"of all {len(listed):,} runs")
    return Finding(
        "digests",
        f"{len(bare):,} of {len(listed):,} runs were written without: {_some(bare)}. Give them "
        "some: python -m itda_core doctor --seal",
    )


def _trainings(runs: Path) -> Iterator[Finding]:
    waiting = interrupted_trainings(runs)
    resume = ": python -m itda_core train --resume ID" if waiting else ""
    yield Finding("trainings", f"{len(waiting):,} to be resumed{resume} {_some(waiting)}".strip())
    for name, why in lost_trainings(runs).items():
        yield Finding("training", f"{runs / f'.{name}'} can't be resumed. {why}", ok=False)


def _jobs(data: Path) -> Iterator[Finding]:
    jobs, damaged = listed_jobs(data / "jobs")
    active = sum(job.is_active for job in jobs)
    yield Finding("jobs", f"{len(jobs):,}, {active:,} of them waiting or running", not damaged)
    mark = folder_mark(data / "jobs")
    elsewhere = sum(
        job.state == "queued" and not is_of_folder(job, data / "jobs", mark) for job in jobs
    )
    if elsewhere:
        where = "another folder, by another person or by an earlier version, or have changed since"
        yield Finding(
            "jobs", f"{elsewhere:,} were queued in {where}: they wait to be let in on Train"
        )
    yield from (Finding("job", str(error), ok=False) for error in damaged)


def _labels(runs: Path, looked: Looked | ItdaError | None) -> Iterator[Finding]:
    file = labels_file(runs)
    changes, bad = read_labels_file(file)
    kept = kept_labels(changes)
    yield Finding("labels", f"{len(kept):,} in {file}", not bad)
    for line in bad[:_NAMED]:
        yield Finding("labels", f"{line} can't be read: correct it; the others are there", ok=False)
    if len(bad) > _NAMED:
        yield Finding("labels", f"and {len(bad) - _NAMED:,} more lines", ok=False)
    if isinstance(looked, Looked) and not changes and looked.labels:
        yield Finding(
            "labels",
            f"{file} has none and the database {looked.labels:,}: they are written back when the "
            "explorer opens",
            ok=False,
        )


def _names(runs: Path) -> Iterator[Finding]:
    yield Finding("names", f"{len(read_names(names_file(runs))):,} given")


def _comparisons(runs: Path) -> Iterator[Finding]:
    table, failed = read_comparisons(comparisons_folder(runs))
    found, other = read_latent_comparisons(latent_comparisons_folder(runs))
    errors = [error for error in (failed, other) if error]
    counted = f"{len(table):,} values of layers, {len(found):,} comparisons of latents"
    yield Finding("comparisons", counted, not errors)
    yield from (Finding("comparison", str(error), ok=False) for error in errors)
    for folder in (comparisons_folder(runs), latent_comparisons_folder(runs)):
        if error := faults(folder, only_sizes=True).get(DIGESTS_FILE):
            remedy = "Delete it: the comparisons are whole without, and new ones get digests."
            said = why_unreadable(folder / DIGESTS_FILE, error, remedy)
            yield Finding("comparison", str(said), ok=False)


def _leftovers(data: Path, runs: Path) -> Iterator[Finding]:
    """What is in no one's way: what killed processes left, which the next start removes, and what
    rebuilds kept aside."""
    found = dict.fromkeys([*leftovers_of_data(data), *leftovers(runs, depth=2)])
    aside = [*data.glob(f"{FILE_NAME}.damaged*")]
    said = [f"{len(found):,} that the next start removes: {_some(map(str, found))}"] * bool(found)
    said += [f"{len(aside):,} kept aside: {_some(map(str, aside))}"] * bool(aside)
    yield Finding("leftovers", "; ".join(said) or "none")


def _some(names: Iterator[str] | Sequence[str] | dict) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
