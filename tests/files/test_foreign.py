"""Files that are none, or that hold more than they should: refused before they are read."""

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from itda_core.cli.main import main
from itda_core.config import CorpusSpec, ModelSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import CorpusError, ExchangeError, InputError, ModelError, RunError
from itda_core.exchange.published import read_published
from itda_core.exchange.saelens import read_saelens
from itda_core.files import foreign
from itda_core.files.foreign import check_foreign, check_parquet, check_within, open_foreign
from itda_core.files.json_files import read_json
from itda_core.model.loading import load_model
from itda_core.model.model_info import model_shape
from itda_core.model.plausible import check_counts
from itda_core.runs.agreement import check_agreement
from itda_core.runs.run import RUN_FILES, list_runs, read_run
from itda_core.training.training_list import read_list


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def device(path):
    path.symlink_to("/dev/zero")


def bound(path):
    here = os.open(path.parent, os.O_RDONLY)  # the name of a socket has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def holes(path):
    with path.open("wb") as file:
        file.truncate(2**40)


NO_FILES = {
    pipe: "a pipe", folder: "a folder", device: "a device", bound: "a socket",
    holes: "holes|bytes, of at most",
}  # fmt: skip
every_kind = pytest.mark.parametrize("make", NO_FILES, ids=lambda make: make.__name__)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="makes pipes and holes")


@every_kind
def test_nothing_but_a_file_is_opened(tmp_path, make):
    make(tmp_path / "a.json")
    for use in (open_foreign, check_foreign, read_json):
        with pytest.raises(ValueError, match=NO_FILES[make]):
            use(tmp_path / "a.json")


@every_kind
@pytest.mark.parametrize(
    "name", ["a.txt", "a.csv", "a.jsonl", "a.parquet", "a.txt.gz", "a.txt.zst"]
)
def test_a_corpus_is_a_file(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(CorpusError):
        load_corpus(CorpusSpec(str(tmp_path / name)))


@every_kind
def test_settings_and_lists_are_files(tmp_path, make, capsys):
    make(tmp_path / "a.toml")
    with pytest.raises(InputError, match=NO_FILES[make]):
        read_list(tmp_path / "a.toml")
    assert main(["train", "--config", str(tmp_path / "a.toml")]) == 2
    assert "can't be read" in capsys.readouterr().err


@every_kind
def test_a_run_has_files_of_its_own(runs_folder, tmp_path, make):
    [run, *_] = list_runs(runs_folder)
    for name in RUN_FILES:
        copy = tmp_path / name / run.run_id
        shutil.copytree(run.directory, copy)
        (copy / name).unlink()
        make(copy / name)
        if (make, name) == (holes, "dictionary.safetensors"):
            continue
        with pytest.raises(RunError, match=r"damaged|can't be read"):
            read_run(copy)


def test_a_link_out_of_a_run_is_not_followed(runs_folder, tmp_path):
    [run, *_] = list_runs(runs_folder)
    copy = tmp_path / run.run_id
    shutil.copytree(run.directory, copy)
    shutil.move(copy / "prompts.parquet", tmp_path / "elsewhere")
    (copy / "prompts.parquet").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="leads out of the folder"):
        read_run(copy)
    (tmp_path / "within").symlink_to(tmp_path / "elsewhere")
    check_within(tmp_path / "within", tmp_path)


@every_kind
def test_a_dictionary_and_what_is_imported_are_files(tmp_path, make):
    for name, read, error in (
        ("a.safetensors", Dictionary.load, RunError),
        ("cfg.json", lambda path: read_saelens(path.parent), ExchangeError),
        ("metadata.yaml", lambda path: read_published(path.parent), ExchangeError),
    ):
        place = tmp_path / name.partition(".")[0]
        place.mkdir()
        make(place / name)
        if name.endswith(".safetensors") and make is folder:
            continue  # a folder is a run's
        with pytest.raises(error):
            read(place / name)


@every_kind
def test_a_models_folder_holds_files(tiny_model_folder, tmp_path, make):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        copy = tmp_path / name
        shutil.copytree(tiny_model_folder, copy)
        (copy / name).unlink()
        make(copy / name)
        with pytest.raises(ModelError):
            load_model(str(copy))


@pytest.mark.parametrize(
    "said",
    [
        {"num_hidden_layers": 10**7}, {"n_layer": 10**9}, {"hidden_size": 10**12},
        {"vocab_size": 10**12}, {"text_config": {"num_hidden_layers": 10**7}},
        {"num_hidden_layers": -5}, {"max_position_embeddings": 10**9}, {"n_positions": 10**8},
    ],
)  # fmt: skip
def test_a_model_of_ten_million_layers_is_refused_before_it_is_built(
    tiny_model_folder, tmp_path, said
):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model_folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **said}))
    with pytest.raises(ModelError, match="asks for"):
        load_model(str(copy))
    assert model_shape(ModelSpec(str(copy))) is None or "num_hidden_layers" not in said


def test_a_file_of_a_file_system_that_counts_no_blocks_is_read(tmp_path, monkeypatch):
    """As many do that lie behind a network: only a hole that is known of is one."""
    monkeypatch.setattr(foreign, "_UNFOLDED_BYTES", 2**20)
    size = 2**22
    path = tmp_path / "weights"
    path.write_bytes(b"x" * size)
    status = SimpleNamespace(st_mode=path.stat().st_mode, st_size=size, st_blocks=0)
    foreign._check_status(path, status, None)
    os.truncate(path, 2**20)
    os.truncate(path, size)
    with pytest.raises(ValueError, match="holes"):
        foreign._check_status(path, status, None)


def test_usual_configurations_are_plausible():
    check_counts("a", {"vision_feature_layer": -2})
    check_counts("a", {"num_hidden_layers": 126, "hidden_size": 16_384, "vocab_size": 262_208})
    check_counts("a", {"max_position_embeddings": 10_485_760})  # Llama 4 Scout
    check_counts("a", {"sliding_window": 2**31, "pad_token_id": -1, "max_window_layers": 80})


REFUSED = """
import sys
from pathlib import Path
from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.errors import CorpusError

def mebibytes(name):
    [line] = [line for line in Path("/proc/self/status").open() if line.startswith(name)]
    return int(line.split()[1]) / 1024

before = mebibytes("VmRSS")
try:
    load_corpus(CorpusSpec(sys.argv[1]))
except CorpusError as error:
    print(f"{mebibytes('VmHWM') - before:.0f} {error}")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counted by Linux")
@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_an_archive_that_unfolds_to_gigabytes_is_given_up(tmp_path, name):
    """In a process of its own: the largest memory of this one is that of other tests."""
    with gzip.open(tmp_path / name, "wb", compresslevel=9) as file:
        for _ in range(1024):
            file.write(b" " * 2**20)
    command = [sys.executable, "-c", REFUSED, str(tmp_path / name)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    mebibytes, _, sentence = told.partition(" ")
    assert "unfolds" in sentence
    assert int(mebibytes) < 300


def test_a_parquet_file_that_unfolds_to_gigabytes_is_not_read(tmp_path):
    file = tmp_path / "a.parquet"
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(70):
            texts = pa.array(["x" * 2**24])
            writer.write_table(pa.table({"text": texts}))
    with pytest.raises(ValueError, match="unfolds"):
        check_parquet(file, file.name)
    with pytest.raises(CorpusError, match="unfolds"):
        load_corpus(CorpusSpec(str(file), "text"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counted by Linux")
def test_a_parquet_text_that_is_there_once_and_used_often_is_given_up(tmp_path):
    """Its footer counts the text once: 2,100 rows of a megabyte, in a few kilobytes."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2_100, pa.int32()), ["x" * 1_000_000])
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts.cast(pa.string())}), file, compression="zstd")
    assert file.stat().st_size < 100_000
    command = [sys.executable, "-c", REFUSED, str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    mebibytes, _, sentence = told.partition(" ")
    assert "unfolds" in sentence or "more than 2 GB" in sentence
    assert int(mebibytes) < 300


def test_a_tensor_that_repeats_one_number_is_refused(tmp_path):
    torch.save(torch.ones(1).expand(2**20, 2**20), tmp_path / "atoms.pt")
    torch.save(torch.zeros(2, 2, dtype=torch.int64), tmp_path / "atom_indices.pt")
    for name in ("metadata.yaml",):
        (tmp_path / name).write_text("layer: 1\n")
    with pytest.raises(ExchangeError, match="repeats"):
        read_published(tmp_path)


@pytest.mark.parametrize("make", [None, pipe, folder, device])
def test_progress_that_leads_nowhere_is_told_before_any_work(tmp_path, make, capsys):
    file = tmp_path / "no" / "p.jsonl" if make is None else tmp_path / "p.jsonl"
    if make:
        make(file)
    code = main(["map", "--progress", str(file), "--runs", str(tmp_path), "nothing"])
    assert code == 2
    assert capsys.readouterr().err.startswith("Error: ")


def test_a_run_whose_parts_say_different_things_does_not_agree(runs_folder):
    [run, *_] = list_runs(runs_folder)
    dictionary = run.dictionary()
    check_agreement(run, dictionary)
    other = {
        "layer": run.layer + 1, "run_id": "other-L00", "training_id": "other", "d_model": 7,
        "n_layers": run.layer, "model_digest": "of another",
    }  # fmt: skip
    for name, value in other.items():
        wrong = type(run)(run.directory, {**run.about, name: value}, run.metrics)
        with pytest.raises(RunError, match="its "):
            check_agreement(wrong, dictionary)
    wrong = type(run)(run.directory, run.about, {**run.metrics, "atoms": 1})
    with pytest.raises(RunError, match="number of atoms"):
        check_agreement(wrong, dictionary)


def test_what_is_as_it_should_be_is_read(tmp_path):
    pq.write_table(pa.table({"n": np.arange(10)}), tmp_path / "a.parquet")
    check_parquet(tmp_path / "a.parquet", "a.parquet")
    check_parquet((tmp_path / "a.parquet").read_bytes(), "a.parquet")
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    check_foreign(tmp_path / "a.safetensors")
