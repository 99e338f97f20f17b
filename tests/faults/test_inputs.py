"""What a bad file costs that others lie beside: it is read, or refused in a sentence, and they are
read as before.

Files of runs and of jobs are damaged by Hypothesis; what is read alone is in `test_many_inputs`.
"""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itda_core.analysis.latent_map import read_map
from itda_core.jobs.queue import JobQueue
from itda_core.runs.near_misses import near_misses
from itda_core.runs.results import read_evaluation, read_probing
from itda_core.runs.run import list_runs, survey
from itda_core.store.database import Database
from itda_core.store.index import Index
from tests.support.many_inputs import refused_or_read
from tests.support.odd_values import JOB, ODD, PROGRESS

N_INPUTS = int(os.environ.get("ITDA_FAULT_INPUTS", 6))
"""of each kind"""
fuzzed = settings(
    max_examples=N_INPUTS,
    deadline=None,
    database=None,
    derandomize="ITDA_FAULT_INPUTS" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
MAX_CHANGES = 4


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """A file's bytes with some of them changed, cut or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, MAX_CHANGES))):
        # Headers say what the rest is, so that half of the changes are made there.
        edge = draw(st.sampled_from([min(len(data), 256), len(data)]))
        place = draw(st.integers(0, max(0, edge - 1)))
        match draw(st.sampled_from(["flip", "cut", "put in", "repeat"])):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[place:]
            case "put in":
                data[place:place] = draw(st.binary(max_size=40))
            case "repeat":
                data[place:place] = data[place : place + draw(st.integers(1, 5_000))]
    return bytes(data)


@st.composite
def odd(draw, said):
    """What JSON says, with an odd value in one field at any depth, or without it."""
    said = copy.deepcopy(said)
    at = said
    while True:
        keys = [*at] if isinstance(at, dict) else range(len(at))
        key = draw(st.sampled_from([*keys]))
        if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        if draw(st.integers(0, 5)) == 0:
            del at[key]
        else:
            at[key] = draw(st.sampled_from(ODD))
        return said


def as_json(said) -> bytes:
    return json.dumps(said).encode("utf-8", "surrogatepass")


def run_of(data: Path):
    return list_runs(data / "runs")[0]


def everything_of_runs(data: Path, spoiled: Path) -> None:
    """All that is read of a folder of runs; of those that are whole nothing may be missing."""
    found, _ = survey(data / "runs")
    whole = {path.name for path in (data / "runs").iterdir()} - {spoiled.name}
    database = Database()
    try:
        refused_or_read(lambda: Index(database).import_new(data / "runs"))
        assert whole <= set(database.query("SELECT run_id FROM runs")["run_id"])
    finally:
        database.close()
    for run in found:
        for read in (read_evaluation, read_probing, read_map, lambda run: near_misses(run, 0)):
            refused_or_read(lambda read=read, run=run: read(run))
        refused_or_read(run.dictionary)


FILES_OF_A_RUN = [
    "config.json", "metrics.json", "dictionary.safetensors", "sources.parquet", "codes.parquet",
    "prompts.parquet", "nearly.parquet", "map.parquet", "progress.jsonl", "evaluation.json",
    "probing.json",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES_OF_A_RUN)
def test_a_damaged_file_of_a_run(data, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("runs") / "data"
    shutil.copytree(data, folder)
    file = run_of(folder).directory / name
    content = file.read_bytes()

    @fuzzed
    @given(damaged(content))
    def of_bytes(bad):
        file.write_bytes(bad)
        everything_of_runs(folder, file.parent)

    of_bytes()
    file.write_bytes(content)
    assert len(survey(folder / "runs")[0]) == len(list_runs(data / "runs"))


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "evaluation.json"])
def test_an_odd_value_in_a_run(data, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("runs") / "data"
    shutil.copytree(data, folder)
    file = run_of(folder).directory / name

    @fuzzed
    @given(odd(json.loads(file.read_bytes())))
    def of_values(said):
        file.write_bytes(as_json(said))
        everything_of_runs(folder, file.parent)

    of_values()


def test_jobs(tmp_path):
    folder = tmp_path / "jobs" / "00001"
    folder.mkdir(parents=True)

    @fuzzed
    @given(
        st.one_of(odd(JOB).map(as_json), damaged(as_json(JOB))),
        damaged(PROGRESS),
        st.one_of(odd({"pid": 4}).map(as_json), damaged(b'{"pid": 4}')),
    )
    def of_jobs(bad, said, claim):
        (folder / "job.json").write_bytes(bad)
        for name in ("log.txt", "list.toml"):
            (folder / name).write_bytes(said)
        (folder / "claim.json").write_bytes(claim)
        (folder / "progress.jsonl").write_bytes(said)
        queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
        try:
            for one in queue.jobs():
                queue.progress(one), queue.log(one), queue.configs(one), queue.waits_for(one)
        finally:
            queue.close()

    of_jobs()
