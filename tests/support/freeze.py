"""Makes tests/frozen: what this version's code trains, prints and stores, for test_frozen.py.

    python -m tests.support.freeze NEW_FOLDER
    python -m tests.support.freeze --this-machine

Later versions have to give the same numbers and open the same files, so this is run again only
where a format or a method is meant to change, and then CHANGELOG.md says so. NEW_FOLDER gets
expected.json and a small data folder, in which a queue has trained and measured.

The coverage clusters activations, where one bit of rounding can change which token becomes an atom:
processors with AVX-512, with AVX2 and with neither gave FVUs up to 1.5 % apart. expected.json is
from one of the first kind. The second command keeps in chosen.json what this machine's arithmetic
gives, so that the tests can be exact here too; it is run with code that gives expected.json there.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

MODEL = "tiny-6x128-0"
LAYER = 2
METHODS = {
    "coverage-orthogonal": {},
    "coverage-refit": {"pursuit": "refit"},
    "coverage-matching": {"pursuit": "matching"},
    "coverage-zero": {"offset": "zero"},
    "coverage-mean-l0": {"budget": "mean"},
    "threshold-matching": {"selection": "threshold"},
    "threshold-refit": {"selection": "threshold", "pursuit": "refit"},
    "threshold-orthogonal": {"selection": "threshold", "pursuit": "orthogonal"},
}
"""Each selection with each pursuit, offset and budget that it allows."""
_SIZES = {
    "--max-tokens": 1_500,
    "--context-length": 64,
    "--max-atoms": 160,
    "--l0": 8,
    "--explored-tokens": 300,
}


def train_arguments(method: str) -> list[str]:
    """The command that trains a method's dictionary, without the folder of runs."""
    options = {"--model": MODEL, "--dtype": "float32", "--layers": LAYER, **_SIZES}
    options |= {f"--{name}": value for name, value in METHODS[method].items()}
    return ["train", *(str(part) for option in options.items() for part in option)]


def run_summary(run) -> dict:
    """What a run says, so short that it can be kept: discrete parts as digests, others as sums
    that any change would change."""
    import pandas as pd

    dictionary = run.dictionary()
    codes = pd.read_parquet(run.directory / "codes.parquet")
    sources = pd.read_parquet(run.directory / "sources.parquet")
    names = ["latent", "prompt_id", "position", "start", "end", "token", "word"]
    direction = torch.linspace(-1, 1, dictionary.d_model)
    per_token = codes.groupby(["prompt_id", "position"], sort=True, observed=True)["coefficient"]
    return {
        "run_id": run.run_id,
        "training_id": run.about["training_id"],
        "sources": _digest(sources[names].to_csv(index=False)),
        "codes": _digest(codes[["latent", "prompt_id", "position", "step"]].to_csv(index=False)),
        "prompts": _digest(json.dumps([list(dictionary.prompt_ids), dictionary.reading])),
        "tokenizer": dictionary.tokenizer[:16],  # what it was named by when these were made
        "activations_id": run.activations_id,
        "seed_atoms": dictionary.n_seed_atoms,
        "atoms": (dictionary.atoms @ direction).tolist(),
        "offset": float(dictionary.offset @ direction),
        "coefficients": per_token.sum().tolist(),
        "metrics": {name: value for name, value in run.metrics.items() if name != "seconds"},
    }


def arithmetic() -> str:
    """A name for how this machine rounds: products, sums and exponentials of float32 in the last
    bit. Processors with other vector units give another one."""
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(96, 128, generator=draw, dtype=torch.float32)
    b = torch.randn(128, 160, generator=draw, dtype=torch.float32)
    parts = a @ b, torch.nn.functional.layer_norm(a, (128,)), a.softmax(1), a.sum(1)
    return _digest("".join(part.numpy().tobytes().hex() for part in parts))


def chosen(summary: dict) -> dict:
    """Of a run's summary what hangs on the last bit, where the coverage chooses."""
    return {name: summary[name] for name in ("sources", "codes")} | {
        "fvu": summary["metrics"]["fvu"]
    }


def add_arithmetic() -> None:
    """Keep what the coverage chooses with this machine's arithmetic beside the frozen results."""
    import tempfile

    from itda_core.cli.main import main as command
    from itda_core.runs.run import list_runs

    file = Path(__file__).resolve().parents[1] / "frozen" / "chosen.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known[arithmetic()] = found = {}
    for method in METHODS:
        if method.startswith("coverage"):
            with tempfile.TemporaryDirectory() as folder:
                command([*train_arguments(method), "--runs", folder, "--no-scores"])
                [run] = list_runs(Path(folder))
                found[method] = chosen(run_summary(run))
    file.write_text(json.dumps(known, indent=1) + "\n")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def without_times(told):
    """JSON without what no two runs share: when, how long, and where."""
    if isinstance(told, dict):
        left_out = {"seconds", "directory", "created"}
        return {name: without_times(one) for name, one in told.items() if name not in left_out}
    return [without_times(one) for one in told] if isinstance(told, list) else told


def main(folder: Path) -> None:
    from itda_core.jobs.queue import JobQueue
    from itda_core.runs.labels import Label, labels_file
    from itda_core.runs.run import list_runs
    from itda_core.store.store import FILE_NAME, Store
    from tests.support.labels import add_labels

    data = folder / "data"
    data.mkdir(parents=True)
    os.environ["ITDA_DATA"] = str(data)
    scratch = folder / "scratch"
    printed = {}
    for method in METHODS:
        printed[method] = _command(*train_arguments(method), "--runs", scratch)["runs"][0]
    runs = {run.run_id: run for run in list_runs(scratch)}
    ids = [printed[method]["run_id"] for method in ("coverage-orthogonal", "threshold-matching")]
    for name in ids:  # what the explorer shows is small: two dictionaries of one layer
        (data / "runs").mkdir(exist_ok=True)
        (scratch / name).rename(data / "runs" / name)
    expected = {
        "runs": {
            method: run_summary(_moved(runs[told["run_id"]], data))
            for method, told in printed.items()
        },
        "train": without_times(printed),
        "evaluate": without_times(_command("evaluate", ids[0], "--max-tokens", 600, "--save")),
        "similarity": without_times(_command("similarity", *ids)),
        "similarity_by_word": without_times(
            _command("similarity", *ids, "--key", "word", "--with-seeds")
        ),
    }
    _command("probe", ids[0], "--max-tokens", 12_000, "--save")
    _command("map", ids[0], "--method", "svd")
    _work_off(JobQueue(data / "jobs", data / "runs"), list_runs(data / "runs"))
    expected["reproduce"] = _reproduced(data / "runs" / ids[0])
    source = runs_source(data, ids[0])
    add_labels(
        labels_file(data / "runs"),
        [
            Label(
                ids[0], 3, *source, label="a label", note="a note", bookmarked=True, lists=("kept",)
            )
        ],
    )
    store = Store(data / FILE_NAME)
    store.import_new(data / "runs")
    expected["tables"] = {name: len(table) for name, table in store.runs.contents().items()}
    store.close()
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")
    subprocess.run(["rm", "-r", str(scratch)], check=True)


def runs_source(data: Path, run_id: str) -> tuple[str, int]:
    """Prompt and position of latent 3 of a run."""
    import pandas as pd

    source = pd.read_parquet(data / "runs" / run_id / "sources.parquet").iloc[3]
    return str(source["prompt_id"]), int(source["position"])


def _moved(run, data: Path):
    from itda_core.runs.run import read_run

    there = data / "runs" / run.run_id
    return read_run(there) if there.exists() else run


def _reproduced(run: Path) -> dict[str, str]:
    """The lines that the pages give out for a run, whose folder they call RUN, and their output."""
    from itda_core.analysis.what_if import Edit
    from pages.components.reproduce import latent_lines, what_if_lines

    edits = (Edit(3, 0.0), Edit(4, 2.0, 7))
    text = "The Senate will ratify the treaty with Spain."
    lines = latent_lines("RUN", 3) + what_if_lines("RUN", text, 4, edits, 3, "activation")
    return {"lines": lines, "prints": printed_by(lines, run)}


def printed_by(lines: str, run: Path) -> str:
    """What such lines print of a run, in a process of their own."""
    code = lines.replace("'RUN'", repr(str(run)))
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _work_off(queue, runs) -> None:
    """Let a queue train what is there already, and compare the layers."""
    from itda_core.jobs.submissions import submit_comparison, submit_evaluation

    queue.submit(runs[0].config)
    submit_comparison(queue, runs, ["cka", "procrustes"])
    submit_evaluation(queue, runs[1:])
    while any(job.is_active for job in queue.jobs()):
        time.sleep(0.2)
    queue.close()


def _command(*arguments) -> dict:
    command = [sys.executable, "-m", "itda_core", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    if sys.argv[1] == "--this-machine":
        add_arithmetic()
    else:
        main(Path(sys.argv[1]).absolute())
