"""One dictionary and autoencoders of the same size, made from the same tokens, as runs.

What the folder holds already is not made again.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks.common.activations import activations
from benchmarks.common.captured import is_massive
from benchmarks.versus_sae import sae_grid
from benchmarks.versus_sae.sae_grid import SMOLLM2
from benchmarks.versus_sae.sae_training import Autoencoder, SaeSettings, train_sae
from itda_core.config import CorpusSpec, HookPoint, ModelSpec, TrainConfig
from itda_core.dictionary.dictionary import SOURCE_COLUMNS, Dictionary
from itda_core.dictionary.sae_encoder import SaeEncoder
from itda_core.exchange.import_saelens import import_sae
from itda_core.exchange.importing import ImportOptions
from itda_core.exchange.saelens import CONFIG_FILE, saelens_files
from itda_core.runs.run import Run, read_run
from itda_core.training.trainer import Progress, train

LAYER = 15
CORPUS = "sotu"
SEED = 0
ITDA = "ITDA"
METHODS = {ITDA: None, "TopK SAE": "topk", "BatchTopK SAE": "batchtopk"}
"""What is compared, with the autoencoder's variant"""
_THRESHOLD_TOKENS = 4_096


@dataclass(frozen=True)
class Sizes:
    """How much is read."""

    tokens: int = 40_960
    """that the dictionary and the autoencoders are made from"""
    explored: int = 16_384
    """of them, whose codes the runs keep"""
    probed: int = 40_000
    """of held-out prompts"""
    latents: int = 200
    """for the detection scores"""
    atoms: int = 2_048
    epochs: float | None = None
    """passes of the autoencoders over the tokens; None: those that sae_grid found best"""


def make_run(method: str, sizes: Sizes, folder: Path) -> Run:
    """The run of one of METHODS, kept in folder/runs."""
    runs, variant = folder / "runs", METHODS[method]
    steps = train(_config(sizes), runs) if variant is None else _import(variant, sizes, folder)
    last = None
    for last in steps:
        print(f"{method}: {last.stage}, {last.tokens:,} tokens", flush=True)
    return read_run(runs / last.finished[0])


def _config(sizes: Sizes) -> TrainConfig:
    return TrainConfig(
        ModelSpec(SMOLLM2), CorpusSpec(CORPUS), (LAYER,), max_tokens=sizes.tokens,
        max_atoms=sizes.atoms, seed=SEED, explored_tokens=sizes.explored,
    )  # fmt: skip


def _import(variant: str, sizes: Sizes, folder: Path) -> Iterator[Progress]:
    saelens = folder / variant
    if not (saelens / CONFIG_FILE).exists():
        write_saelens(train_variant(variant, sizes), saelens)
    choices = ImportOptions(corpus=CORPUS, max_tokens=sizes.explored, seed=SEED)
    return import_sae(saelens, folder / "runs", choices)


def settings(variant: str, sizes: Sizes) -> SaeSettings:
    """The learning rate and passes that the comparison of itda_vs_sae chose for this layer."""
    best = sae_grid.curve(SMOLLM2, LAYER, variant, "10×", SEED).settings
    return SaeSettings(variant, best.lr, sizes.epochs or best.epochs, n_latents=sizes.atoms)


def train_variant(variant: str, sizes: Sizes) -> Autoencoder:
    """An autoencoder trained on the tokens that the dictionary is made from, but for those of
    massive activations; a threshold is set on a part of them."""
    x = activations(LAYER, sizes.tokens)
    x = x[~is_massive(x)]
    used = settings(variant, sizes)
    *_, last = train_sae(x, x[:_THRESHOLD_TOKENS], used, HookPoint(SMOLLM2, LAYER), [])
    print(f"{variant}: trained in {last.seconds:.0f} CPU s, dead {last.dead:.1%}", flush=True)
    return last.autoencoder


def write_saelens(autoencoder: Autoencoder, folder: Path) -> None:
    """The autoencoder as a SAELens folder, whose settings are written last."""
    folder.mkdir(parents=True, exist_ok=True)
    files = saelens_files(as_dictionary(autoencoder))
    for name in sorted(files, key=CONFIG_FILE.__eq__):
        (folder / name).write_bytes(files[name])


def as_dictionary(autoencoder: Autoencoder) -> Dictionary:
    """With the same codes; its latents have no sources yet, which an import finds."""
    n, threshold = len(autoencoder), autoencoder.threshold
    encoder = SaeEncoder(
        architecture="topk" if threshold is None else "jumprelu",
        weight=autoencoder.encoder,
        bias=autoencoder.bias,
        center=torch.zeros_like(autoencoder.offset),
        norms=torch.ones(n),
        k=autoencoder.l0 if threshold is None else None,
        threshold=None if threshold is None else torch.full((n,), threshold),
    )
    return Dictionary(
        atoms=autoencoder.atoms,
        offset=autoencoder.offset,
        l0=autoencoder.l0,
        hook_point=autoencoder.hook_point,
        sources=pd.DataFrame(columns=SOURCE_COLUMNS),
        encoder=encoder,
    )


def titled_by_strongest(run: Run, folder: Path) -> Run:
    """The same codes with each latent titled as an autoencoder's are: by the explored token where
    its coefficient is largest. Latents without a positive coefficient keep their title.

    What it takes to tell the choice of titles from the latents; only the files that detection
    reads are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("codes.parquet", "prompts.parquet"):
        shutil.copyfile(run.directory / name, folder / name)
    codes = pd.read_parquet(folder / "codes.parquet")
    prompts = pd.read_parquet(folder / "prompts.parquet").set_index("prompt_id")
    sources = pd.read_parquet(run.directory / "sources.parquet").set_index("latent", drop=False)
    best = codes.loc[codes.groupby("latent")["coefficient"].idxmax()]
    for use in best[best["coefficient"] > 0].itertuples():
        prompt = prompts.loc[use.prompt_id]
        start, end = prompt["starts"][use.position], prompt["ends"][use.position]
        sources.loc[use.latent, ["prompt_id", "position", "token"]] = [
            use.prompt_id, use.position, prompt["text"][start:end],
        ]  # fmt: skip
    sources.to_parquet(folder / "sources.parquet", index=False)
    return replace(run, directory=folder)
