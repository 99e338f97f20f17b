"""A store with many labels of sources that many dictionaries share, without any codes."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from itda_core.runs.labels import Change, Label, kept_labels
from itda_core.store.label_import import insert_labels
from itda_core.store.latent_search import LatentSearch
from itda_core.store.store import Store

_SOURCES = 20_000
"""Tokens that the dictionaries draw their sources from, so that each is in several of them"""
_OF_A_PROMPT = 4
_MODELS = 4
_RUN = "model1-00000005-L05"


def labelled_store(labels: int, runs: int, latents: int) -> tuple[Store, str]:
    """A store in memory of so many runs with so many latents each, which have so many labels
    together, and the run that is asked about."""
    store, draw = Store(), np.random.default_rng(0)
    changes: list[Change] = []
    with store.database.transaction() as cursor:
        _insert(cursor, "prompts", _prompts())
        for run in range(runs):
            run_id = f"model{run % _MODELS}-{run:08x}-L{run:02d}"
            cursor.execute(
                """INSERT INTO runs BY NAME SELECT ?::INTEGER AS run, ? AS run_id, run_id AS root,
                ? AS model, 'itda' AS kind, ?::INTEGER AS layer, 'resid_post' AS site,
                100_000 AS explored_tokens""",
                [run, run_id, f"model{run % _MODELS}", run],
            )
            sources = draw.choice(_SOURCES, latents, replace=False)
            _insert(cursor, "latents", _latents(run, sources))
            changes += _labels(run_id, sources, labels // runs, draw)
        insert_labels(cursor, kept_labels(changes))
    return store, _RUN


def label_questions(store: Store, run_id: str) -> dict[str, Callable]:
    """What the pages ask about the labels of a dictionary's latents."""
    [latent, *_] = store.labels.shown(run_id)["latent"].tolist()
    labelled = LatentSearch(labelled=True)
    return {
        "the list, of those with a label": lambda: store.latents.numbers(run_id, labelled),
        "15 latents of it": lambda: store.latents.table(run_id, list(range(15))),
        "a search in labels": lambda: store.latents.numbers(run_id, LatentSearch("1", "label")),
        "what all say of a latent": lambda: store.labels.of_latent(run_id, latent),
        "the names of all lists": store.latents.list_names,
        "all labels, for Decompose": lambda: store.labels.shown(run_id),
        "counts of all runs, for Overview": store.labels.counts,
    }


def list_page(questions: dict[str, Callable]) -> None:
    """What the Latents page asks of the store about its list and the latent beside it. questions:
    of `label_questions`."""
    for name in ("the list, of those with a label", "15 latents of it", "what all say of a latent",
                 "the names of all lists"):  # fmt: skip
        questions[name]()


def _insert(cursor, table: str, rows: pa.Table) -> None:
    cursor.register("made", rows)
    cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM made")
    cursor.unregister("made")


def _prompts() -> pa.Table:
    numbers = range(_SOURCES // _OF_A_PROMPT)
    texts = [f"{number} {'the quick brown fox ' * 30}" for number in numbers]
    ids = [f"{number:016x}" for number in numbers]
    return pa.table({"prompt": list(numbers), "prompt_id": ids, "text": texts, "title": ids})


def _latents(run: int, sources: np.ndarray) -> pa.Table:
    positions, count = 3 + 7 * (sources % _OF_A_PROMPT), len(sources)
    return pa.table(
        {
            "run": [run] * count,
            "latent": np.arange(count),
            "prompt": sources // _OF_A_PROMPT,
            "position": positions,
            "start": 4 * positions,
            "end": 4 * positions + 4,
            "token": ["word"] * count,
            "tokens": [5] * count,
            "strongest": [1.0] * count,
            "closes": [True] * count,
            "origin": np.arange(count),
        }
    )


def _labels(run_id: str, sources: np.ndarray, count: int, draw) -> Iterator[Change]:
    for latent in draw.choice(len(sources), count, replace=False).tolist():
        prompt, place = divmod(int(sources[latent]), _OF_A_PROMPT)
        written = {"label": f"label {latent}", "note": "a note", "lists": (f"list {latent % 9}",)}
        yield Change(
            Label(run_id, latent, f"{prompt:016x}", 3 + 7 * place, **written, changed="2026-01-01")
        )
