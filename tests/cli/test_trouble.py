"""Bad input on the command line: a sentence with the remedy, the right code, nothing harmed."""

import argparse
import errno
import json
import shutil
import signal
import subprocess
import sys

import duckdb
import psutil
import pyarrow.parquet as pq
import pytest

from itda_core.cli import app as app_module
from itda_core.cli.parser import make_parser
from itda_core.data_folder import data_directory
from itda_core.runs.interrupted import delete_interrupted, interrupted_trainings, lost_trainings
from itda_core.runs.run import list_runs
from itda_core.store.store import SCHEMA_VERSION, Store
from itda_core.training.trainer import train
from tests.support.command_line import one_json, train_options
from tests.support.edited_runs import edit_about
from tests.support.trained_runs import advance, assert_same_runs, long_config, tiny_config, trained


def commands():
    actions = make_parser()._actions
    return next(one for one in actions if isinstance(one, argparse._SubParsersAction)).choices


def options_of(config):
    return [*train_options(config), "--dtype", config.model.dtype]


@pytest.fixture
def fails(cli):
    """Runs a command that has to fail with a code; gives the sentence on standard error."""

    def run(expected, *arguments):
        code, out, err = cli(*arguments)
        assert code == expected, err
        assert out == ""
        sentences = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert len(sentences) == 1
        assert "should not happen" not in err
        assert len(sentences[0]) < 700
        return sentences[0]

    return run


@pytest.fixture
def fails_to_train(fails, tmp_path, tiny_model_folder, tiny_corpus_file):
    """The same for a training that is wrong in some options; nothing may be left of it."""

    def run(*changes, code=2):
        usual = options_of(tiny_config(tiny_model_folder, tiny_corpus_file))
        sentence = fails(code, "train", *usual, "--runs", tmp_path / "runs", *changes)
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
        return sentence

    return run


# Models and corpora


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nobody/nothing", ["nobody/nothing", "smollm2-135m", "network"]),
        ("smollm3", ["smollm3", "smollm2-135m"]),
        ("/no/such/folder", ["/no/such/folder", "Check the path"]),
        ("", ["Give a model"]),
        (".", ["config.json"]),
    ],
)
def test_an_unknown_model_or_a_hub_out_of_reach(
    fails_to_train, model, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sentence = fails_to_train(f"--model={model}")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ("nothing", ["There is no corpus 'nothing'", "sotu", ".csv"]),
        ("nobody/nothing", ["nobody/nothing", "can't be had from the hub", "network"]),
        ("/no/such/file.txt", ["There is no file /no/such/file.txt. Check the path"]),
        ("", ["Give a corpus"]),
        ("/", ["is a folder"]),
    ],
)
def test_an_unknown_corpus_or_a_hub_out_of_reach(fails_to_train, corpus, words):
    sentence = fails_to_train(f"--corpus={corpus}")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"these are plain words", "not a Parquet file"),
        ("a.jsonl", b"these are plain words", "line 1 is not JSON"),
        ("a.csv", b'"a","b\n1', "a quotation mark opens in the row that begins in line 1"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\x00\x00", "zero bytes, the first in line 3"),
        ("a.txt", b"a\x00b", "zero bytes, the first in line 1: no text has them"),
        ("a.pdf", b"%PDF-1.4", "none of .txt .csv .jsonl .parquet"),
        ("a.txt", b"", "is empty"),
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b"\n\n", "is empty"),
        ("a.csv", b"text\n", "it has no row"),
        ("a.csv", b"one,two\na,b\n", "whether its first row names the columns"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(fails_to_train, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    sentence = fails_to_train("--corpus", tmp_path / name)
    assert words in sentence
    assert name in sentence


def test_a_column_that_is_missing(fails_to_train, tmp_path):
    (tmp_path / "a.csv").write_text("one,two\na,1\nb,2\n")
    sentence = fails_to_train("--corpus", tmp_path / "a.csv", "--column", "three")
    assert "no text column 'three'. It has: one, two" in sentence


# Numbers


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--layers", ""], "Give the layers to train, such as --layers 7,15,22"),
        (["--layers", "0,x"], "takes numbers such as 7,15,22, got '0,x'"),
        (["--layers", "99"], "layers 0 to 3; there is no layer 99"),
        (["--layers", "-1"], "Layers count from 0, got -1"),
        (["--layers", ",".join(map(str, range(100_000)))], "layers 0 to 3; there is no layer 4, 5"),
        (["--max-atoms", "2000"], "--max-atoms (2,000) is more than --max-tokens (1,000)"),
        (["--max-tokens", "90000", "--max-atoms", "80000"], "fewer than the 80,000 atoms"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1, got 0"),
        (["--l0", "0"], "--l0 must be at least 1, got 0"),
        (["--context-length", "1"], "--context-length must be at least 2, got 1"),
        (["--batch-tokens", "-4"], "--batch-tokens must be at least 1, got -4"),
        (["--threshold", "nan"], "--threshold must be between 0 and 4, got nan"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--seed", str(2**63)], "--seed must be at most 9,223,372,036,854,775,807, got"),
        (["--seed", "1.5"], "--seed must be a whole number such as 2048, got '1.5'"),
        (["--l0", "many"], "--l0 must be a whole number such as 2048, got 'many'"),
        (["--threshold", "0,2"], "--threshold must be a number like 0.2, got '0,2'"),
        (["--progress", "/no/such/folder/p.jsonl"], "there is no folder /no/such/folder"),
        (["--progress", "/"], "--progress takes a file, and '/' is a folder"),
        (["--resume", "nothing"], "There is no interrupted training 'nothing'"),
        (["--config", "/no/such.json"], "/no/such.json can't be read"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_numbers_that_make_no_sense(fails_to_train, changes, words):
    assert words in fails_to_train(*changes)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"model": 5}', '{"version": 99}', "\x00"])
def test_a_configuration_file_that_is_none(fails_to_train, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    fails_to_train("--config", tmp_path / "config.json")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"l0": True}, "l0 must be a whole number, got True"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"max_atoms": 90_000}, "max_atoms (90,000) is more than max_tokens (65,536)"),
        ({"colour": "red"}, "has no field 'colour'; it has model, corpus, layers, max_tokens"),
        ({"layers": 7}, "Layers are a list of whole numbers, got 7"),
    ],
)
def test_a_configuration_file_is_refused_by_the_names_that_stand_in_it(
    fails_to_train, tmp_path, fields, words
):
    usual = {"model": {"name": "tiny-6x128-0"}, "corpus": {"name": "sotu"}, "layers": [2]}
    (tmp_path / "config.json").write_text(json.dumps({**usual, **fields}))
    sentence = fails_to_train("--config", tmp_path / "config.json")
    assert f"config.json can't be used. {words}"[:20] in sentence
    assert words in sentence


def test_an_option_beside_a_configuration_file_is_refused_and_not_ignored(fails, tmp_path):
    fields = {"model": {"name": "tiny-6x128-0"}, "corpus": {"name": "sotu"}, "layers": [2]}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    file = ["--config", tmp_path / "config.json", "--runs", tmp_path / "runs"]
    sentence = fails(2, "train", *file, "--seed", "5", "--keep-first", "--layers", "3")
    assert "config.json says all settings: leave out --layers, --seed, --keep-first." in sentence
    waiting = tmp_path / "runs" / ".tiny-6x128-0-00000000"
    waiting.mkdir(parents=True)
    (waiting / "config.json").write_text(json.dumps(fields))
    more = ["--runs", tmp_path / "runs", "--l0", "3"]
    sentence = fails(2, "train", "--resume", "tiny-6x128-0-00000000", *more)
    assert "began with: leave out --l0." in sentence


def told_apart(command):
    """Each option of a command, with a value that it takes; flags alone."""
    values = {"max_tokens": 100, "context_length": 16, "max_atoms": 20, "threshold": 0.3,
              "layers": "2", "header": "no", "encoding": "utf-8", "separator": ";",
              "device": "cpu", "memory": "8GiB"}  # fmt: skip
    for action in commands()[command]._actions:
        if action.option_strings and action.dest != "help":
            value = values.get(action.dest, (action.choices or ["1"])[0])
            yield action.dest, [action.option_strings[0], *([value] if action.nargs != 0 else [])]


def test_every_option_of_a_training_is_refused_where_its_settings_are_settled(fails, tmp_path):
    """Also one that says what goes without saying, where the file may say something else."""
    fields = {"model": {"name": "tiny-6x128-0"}, "corpus": {"name": "sotu"}, "layers": [2]}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    waiting = tmp_path / "runs" / ".tiny-6x128-0-00000000"
    waiting.mkdir(parents=True)
    (waiting / "config.json").write_text(json.dumps(fields))
    runs = ["--runs", tmp_path / "runs"]
    settled = {"config": tmp_path / "config.json", "resume": "tiny-6x128-0-00000000"}
    refused = []
    where = ("runs", "json", "progress", "device", "memory", "ray", "workers", "no_scores")
    for name, option in told_apart("train"):
        if name in (*where, *settled):
            continue
        refused.append(name)
        for by, what in settled.items():
            sentence = fails(2, "train", f"--{by}", what, *runs, *option)
            assert sentence.endswith(f": leave out {option[0]}."), sentence
    assert {"separator", "quote", "header", "encoding", "column", "corpus", "l0"} <= {*refused}
    both = [f"--{by}={what}" for by, what in settled.items()]
    assert fails(2, "train", *both, *runs).endswith("began with: leave out --config.")
    usual = ["--l0", "32"]
    assert "leave out --l0." in fails(2, "train", "--config", settled["config"], *runs, *usual)


@pytest.mark.parametrize("command", ["evaluate", "probe", "import-sae", "import-published"])
def test_how_a_file_is_read_is_refused_without_the_file(fails, runs_folder, ids, tmp_path, command):
    target = tmp_path if command.startswith("import") else ids[0]
    for name, option in told_apart(command):
        if name in ("column", "separator", "quote", "header", "encoding"):
            sentence = fails(2, command, target, "--runs", runs_folder, *option)
            assert sentence.endswith(f"name it as well, or leave out {option[0]}."), sentence


def test_a_run_of_before_with_a_seed_below_zero_is_listed_and_read(tmp_path, runs_folder, ids):
    shutil.copytree(runs_folder / ids[0], tmp_path / ids[0])
    before = {"selection": "threshold", "offset": "zero", "pursuit": "matching"}
    edit_about(tmp_path / ids[0], before | {"seed": -1, "budget": "token"})
    [run] = list_runs(tmp_path)
    assert run.config.seed == -1
    store = Store(":memory:")
    assert store.import_new(tmp_path) == [ids[0]]
    assert store.runs.table()["seed"].tolist() == [-1]
    store.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["decompose", "x", "--text=a b", "--terms", "-3"], "--terms must be at least 1, got -3"),
        (["decompose", "x", "--text=a b", "--terms", "1.5"], "--terms must be a whole number"),
        (["app", "--port", "99999"], "--port must be at most 65,535, got 99999"),
        (["app", "--port", "0"], "--port must be at least 1, got 0"),
        (["detect", "x", "--latents", "0"], "--latents must be at least 1, got 0"),
        (["detect", "x", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["probe", "x", "--max-tokens", "-1"], "--max-tokens must be at least 1, got -1"),
        (["probe", "x", "--column", "text"], "Without --corpus no file is read: "),
        (["models", "--dtype", "auto"], "Without --check no model is loaded: "),
        (["models", "--revision", "main"], "leave out --revision."),
        (["measure", "x", "y", "--max-tokens", "a"], "--max-tokens must be a whole number"),
        (["map", "x", "--progress", "/no/such/p"], "there is no folder /no/such"),
        (["import-sae", "x", "--layer", "-1"], "--layer must be at least 0, got -1"),
        (["import-sae", "x", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["import-published", "x", "--context-length", "1"], "--context-length must be at least 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_number_of_every_command_is_checked_before_anything_is_done(fails, arguments, words):
    assert words in fails(2, *arguments)


def test_no_option_takes_a_number_unchecked():
    for name, command in commands().items():
        for action in command._actions:
            is_bare = action.type in (int, float)
            assert not is_bare, f"{name} {action.option_strings}: see cli/values.py and settings.py"


@pytest.mark.parametrize("l0s", ["", " "])
def test_an_option_that_is_left_empty_is_not_taken_for_its_default(fails, runs_folder, ids, l0s):
    assert "L0 is from 1" in fails(2, "evaluate", ids[0], "--runs", runs_folder, "--l0s", l0s)
    more = [ids[0], ids[1], "--runs", runs_folder]
    assert "There is no measure ''" in fails(2, "measure", *more, "--measures", l0s)
    assert "Give a corpus" in fails(2, "evaluate", ids[0], "--runs", runs_folder, "--corpus", l0s)


@pytest.mark.parametrize(
    ("written", "why"),
    [('{"seed": -1}', "seed must be at least 0, got -1"), ("{", "Its settings are damaged")],
)
def test_a_stopped_training_that_can_never_be_resumed_says_why(fails, tmp_path, written, why):
    folder = tmp_path / ".tiny-00000000"
    folder.mkdir()
    fields = {"model": {"name": "tiny-6x128-0"}, "corpus": {"name": "sotu"}, "layers": [2]}
    is_json = written != "{"
    content = json.dumps({**fields, **json.loads(written)}) if is_json else written
    (folder / "config.json").write_text(content)
    assert lost_trainings(tmp_path) == {}  # no training has held it: it is something else's
    (folder / "lock").touch()
    sentence = fails(2, "train", "--resume", "tiny-00000000", "--runs", tmp_path)
    assert why in sentence
    assert str(folder) in sentence
    assert interrupted_trainings(tmp_path) == {}
    assert list(lost_trainings(tmp_path)) == ["tiny-00000000"]
    delete_interrupted(tmp_path, "tiny-00000000")
    assert not folder.exists()


@pytest.mark.parametrize("number", ["0", "-7"])
def test_an_evaluation_of_no_tokens(fails, runs_folder, ids, number):
    sentence = fails(2, "evaluate", ids[0], "--runs", runs_folder, "--max-tokens", number)
    assert f"max-tokens must be at least 1, got {number}" in sentence


@pytest.mark.parametrize(
    ("l0s", "words"),
    [("0", "from 1 to the dictionary's 4"), ("2,5", "from 1 to"), ("a", "numbers such as")],
)
def test_an_evaluation_at_an_l0_that_there_is_not(fails, runs_folder, ids, l0s, words):
    assert words in fails(2, "evaluate", ids[0], "--runs", runs_folder, "--l0s", l0s)


@pytest.mark.parametrize(
    ("digest", "words"),
    [("model_digest", "The model"), ("corpus_digest", "what was held out then can't be told")],
)
def test_an_evaluation_on_what_has_changed_since(fails, tmp_path, runs_folder, ids, digest, words):
    shutil.copytree(runs_folder, tmp_path / "runs")
    edit_about(tmp_path / "runs" / ids[0], **{digest: "another"})
    sentence = fails(2, "evaluate", ids[0], "--runs", tmp_path / "runs")
    assert words in sentence
    assert f"has changed since {ids[0]} was trained" in sentence


# Runs


@pytest.mark.parametrize("command", ["evaluate", "decompose", "similarity", "import"])
@pytest.mark.parametrize("name", ["nothing", "../nothing", "x" * 300])
def test_an_unknown_run_is_named_with_those_there_are(fails, runs_folder, ids, command, name):
    more = {"decompose": ["--text", "a b c"], "similarity": [ids[0]]}.get(command, [])
    sentence = fails(2, command, name, *more, "--runs", runs_folder)
    assert f"There is no run '{name}'" in sentence
    assert ids[0] in sentence


@pytest.mark.parametrize(("there", "more"), [(8, ""), (9, " and 1 more"), (14, " and 6 more")])
def test_of_many_runs_some_are_named_and_the_others_counted(
    fails, runs_folder, ids, tmp_path, there, more
):
    for number in range(there):
        copy = tmp_path / f"{number:02d}-{ids[0]}"
        shutil.copytree(runs_folder / ids[0], copy)
        edit_about(copy, run_id=copy.name)
    sentence = fails(2, "decompose", "nothing", "--text", "a", "--runs", tmp_path)
    assert sentence.count(ids[0]) == 8
    assert sentence.rstrip().endswith(f"{ids[0]}{more}.")


def test_a_damaged_run_is_named_with_what_it_lacks(fails, runs_folder, ids, tmp_path):
    shutil.copytree(runs_folder, tmp_path / "runs")
    (tmp_path / "runs" / ids[0] / "metrics.json").unlink()
    (tmp_path / "runs" / ids[1] / "dictionary.safetensors").write_bytes(b"no dictionary")
    options = ["--runs", tmp_path / "runs"]
    assert "lacks metrics.json" in fails(1, "evaluate", ids[0], *options)
    assert ids[1] in fails(1, "similarity", ids[1], ids[2], *options)
    assert "can't be read as a dictionary" in fails(1, "decompose", ids[1], "--text=a b", *options)


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_to_decompose(fails, runs_folder, ids, text):
    sentence = fails(2, "decompose", ids[0], f"--text={text}", "--runs", runs_folder)
    assert "fewer than two tokens. Type a few words more" in sentence


def test_one_run_cannot_be_compared(fails, runs_folder, ids):
    assert "at least two runs" in fails(2, "similarity", ids[0], "--runs", runs_folder)


def test_runs_on_different_corpora_cannot_be_compared(
    fails, tmp_path, runs_folder, ids, tiny_model_folder, tiny_texts
):
    (tmp_path / "other.txt").write_text("\n\n".join(tiny_texts[60:]), encoding="utf-8")
    config = tiny_config(tiny_model_folder, tmp_path / "other.txt", layers=(0,))
    trained(config, tmp_path / "runs")
    other = list_runs(tmp_path / "runs")[0].directory
    sentence = fails(2, "similarity", runs_folder / ids[0], other)
    assert "built on different prompts" in sentence
    assert "Train both with the same corpus and seed" in sentence


# The database


def make_database(content):
    path = data_directory() / "explorer.duckdb"
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Store(path).close()
        with duckdb.connect(str(path)) as database:
            database.execute("UPDATE meta SET version = ?", [content])
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [(SCHEMA_VERSION + 1, "Update the explorer"), (b"no database", "python -m itda_core rebuild")],
)
def test_a_database_that_cannot_be_used_is_left_as_it_is(fails, runs_folder, ids, content, words):
    path = make_database(content)
    before = path.read_bytes()
    assert words in fails(1, "import", ids[0], "--runs", runs_folder)
    assert path.read_bytes() == before


def test_a_second_process_on_the_same_data_folder(fails, cli, runs_folder, ids):
    path = make_database(SCHEMA_VERSION)
    code = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        for arguments in (["import", ids[0]], ["rebuild"]):
            sentence = fails(1, *arguments, "--runs", runs_folder)
            assert f"(pid {other.pid})" in sentence
            assert "ITDA_DATA=another/folder" in sentence
        other.communicate(b"\n")
    assert one_json(cli("import", ids[0], "--runs", runs_folder, "--json"))["runs"][0]["imported"]


# Trainings that are stopped


def test_a_training_that_runs_already_is_not_started_again(
    fails, tmp_path, tiny_model_folder, tiny_corpus_file
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file)
    steps = train(config, tmp_path)
    advance(steps, "training", 2)
    sentence = fails(1, "train", *options_of(config), "--runs", tmp_path)
    assert f"already running (pid {psutil.Process().pid})" in sentence
    steps.close()


def test_a_full_disk(fails, cli, tmp_path, monkeypatch, tiny_model_folder, tiny_corpus_file):
    config = tiny_config(tiny_model_folder, tiny_corpus_file)

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        sentence = fails(1, "train", *options_of(config), "--runs", tmp_path)
    assert "no space left on the disk" in sentence
    assert list_runs(tmp_path) == []
    [at] = interrupted_trainings(tmp_path)
    assert len(one_json(cli("train", "--resume", at, "--runs", tmp_path, "--json"))["runs"]) == 3


def test_a_data_folder_whose_link_leads_to_itself(fails, monkeypatch, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("ITDA_DATA", str(tmp_path / "loop"))
    assert "is not a folder" in fails(1, "rebuild")
    monkeypatch.setenv("ITDA_DATA", str(tmp_path / "loop" / "inside"))
    assert "lead in a circle (Too many levels of symbolic links)" in fails(1, "rebuild")


@pytest.mark.parametrize("command", ["doctor", "rebuild"])
def test_a_data_folder_of_a_path_too_long(fails, monkeypatch, tmp_path, command):
    monkeypatch.setenv("ITDA_DATA", str(tmp_path / ("a" * 5_000)))
    sentence = fails(1, command)
    assert "can't follow a path so long (File name too long)" in sentence
    assert "ITDA_DATA" in sentence
    assert len(sentence) < 400


def test_a_training_told_to_stop_keeps_a_checkpoint_and_resumes_to_the_same_runs(
    cli,
    tmp_path,
    tiny_model_folder,
    tiny_texts,
):
    config = long_config(tmp_path, tiny_model_folder, tiny_texts)
    trained(config, tmp_path / "uninterrupted")
    options = [*options_of(config), "--runs", tmp_path / "runs", "--json"]
    command = [sys.executable, "-m", "itda_core", "train", *map(str, options)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("Training: "):
                process.send_signal(signal.SIGTERM)
                break
        out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    [at] = interrupted_trainings(tmp_path / "runs")
    go_on = f"train --resume {at} --runs {tmp_path / 'runs'}"
    assert err.splitlines()[-1] == f"Error: Stopped. Go on with: {go_on}"
    told = one_json(cli(*go_on.split(), "--json"))
    assert len(told["runs"]) == 1
    assert_same_runs(tmp_path / "runs", tmp_path / "uninterrupted")


def test_a_folder_that_another_explorer_has_is_said_before_an_address_is(
    cli, data_folder, monkeypatch
):
    opened = []
    monkeypatch.setattr(app_module.os, "execve", lambda *_about: opened.append(1) or sys.exit(0))
    data_folder.mkdir()
    path = data_folder / "explorer.duckdb"
    hold = f"import duckdb, time; held = duckdb.connect({str(path)!r}); print(1, flush=True)"
    hold += "; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        code, out, err = cli("app")
        other.kill()
    assert (code, out, opened) == (1, "", [])
    assert f"{path} is open in another process (pid {other.pid})" in err
    path.write_bytes(b"no database")  # which the page says, with the remedy
    assert "opens at" in cli("app")[1]
    assert opened == [1]
