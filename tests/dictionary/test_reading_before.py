"""What files of earlier versions do not say of how texts were read."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from itda_core.dictionary.dictionary import Dictionary
from itda_core.files.json_files import write_json
from tests.support.made_sources import P, made

OLD, NEW = "0123456789abcdef", "0123456789abcdef-0000000000000000"
TEXTS = ["one two three four", "  five six", "seven"]


def run_folder(folder, spans, tokenizer=OLD):
    """A run directory of which only what is looked at is there; spans: of each text's tokens."""
    made([(P, 1)], tokenizer=tokenizer, reading="3 tokens, with the first").save(folder)
    starts = [np.array([first for first, _ in of]) for of in spans]
    ends = [np.array([last for _, last in of]) for of in spans]
    table = pd.DataFrame({"text": TEXTS, "starts": starts, "ends": ends})
    table.to_parquet(folder / "prompts.parquet")
    write_json(folder / "config.json", {"model_digest": "the model"})
    return Dictionary.load(folder)


FIRST = [[(0, 3), (3, 7), (7, 13)], [(2, 6), (6, 10)], [(0, 5)]]
LAST = [[(3, 7), (7, 13), (13, 18)], [(2, 6), (6, 10)], [(0, 5)]]
MARKED = [[(0, 0), (13, 18), (0, 0)], [(0, 0), (6, 10), (0, 0)], [(0, 0), (0, 5), (0, 0)]]


@pytest.mark.parametrize(
    ("spans", "tokenizer", "expected"),
    [(FIRST, OLD, ""), (LAST, OLD, "the last "), (MARKED, OLD, "the last "), (LAST, NEW, "")],
)
def test_old_runs_that_read_the_ends_of_prompts_say_so(tmp_path, spans, tokenizer, expected):
    """They would be compared with runs that read the beginnings."""
    found = run_folder(tmp_path, spans, tokenizer)
    assert found.reading == f"{expected}3 tokens, with the first"


def test_an_old_file_takes_its_models_digest_from_its_run_and_keeps_it(tmp_path):
    found = run_folder(tmp_path / "run", FIRST)
    assert found.model_digest == "the model"
    alone = dataclasses.replace(found, tokenizer=NEW).save(tmp_path / "alone")
    assert Dictionary.load(alone).model_digest == "the model"
    bare = made([(P, 1)], tokenizer=OLD).save(tmp_path / "bare")
    assert Dictionary.load(bare).model_digest == ""
