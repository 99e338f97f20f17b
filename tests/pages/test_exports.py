"""Everything that the pages export comes back from every format as it was."""

import functools
import io
import json
from csv import reader as csv_rows

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load
from streamlit.delta_generator import DeltaGenerator

from itda_core.analysis.latent_map import map_latents, save_map
from itda_core.runs.labels import Label
from itda_core.runs.results import read_evaluation
from itda_core.runs.run import list_runs
from pages.components.downloads import as_csv, as_json, as_parquet
from pages.components.explorer import explorer
from tests.support.app import assert_no_failure, newest, open_page
from tests.support.labels import add_labels

TEXT = "The Senate will ratify the treaty."
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@pytest.fixture
def files(monkeypatch):
    """What every button of a page gives, by the file's name."""
    offered = {}

    def button(_self, _label, data, file_name=None, **_options):
        offered[file_name] = data
        return False

    monkeypatch.setattr(DeltaGenerator, "download_button", button)
    monkeypatch.setattr("streamlit.download_button", functools.partial(button, None))
    return offered


def read_back(files, stem):
    """The table of each format, and its settings."""
    parquet = pq.read_table(io.BytesIO(files[f"{stem}.parquet"]()))
    content = json.loads(files[f"{stem}.json"]())
    csv = files[f"{stem}.csv"]()
    settings = json.loads(files[f"{stem}.settings.json"]())
    assert json.loads(parquet.schema.metadata[b"about"]) == content["about"] == settings
    return parquet.to_pandas(), content["rows"], csv, settings


def assert_equal(table, rows, csv):
    """The rows of JSON and CSV hold what Parquet holds, in every column and to the last digit."""
    assert len(table) == len(rows)
    assert len(table)
    texts = pd.read_csv(io.BytesIO(csv), dtype=str, keep_default_na=False)
    assert list(texts) == list(table) == list(rows[0])
    for name in table:
        for value, plain, text in zip(
            table[name], (r[name] for r in rows), texts[name], strict=True
        ):
            if isinstance(value, np.ndarray):
                assert plain == json.loads(text) == value.tolist()
            elif value is None or value is pd.NA or value != value:
                assert (plain, text) == (None, "")
            elif isinstance(value, str):
                assert plain == value
                assert text == (f"'{value}" if value.startswith(FORMULA) else value)
            elif isinstance(value, bool | np.bool_):
                assert (plain, text) == (bool(value), str(bool(value)))
            else:
                kind = table[name].dtype.type
                assert kind(plain) == kind(text) == kind(value)


def test_everything_that_is_exported_comes_back_equal(evaluated_data, files):
    own_data = evaluated_data
    run = newest(own_data, 2)
    source = run.dictionary().sources.loc[5]
    where = run.run_id, 5, source["prompt_id"], int(source["position"])
    written = Label(*where, "NA, “war”", "two\nlines; =1+1", True, ("war, peace", "null"))
    add_labels(own_data / "labels.jsonl", [written])
    save_map(run, map_latents(run.dictionary(), "svd"), "svd")
    assert_no_failure(open_page("latents", run=run.run_id, latent="5", kind="all", view="map"))
    for view in ("terms", "what-if"):
        assert_no_failure(open_page("decompose", run=run.run_id, text=TEXT, view=view))
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", tokens="5")
    app.button(key="write").click().run()
    assert_no_failure(app)
    assert_no_failure(open_page("similarity", row="1", column="2"))
    assert_no_failure(open_page("evaluate"))
    everything = json.loads(files["evaluations.json"]())
    assert everything == [read_evaluation(run) for run in list_runs(own_data / "runs")]
    rows = [row for one in everything for row in one["by_l0"]]
    exported = json.loads(files["evaluations-by-l0.json"]())["rows"]
    assert [row["fvu"] for row in exported] == [row["fvu"] for row in rows]
    stems = {name.removesuffix(".parquet") for name in files if name.endswith(".parquet")}
    kinds = ("latents", "uses", "map", "decomposition", "what-if", "steered", "similarity-jaccard",
             "similarity-sources", "evaluations-by-l0")  # fmt: skip
    assert not [kind for kind in kinds if not any(stem.startswith(kind) for stem in stems)]
    atom = files[f"atom-{run.run_id}-5.safetensors"]()
    [vector] = load(atom).values()
    torch.testing.assert_close(vector.flatten(), run.dictionary().atoms[5].cpu())
    for stem in stems:
        table, rows, csv, _ = read_back(files, stem)
        assert_equal(table, rows, csv)


def test_the_list_of_latents_holds_what_was_written_and_its_filters_stay_settings(own_data, files):
    run = newest(own_data, 2)
    source = run.dictionary().sources.loc[5]
    where = run.run_id, 5, source["prompt_id"], int(source["position"])
    add_labels(own_data / "labels.jsonl", [Label(*where, "war", "note", True, ("a, b", "c"))])
    open_page("latents", run=run.run_id, kind="all")
    table, rows, csv, settings = read_back(files, f"latents-{run.run_id}")
    found = pd.read_csv(io.BytesIO(csv)).set_index("latent")
    assert found.index[found["bookmarked"]].tolist() == [5]
    assert json.loads(found.loc[5, "lists"]) == ["a, b", "c"]
    [row] = [row for row in rows if row["latent"] == 5]
    assert (row["label"], row["note"], row["bookmarked"]) == ("war", "note", True)
    assert row["lists"] == ["a, b", "c"]
    assert (row["prompt_id"], row["position"]) == (source["prompt_id"], source["position"])
    prompt = explorer().store.runs.prompt_text(row["prompt_id"])
    assert row["source"] == prompt[max(0, row["start"] - 40) : row["end"] + 40]
    assert (settings["bookmarked"], settings["kind"]) == (False, "all")
    assert len(table) == run.metrics["atoms"]


@pytest.mark.parametrize("begin", FORMULA)
def test_no_text_of_a_csv_is_a_formula_and_numbers_stay_numbers(begin):
    text = f"{begin}HYPERLINK(1)"
    table = pd.DataFrame({text: [text, "1 - 1"], "n": [-1, 2], "x": [-0.5, 1.0]})
    table["kind"] = pd.Categorical([text, "b"])
    about = {"text": text}
    made = as_csv(table).decode()
    with io.StringIO(made, newline="") as file:
        rows = list(csv_rows(file))
    assert rows == [
        [f"'{text}", "n", "x", "kind"], [f"'{text}", "-1", "-0.5", f"'{text}"],
        ["1 - 1", "2", "1.0", "b"],
    ]  # fmt: skip
    with io.StringIO(as_csv(table, for_spreadsheets=False).decode(), newline="") as file:
        assert next(csv_rows(file))[0] == text
    assert json.loads(as_json(table, about))["rows"][0][text] == text
    found = pq.read_table(io.BytesIO(as_parquet(table, about))).to_pandas()
    assert found[text].tolist() == table[text].tolist()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_no_text_of_a_csv_has_a_formula_in_it_by_whatever_cells_are_parted(delimiter):
    """A spreadsheet parts them as its country does, whatever the file is called; RFC 4180 of the
    other separators is what it does then."""
    around = [
        "{}1+1",
        "a;{}1+1;b",
        "a\n{}1+1;b",
        "a\r\n{}1+1;",
        "a\t{}1+1\tb",
        "\n{}1+1",
        '";{}1;"',
        'a;"{}1+1;b',
        'a\t"""{}1+1',
    ]
    texts = [text.format(sign) for text in around for sign in "=+-@＝＋－＠"]
    table = pd.DataFrame({"text": texts, "list": [["x"]] * len(texts), "again": texts, "end": "z"})
    made = as_csv(table).decode()
    with io.StringIO(made, newline="") as file:
        cells = [cell for row in csv_rows(file, delimiter=delimiter) for cell in row]
    assert [cell for cell in cells if cell.lstrip("\t\r\n")[:1] in tuple("=+-@＝＋－＠")] == []
    if delimiter == ",":
        assert [cell.replace("'", "") for cell in cells[4::4]] == texts


def test_numbers_keep_their_digits_and_columns_their_names():
    table = pd.DataFrame(
        {
            "key": ["NA", "", "a\r\nb\rc", '"x"'],
            "small": np.array([1e-12, 0.1, np.nan, -0.0], np.float32),
            "large": np.array([2**62 + 1, -1, 0, 5]),
            "sum": [0.1 + 0.2, 1e-300, 1e300, np.nan],
            "some": pd.array([1, None, 3, 4], dtype="Int64"),
        }
    )
    about = {"key": "token", "among": (1, 2), "n": np.int64(3)}
    found = pq.read_table(io.BytesIO(as_parquet(table, about))).to_pandas()
    content = json.loads(as_json(table, about))
    assert content["about"] == {"key": "token", "among": [1, 2], "n": 3}
    assert_equal(found, content["rows"], as_csv(table))
    pd.testing.assert_series_equal(found["sum"], table["sum"])
    assert [row["sum"] for row in content["rows"]][:3] == table["sum"].tolist()[:3]
