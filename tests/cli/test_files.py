"""How a corpus' file is read, from the command line to the run and back."""

import json

import pandas as pd
import pytest

from itda_core.cli.console import corpus_spec
from itda_core.cli.parser import parse
from itda_core.config import CorpusSpec
from itda_core.training.as_said import as_options
from tests.support.command_line import one_json

OPTIONS = ["--max-tokens", 600, "--max-atoms", 32, "--l0", 4, "--dtype", "float32", "--json"]


@pytest.fixture
def trains(cli, tmp_path, tiny_model_folder):
    def run(path, *options):
        told = one_json(
            cli("train", "--model", tiny_model_folder, "--layers", 1, "--corpus", path,
                "--runs", tmp_path / "runs", *OPTIONS, *options)
        )  # fmt: skip
        return tmp_path / "runs" / told["runs"][0]["run_id"]

    return run


def corpus_of(run):
    return json.loads((run / "config.json").read_text())["config"]["corpus"]


def test_a_run_keeps_how_its_file_was_read_and_is_measured_on_the_same_texts(
    cli, trains, tmp_path, tiny_texts
):
    table = pd.DataFrame({"id": range(len(tiny_texts)), "text": tiny_texts})
    table.to_csv(tmp_path / "a.csv", sep=";", index=False, encoding="utf-16")
    run = trains(tmp_path / "a.csv", "--encoding", "UTF16")
    corpus = corpus_of(run)
    assert (corpus["separator"], corpus["encoding"]) == (";", "utf-16")
    assert "quote" not in corpus
    assert set(pd.read_parquet(run / "prompts.parquet")["text"]) <= set(tiny_texts)
    assert trains(tmp_path / "a.csv", "--encoding", "utf-16") == run  # it is there already
    measured = one_json(cli("evaluate", run, "--max-tokens", 100, "--json"))
    assert measured["runs"][0]["run_id"] == run.name
    (tmp_path / "config.json").write_text(
        json.dumps(json.loads((run / "config.json").read_text())["config"])
    )
    again = cli(
        "train", "--config", tmp_path / "config.json", "--runs", tmp_path / "again", "--json"
    )
    assert one_json(again)["runs"][0]["run_id"] == run.name


def test_what_is_said_is_taken(trains, tmp_path, tiny_texts):
    lines = [text.replace("\t", " ").replace("\n", " ") for text in tiny_texts]
    lines = [f"{number}\t{line}" for number, line in enumerate(lines)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    said = ["--separator", "tab", "--quote", "none", "--header", "no", "--column", "column 2"]
    corpus = corpus_of(trains(tmp_path / "a.csv", *said))
    assert (corpus["separator"], corpus["quote"], corpus["header"]) == ("\t", "", False)


@pytest.mark.parametrize(
    "corpus",
    [
        CorpusSpec("sotu"),
        CorpusSpec("-a b.csv", "-x", "\t", "", False, "cp1252"),
        CorpusSpec("a=b.csv", " text", "-", "'", True),
        CorpusSpec("a.txt", encoding="utf-16"),
    ],
)
def test_a_corpus_as_options_is_read_by_the_command_as_the_same(corpus):
    assert corpus_spec(parse(["compare-latents", "a", "b", *as_options(corpus)])) == corpus


@pytest.mark.parametrize(
    ("option", "value"), [("--separator", "ab"), ("--quote", "xy"), ("--encoding", "klingon")]
)
def test_a_way_of_reading_that_there_is_not_ends_with_a_sentence(cli, option, value):
    code, out, err = cli("train", "--layers", 1, option, value)
    assert (code, out) == (2, "")
    assert option.strip("-") in err
    assert repr(value) in err


def test_rows_that_are_left_out_and_texts_that_are_cut_are_said_once(
    cli, tmp_path, tiny_model_folder, tiny_texts
):
    rows = [f'{number},"{text}"' for number, text in enumerate(tiny_texts) if '"' not in text]
    rows[2:2] = ["1,2,3", "4"]  # lines 4 and 5 of the file
    (tmp_path / "ragged.csv").write_text("\n".join(["id,text", *rows]) + "\n")
    trained = ["train", "--model", tiny_model_folder, "--layers", 1, "--runs", tmp_path / "runs"]
    trained += ["--corpus", tmp_path / "ragged.csv", "--context-length", 4, *OPTIONS]
    said = "2 rows of ragged.csv were left out: line 4 has 3 fields, the header 2; line 5 has 1"
    code, out, err = cli(*trained)
    assert (code, err.count(said)) == (0, 1)
    run = json.loads(out)["runs"][0]["directory"]
    cut = pd.read_json(f"{run}/metrics.json", typ="series")["skipped"]
    count = cut["prompts cut to the context length"]
    assert err.count(f"{count:,} prompts are longer than the context length, 4 tokens") == 1
    assert cli(*trained)[2].count(said) == 1  # it is there already
    measured = ["evaluate", run, "--corpus", tmp_path / "ragged.csv", "--max-tokens", 50, "--json"]
    code, _, err = cli(*measured)
    assert (code, err.count(said)) == (0, 1)


def test_a_text_that_is_cut_is_said_by_decompose(cli, runs_folder, ids):
    asked = ["decompose", ids[0], "--runs", runs_folder, "--json", "--text"]
    code, out, err = cli(*asked, "the treaty " * 2_000)
    assert (code, json.loads(out)["cut"]) == (0, True)
    assert "is left out" in err
    code, out, err = cli(*asked, "the treaty with Spain")
    assert "cut" not in json.loads(out)
    assert "left out" not in err


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_an_encoding_that_does_not_fit_ends_with_a_sentence(cli, tmp_path, tiny_model_folder, name):
    (tmp_path / name).write_bytes('text\n{"text": "Un café."}\n'.encode("latin-1"))
    asked = ["train", "--model", tiny_model_folder, "--layers", 1, "--runs", tmp_path / "runs"]
    code, out, err = cli(*asked, "--corpus", tmp_path / name, "--encoding", "utf-16")
    assert (code, out) == (2, "")
    assert f"{name} is not UTF-16 text" in err
    assert "should not happen" not in err
