"""Exports of a run, and the commands around them."""

import io
import json
import shutil
import zipfile

import pandas as pd
import pytest

from itda_core.errors import InputError
from itda_core.exchange import hub as hub_module
from itda_core.exchange.export import FORMATS, export, export_files, export_zip
from itda_core.exchange.saelens import read_saelens
from itda_core.runs.run import list_runs, read_run
from tests.support.command_line import one_json, table
from tests.support.fake_hub import NAME, FakeHub
from tests.support.foreign import write_saelens
from tests.support.trained_runs import assert_same_runs


@pytest.fixture(scope="module")
def run(runs_folder):
    return list_runs(runs_folder)[1]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_is_a_new_folder_with_all_its_files(run, tmp_path, format):
    done = export(run, tmp_path / "out", format)
    found = {str(path.relative_to(done.folder)) for path in done.folder.rglob("*.*")}
    assert set(done.files) <= found
    assert done.note.endswith(".")
    for name, content in export_files(run, format).items():
        assert (done.folder / name).stat().st_size == len(content)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_zip_holds_the_same_files_below_one_folder(run, format):
    with zipfile.ZipFile(io.BytesIO(export_zip(run, format))) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        assert len({name.split("/")[0] for name in names}) == 1
        assert {name.split("/")[-1] for name in names} == {
            name.split("/")[-1] for name in export_files(run, format)
        }


def test_an_exported_run_is_the_run(run, tmp_path):
    export(run, tmp_path / "out", "run")
    export(run, tmp_path / "again", "run")
    assert read_run(tmp_path / "out" / run.run_id).metrics == run.metrics
    assert_same_runs(tmp_path / "out", tmp_path / "again")


def test_a_saelens_folder_says_how_texts_were_read(run, tmp_path):
    folder = export(run, tmp_path / "out", "saelens").folder
    metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
    assert metadata["context_size"] == run.config.context_length
    assert metadata["prepend_bos"] is False  # the tiny tokenizer puts nothing before a text


def test_a_saelens_folder_says_that_texts_begin_with_a_mark(run, tmp_path):
    """As those of a tokenizer do that puts a token before each text."""
    marked = tmp_path / run.run_id
    shutil.copytree(run.directory, marked)
    prompts = pd.read_parquet(marked / "prompts.parquet")
    for column in ("starts", "ends"):
        prompts[column] = [[0, *spans] for spans in prompts[column]]
    prompts.to_parquet(marked / "prompts.parquet")
    files = export_files(read_run(marked), "saelens")
    assert json.loads(files["cfg.json"])["metadata"]["prepend_bos"] is True


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(InputError, match="there already"):
            export(run, tmp_path / name, "saelens")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    (tmp_path / "empty").mkdir()
    assert export(run, tmp_path / "empty", "saelens").folder == tmp_path / "empty"


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    impossible = {"a": b"a file", "a/b": b"a file below a file"}
    monkeypatch.setattr("itda_core.exchange.export.export_files", lambda *_: impossible)
    with pytest.raises(OSError):
        export(run, tmp_path / "out", "saelens")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_names_the_known_ones(run, tmp_path):
    with pytest.raises(InputError, match="saelens, published, run"):
        export(run, tmp_path / "out", "pickle")


# Commands


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_exports(cli, runs_folder, ids, tmp_path, format):
    options = ["--format", format, "--runs", runs_folder]
    told = one_json(cli("export", ids[0], tmp_path / "out", *options, "--json"))
    assert set(told) == {"run_id", "format", "folder", "files", "note"}
    assert (told["run_id"], told["format"]) == (ids[0], format)
    assert told["folder"] == str(tmp_path / "out")
    assert all((tmp_path / "out" / name).exists() for name in told["files"])
    rows = table(cli("export", ids[0], tmp_path / "two", *options))
    assert rows == [["run_id", "format", "folder"], [ids[0], format, str(tmp_path / "two")]]
    code, _, err = cli("export", ids[0], tmp_path / "two", *options)
    assert code == 2
    assert "there already" in err


def test_the_commands_import(cli, runs_folder, ids, tmp_path, tiny_model_folder, tiny_corpus_file):
    sae = write_saelens(tmp_path / "sae")
    runs = ["--runs", tmp_path / "runs", "--model", tiny_model_folder, "--dtype", "float32"]
    options = [*runs, "--corpus", tiny_corpus_file, "--max-tokens", 200]
    told = one_json(cli("import-sae", sae, *options, "--layer", 1, "--json"))
    [one] = told["runs"]
    assert (one["kind"], one["layer"], one["tokens"]) == ("sae", 1, 200)
    assert read_run(tmp_path / "runs" / one["run_id"]).about["kind"] == "sae"
    cli("export", ids[1], tmp_path / "published", "--format", "published", "--runs", runs_folder)
    told = one_json(cli("import-published", tmp_path / "published", *runs, "--json"))
    [one] = told["runs"]
    assert (one["kind"], one["layer"]) == ("itda", 1)
    evaluate = ["evaluate", one["run_id"], "--runs", tmp_path / "runs", "--max-tokens", 50]
    assert "Give others with --corpus" in cli(*evaluate)[2]
    assert cli(*evaluate, "--corpus", tiny_corpus_file)[0] == 0
    code, _, err = cli("import-sae", tmp_path / "nothing", *options)
    assert code == 2
    assert "no SAELens folder" in err


def test_an_imported_autoencoder_can_be_exported_again(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file
):
    sae = write_saelens(tmp_path / "sae")
    runs = ["--runs", tmp_path / "runs"]
    told = one_json(
        cli("import-sae", sae, *runs, "--model", tiny_model_folder, "--corpus", tiny_corpus_file,
            "--max-tokens", 100, "--dtype", "float32", "--json")
    )  # fmt: skip
    cli("export", told["runs"][0]["run_id"], tmp_path / "out", *runs)
    one, other = read_saelens(sae), read_saelens(tmp_path / "out")
    assert other.encoder.architecture == "standard"
    assert (one.encoder.weight == other.encoder.weight).all()
    sources = pd.read_parquet(tmp_path / "out" / "sources.parquet")
    assert len(sources) == len(one.atoms)


def test_the_commands_push_and_pull(cli, runs_folder, ids, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(hub_module, "HfApi", lambda: hub)
    monkeypatch.setattr(hub_module, "snapshot_download", hub.download)
    told = one_json(cli("push", ids[0], NAME, "--runs", runs_folder, "--json"))
    assert told == {"run_id": ids[0], "repository": NAME, "address": f"https://hub/{NAME}"}
    told = one_json(cli("pull", NAME, "--runs", tmp_path / "runs", "--json"))
    assert [one["run_id"] for one in told["runs"]] == [ids[0]]
    code, _, err = cli("pull", "nonsense", "--runs", tmp_path / "runs")
    assert code == 2
    assert "owner/name" in err


def test_without_a_network_the_commands_say_so(cli, runs_folder, ids, tmp_path):
    for arguments in (["push", ids[0], NAME, "--runs", runs_folder], ["pull", NAME]):
        code, out, err = cli(*arguments)
        assert (code, out) == (1, "")
        assert "HF_HUB_OFFLINE" in err or "hub" in err
