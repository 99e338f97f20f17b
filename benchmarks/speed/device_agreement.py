"""The small trained models on a device against the CPU of the same machine."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.device_bench import Bench, reason
from itda_core.activations.plan import make_plan
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.evaluation.by_l0 import evaluate
from itda_core.evaluation.metrics import ReconstructionSums
from itda_core.model.loading import load_model
from itda_core.model.model import Activations, Model
from itda_core.pursuit.orthogonal import PURSUITS
from itda_core.runs.run import list_runs
from itda_core.selection.coverage import choose
from itda_core.training.trainer import train

REPOSITORY = Path(__file__).resolve().parents[2]
_ATOMS, _L0, _LAYER = 256, 16, 3


@dataclass
class _Sides:
    """The same on the CPU and on the device."""

    models: dict[str, Model]
    config: TrainConfig
    corpus: Corpus
    rows: dict[str, Activations]
    dictionary: Dictionary
    """trained on the CPU"""
    device: str


def agreement(name: str, bench: Bench) -> None:
    """Activations, codes, choice, metrics, evaluation and a whole training of one small model."""
    device = str(bench.device)
    with tempfile.TemporaryDirectory(prefix="itda-agreement-") as folder:
        corpus_file = _own_texts(Path(folder))
        config = TrainConfig(
            ModelSpec(name, dtype="float32"),
            CorpusSpec(str(corpus_file)),
            (_LAYER,),
            max_tokens=bench.sizes.agreement_tokens,
            max_atoms=min(_ATOMS, bench.sizes.agreement_tokens // 4),
            l0=_L0,
        )
        dictionary = _trained(config, Path(folder) / "cpu", "cpu")
        models = {"cpu": load_model(config.model, device="cpu")}
        models[device] = load_model(config.model, device=device)
        corpus = load_corpus(config.corpus)
        sides = _Sides(
            models, config, corpus, _captured(models, config, corpus), dictionary, device
        )
        checks: dict[str, Callable[[], str]] = {
            "activations: largest ‖Δ‖ / ‖x‖": lambda: _activations(sides),
            **{
                f"{pursuit} pursuit: tokens with the CPU's latents": lambda p=pursuit: _codes(
                    sides, p
                )
                for pursuit in PURSUITS
            },
            "choice: atoms that the CPU chooses, too": lambda: _choice(sides),
            "FVU of the explored tokens: Δ": lambda: _fvu(sides),
            "evaluation: largest Δ of FVU and CE loss score": lambda: _evaluation(sides),
            "a whole training: atoms of the CPU's": lambda: _training(sides, Path(folder)),
        }
        for what, check in checks.items():
            try:
                found = check()
            except Exception as error:  # one that fails says nothing of the others
                found = f"not measured: {reason(error)}"
            row = {"model": name, "what": what, "device against CPU": found}
            bench.report.row("Agreement with the CPU of the same machine", row, "In float32.")


def _own_texts(folder: Path) -> Path:
    """This project's documents as a corpus: real English where no other text may be at hand."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    path = folder / "documents.txt"
    text = "\n\n".join(page.read_text(encoding="utf-8") for page in pages)
    path.write_text(text, encoding="utf-8")
    return path


@contextmanager
def _computing_on(device: str) -> Iterator[None]:
    """What chooses its device by itself takes this one."""
    before = os.environ.get("ITDA_DEVICE")
    os.environ["ITDA_DEVICE"] = device
    try:
        yield
    finally:
        if before is None:
            del os.environ["ITDA_DEVICE"]
        else:
            os.environ["ITDA_DEVICE"] = before


def _trained(config: TrainConfig, runs: Path, device: str) -> Dictionary:
    with _computing_on(device):
        for _ in train(config, runs):
            pass
    return list_runs(runs)[0].dictionary()


def _captured(models: dict[str, Model], config: TrainConfig, corpus: Corpus):
    plan = make_plan(models["cpu"], corpus.training(0), config, config.max_tokens)
    tokens = plan.tokens(0, len(plan.prompts))
    return {device: model.capture(tokens, config.layers) for device, model in models.items()}


def _activations(sides: _Sides) -> str:
    expected, found = (sides.rows[device][_LAYER].cpu() for device in ("cpu", sides.device))
    off = (found - expected).norm(dim=1) / expected.norm(dim=1)
    return f"{float(off.max()):.1e}"


def _codes(sides: _Sides, pursuit: str) -> str:
    """Of the CPU's activations on both sides, so that only the pursuit can differ."""
    x, atoms = sides.rows["cpu"][_LAYER] - sides.dictionary.offset, sides.dictionary.atoms
    pursue, device = PURSUITS[pursuit], sides.device
    expected = pursue(x, atoms, _L0)
    found = pursue(x.to(device), atoms.to(device), _L0)
    same = (found.latents.cpu() == expected.latents).all(1)
    return f"{float(same.float().mean()):.2%}"


def _choice(sides: _Sides) -> str:
    x, n_atoms = sides.rows["cpu"][_LAYER], len(sides.dictionary)
    expected = set(choose(x, n_atoms, _L0, seed=0).rows.tolist())
    found = set(choose(x.to(sides.device), n_atoms, _L0, seed=0).rows.tolist())
    return f"{len(expected & found) / len(expected):.1%}"


def _fvu(sides: _Sides) -> str:
    values = []
    for device in ("cpu", sides.device):
        x, dictionary = sides.rows[device][_LAYER].to(device), sides.dictionary.to(device)
        sums = ReconstructionSums()
        sums.add(x, dictionary.decode(dictionary.encode(x)))
        values.append(sums.fvu)
    return f"{abs(values[1] - values[0]):.1e} (FVU {values[0]:.3f})"


def _evaluation(sides: _Sides) -> str:
    held_out, last = sides.corpus.held_out(), []
    for model in (sides.models["cpu"], sides.models[sides.device]):
        *_, evaluation = evaluate(sides.dictionary, model, held_out, sides.config, 1_024)
        last.append(evaluation.by_l0())
    names = ("fvu", "ce_loss_score")
    off = [abs(a[name] - b[name]) for a, b in zip(*last, strict=True) for name in names]
    return f"{max(off):.1e}"


def _training(sides: _Sides, folder: Path) -> str:
    """The share of shared sources: rounding may change which of two equal tokens is chosen."""
    trained = _trained(sides.config, folder / "device", sides.device)
    columns = ["prompt_id", "position"]
    expected, found = (
        set(one.sources[columns].itertuples(index=False, name=None))
        for one in (sides.dictionary, trained)
    )
    return f"{len(expected & found) / len(expected):.1%}"
