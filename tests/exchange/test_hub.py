"""Push and pull, with a hub that is a folder: what is uploaded, and what is not taken."""

import dataclasses
import json
import shutil

import httpx
import pandas as pd
import pytest
import yaml
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from itda_core.errors import ExchangeError, HubError, InputError
from itda_core.exchange.hub import pull, push
from itda_core.exchange.import_saelens import import_sae
from itda_core.exchange.importing import ImportOptions
from itda_core.exchange.model_card import model_card, public_name
from itda_core.runs.run import ALL_FILES, NEAR_MISS_FILE, RUN_FILES, list_runs, read_run
from tests.support.fake_hub import NAME, FakeHub
from tests.support.foreign import write_saelens
from tests.support.trained_runs import assert_same_runs


@pytest.fixture
def hub(tmp_path):
    return FakeHub(tmp_path / "hub")


@pytest.fixture(scope="module")
def run(runs_folder):
    return list_runs(runs_folder)[1]


@pytest.fixture
def pushed(hub, run):
    push(run, NAME, api=hub)
    return hub.folder / NAME


def response(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://hub"))


def card_parts(text):
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


# There and back


def test_a_run_goes_to_the_hub_and_comes_back(hub, run, pushed, tmp_path):
    assert {path.name for path in pushed.iterdir()} == {*ALL_FILES, "README.md"}
    back = pull(NAME, tmp_path / "runs", download=hub.download)
    assert back.directory == tmp_path / "runs" / run.run_id
    one = tmp_path / "one"
    shutil.copytree(run.directory, one / run.run_id)
    assert_same_runs(tmp_path / "runs", one)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.run_id]
    assert not (back.directory / "README.md").exists()


def test_an_autoencoder_goes_there_and_back(hub, tmp_path, tiny_model_folder, tiny_corpus_file):
    write_saelens(tmp_path / "sae")
    choices = ImportOptions(
        model=str(tiny_model_folder), corpus=str(tiny_corpus_file), max_tokens=100, dtype="float32"
    )
    *_, last = import_sae(tmp_path / "sae", tmp_path / "runs", choices)
    push(read_run(tmp_path / "runs" / last.finished[0]), NAME, api=hub)
    assert "was imported" in (hub.folder / NAME / "README.md").read_text()
    back = pull(NAME, tmp_path / "others", download=hub.download)
    assert back.dictionary().kind == "sae"


def test_a_repository_is_closed_to_others_unless_asked(hub, run):
    push(run, NAME, api=hub)
    push(run, "someone/open", public=True, api=hub)
    assert hub.private == {NAME: True, "someone/open": False}


# The card


def test_the_card_says_what_the_dictionary_is(run):
    header, body = card_parts(model_card(run, NAME))
    assert header == {  # no base_model: the model is a folder of this machine
        "library_name": "itda-explorer",
        "license": "other",
        "tags": ["interpretability", "sparse-dictionary", "itda"],
    }
    assert "# a-dictionary\n" in body
    rows = dict(
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in body.splitlines()
        if line.startswith("| ")
    )
    assert rows["model"] == "tiny-llama"
    assert rows["layer"] == f"{run.layer}, numbered from 0 to 3"
    assert rows["corpus"] == "paragraphs.txt"
    assert rows["L0"] == str(run.dictionary().l0)
    assert rows["fvu"] == f"{run.metrics['fvu']:.4f}"
    assert rows["held_out_tokens"] == f"{run.metrics['held_out_tokens']:,}"
    assert f"pull {NAME}" in body
    assert "No licence is set" in body
    assert str(run.directory.parent) not in body


def test_the_card_names_a_model_of_the_hub_as_what_it_is_based_on(run):
    config = {**run.about["config"], "model": {"name": "EleutherAI/pythia-70m"}}
    of_the_hub = dataclasses.replace(run, about={**run.about, "config": config})
    header, _ = card_parts(model_card(of_the_hub, NAME))
    assert header["base_model"] == "EleutherAI/pythia-70m"


def test_the_card_says_what_massive_activations_do_to_the_fvu(run):
    assert "Massive activations" not in model_card(run, NAME)
    measured = {"massive_held_out_tokens": 6, "fvu_without_massive": 0.373, "fvu": 0.006}
    ruled = dataclasses.replace(run, metrics={**run.metrics, **measured})
    _, body = card_parts(model_card(ruled, NAME))
    assert "Massive activations (6 of the held-out tokens" in body
    assert "| fvu_without_massive | 0.3730 |" in body


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m"),
        ("/home/me/models/mine", "mine"),
        ("./mine", "mine"),
        ("C:\\models\\mine", "mine"),
        ("a/b/mine.txt", "mine.txt"),
    ],
)
def test_the_card_shows_no_folders(name, shown):
    assert public_name(name) == shown


# What is refused


@pytest.mark.parametrize("name", ["", "one", "a/b/c", "../x", "a/..", "a/b?x", "a b/c", "/a/b"])
def test_only_the_name_of_a_repository_is_asked_for(hub, run, tmp_path, name):
    with pytest.raises(InputError, match="owner/name"):
        push(run, name, api=hub)
    with pytest.raises(InputError, match="owner/name"):
        pull(name, tmp_path / "runs", download=hub.download)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError("no", response=response(404)), "has no someone/a-dictionary"),
        (GatedRepoError("no", response=response(403)), "hf auth login"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
        (LocalEntryNotFoundError("nothing in the cache"), "Check the network"),
        (httpx.ConnectError("no route"), "ConnectError: no route"),
        (ConnectionRefusedError(111, "Connection refused"), "Check the network"),
        (RuntimeError(""), "Check the network"),
    ],
)
def test_what_the_hub_says_is_a_sentence(run, tmp_path, error, message):
    hub = FakeHub(tmp_path / "hub", error)
    with pytest.raises(HubError, match=message):
        push(run, NAME, api=hub)
    with pytest.raises(HubError, match=message):
        pull(NAME, tmp_path / "runs", download=hub.download)
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_that_is_there_is_not_replaced(hub, pushed, run, tmp_path):
    pull(NAME, tmp_path / "runs", download=hub.download)
    with pytest.raises(InputError, match="already"):
        pull(NAME, tmp_path / "runs", download=hub.download)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/tmp/outside-L01", "..", ".hidden-L01", "a/../b-L01", "a..b-L01", "", 5, None,
     "x" * 300 + "-L01", "plain", "UPPER-L01", "a\n-L01"],
)  # fmt: skip
def test_a_run_names_no_place_outside_the_folder(hub, pushed, tmp_path, name):
    about = json.loads((pushed / "config.json").read_text())
    (pushed / "config.json").write_text(json.dumps({**about, "run_id": name}))
    with pytest.raises(ExchangeError, match="no name of a run"):
        pull(NAME, tmp_path / "data" / "runs", download=hub.download)
    assert not list((tmp_path / "data" / "runs").iterdir())
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["runs"]


def lose(name):
    return lambda folder: (folder / name).unlink()


def replace(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def change_table(name, change):
    def changed(folder):
        change(pd.read_parquet(folder / name)).to_parquet(folder / name)

    return changed


@pytest.mark.parametrize(
    "harm",
    [
        *(lose(name) for name in RUN_FILES),
        *(replace(name, b"\x80\x04\x95") for name in (*RUN_FILES, NEAR_MISS_FILE)),
        replace("config.json", b"[]"),
        change_table("codes.parquet", lambda table: table.drop(columns="latent")),
        change_table("prompts.parquet", lambda table: table.iloc[:0]),
        change_table("sources.parquet", lambda table: table.iloc[:5]),
    ],
)
def test_what_is_no_whole_run_is_not_taken(hub, pushed, tmp_path, harm):
    harm(pushed)
    with pytest.raises(ExchangeError, match=NAME):
        pull(NAME, tmp_path / "runs", download=hub.download)
    assert not list((tmp_path / "runs").iterdir())


def test_links_in_a_repository_lead_nowhere(hub, pushed, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text((pushed / "metrics.json").read_text())
    (pushed / "metrics.json").unlink()
    (pushed / "metrics.json").symlink_to(secret)
    with pytest.raises(ExchangeError, match=r"lacks metrics\.json"):
        pull(NAME, tmp_path / "runs", download=hub.download)
