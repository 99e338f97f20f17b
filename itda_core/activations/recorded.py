"""A folder of activations in place of a model and a corpus: what a training reads of both."""

import copy
import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.folder_index import PROMPTS_FILE
from itda_core.config import CorpusSpec, TrainConfig
from itda_core.corpus.corpus import Corpus, Prompt, prompt_id
from itda_core.devices import device_or_best, numbered, to_device
from itda_core.errors import InputError
from itda_core.model.kept_rows import KeptRows
from itda_core.model.model import Activations
from itda_core.model.tokens import TokenizedText, Tokens
from itda_core.settings import RESID_POST


class RecordedModel:
    """What was recorded of a model: its tokens and activations of some prompts, and no others."""

    def __init__(self, folder: ActivationFolder, device: str | None = None):
        """device: where the activations come to be, as `load_model` takes it."""
        index = folder.index
        self.folder = folder
        self.name, self.digest = index.model.name, index.model_digest
        self.dtype = index.model.dtype
        self.d_model, self.n_layers = index.d_model, index.n_layers
        self.context_length = index.context_length
        self.tokenizer_digest, self.put_in = index.tokenizer, index.put_in
        self.tokenizer = _TokenNames(folder)
        self.device = torch.device(numbered(device_or_best(device)))
        self.site = folder.index.sites[0]

    def at(self, site: str) -> "RecordedModel":
        """The same, whose `capture` gives what was recorded at another place in the blocks. Raises
        InputError where nothing was."""
        if site not in self.folder.index.sites:
            there = ", ".join(self.folder.index.sites)
            raise InputError(f"{self.folder.path} has {there} of {self.name}, and no {site}.")
        other = copy.copy(self)
        other.site = site
        return other

    @property
    def identity(self) -> str:
        return f"activations {self.folder.digest}"

    @functools.cached_property
    def corpus(self) -> "FolderCorpus":
        return folder_corpus(self.folder)

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises InputError for a layer that the folder does not have."""
        there = self.folder.index.layers
        wrong = [str(layer) for layer in layers if layer not in there]
        if wrong:
            raise InputError(
                f"{self.folder.path} has layers {', '.join(map(str, there))} of {self.name}; there "
                f"is no layer {', '.join(wrong[:5])}."
            )

    def check_config(self, config: TrainConfig) -> None:
        """Raises InputError where settings say otherwise than the folder how it was captured."""
        index = self.folder.index
        asked, its = config.model, index.model
        dtype = its.dtype if asked.dtype == "auto" else asked.dtype
        both = {
            "the model": (asked.name, its.name),
            "the revision": (asked.revision or "left open", its.revision or "left open"),
            "the data type": (dtype, its.dtype),
            "the context length": (config.context_length, index.context_length),
        }
        for what, (said, true) in both.items():
            if said != true:
                raise InputError(
                    f"{self.folder.path} was captured with {what} {true}, and not {said}. "
                    "Leave that out, or capture anew."
                )
        if index.skip_first and not config.skip_first:
            raise InputError(
                f"{self.folder.path} has no activations of first positions. Leave them out as "
                "well, or capture anew."
            )
        self.check_layers(config.layers)

    def tokenized(self, texts: Sequence[str], longest: int) -> list[TokenizedText]:
        """The recorded tokens of recorded prompts, each cut to `longest`."""
        found = [self.folder.tokenized(prompt_id(text), text) for text in texts]
        return [text if len(text) <= longest else text.first(longest) for text in found]

    def capture(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
    ) -> Activations:
        """The recorded activations of recorded prompts, as `Model.capture` gives them."""
        self.check_layers(layers)
        kept = KeptRows(tokens, skip_first)
        ranges = self._ranges(tokens, kept.counts.numpy())
        device = torch.device(to or self.device)
        rows = {layer: to_device(self._read(layer, ranges), device) for layer in layers}
        return Activations(rows, kept.prompts, kept.positions)

    def _ranges(self, tokens: Tokens, counts: np.ndarray) -> list[tuple[int, int]]:
        """First row and the one after the last of each text; neighbours as one. counts: rows of
        each that are kept, its last ones."""
        ranges: list[tuple[int, int]] = []
        ends = set(np.cumsum([part.rows for part in self.folder.index.parts]).tolist())
        for text, length, count in zip(tokens.texts, tokens.lengths, counts.tolist(), strict=True):
            if not count:
                continue
            first, _ = self.folder.rows_of(prompt_id(text))
            first += int(length) - self.folder.index.skip_first - count
            if ranges and ranges[-1][1] == first and first not in ends:
                ranges[-1] = ranges[-1][0], first + count
            else:
                ranges.append((first, first + count))
        return ranges

    def _read(self, layer: int, ranges: list[tuple[int, int]]) -> torch.Tensor:
        """The rows of these ranges, [n, d_model] float32 in main memory."""
        parts = [self.folder.rows(layer, first, last, self.site).float() for first, last in ranges]
        return torch.cat(parts) if parts else torch.empty(0, self.d_model, dtype=torch.float32)


class _TokenNames:
    """Says what a token is called, as a tokenizer does."""

    def __init__(self, folder: ActivationFolder):
        self._folder = folder

    def convert_ids_to_tokens(self, ids: int | list[int]) -> str | list[str]:
        names = self._folder.names
        return names[ids] if isinstance(ids, int) else [names[number] for number in ids]


@dataclass(frozen=True)
class FolderCorpus(Corpus):
    """The prompts of a folder of activations, held out as it says."""

    folder: ActivationFolder | None = field(default=None, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """That of the corpus which the prompts are from, where the folder names one; else one that
        no corpus has, since what is held out is not what a corpus with these texts would hold out.
        """
        return self.folder.index.corpus_digest or f"folder-{super().digest}"

    def held_out(self) -> list[Prompt]:
        return self.folder.selected(held_out=True)

    def training(self, seed: int) -> list[Prompt]:
        """In the order of the folder where the seed is its own; else as the seed draws them."""
        prompts = self.folder.selected(held_out=False)
        if seed != self.folder.index.seed:
            random.Random(seed).shuffle(prompts)
        return prompts


def folder_corpus(folder: ActivationFolder) -> FolderCorpus:
    """The prompts of a folder as a corpus."""
    spec, left_out = folder_corpus_spec(folder), folder.index.left_out
    prompts = (*folder.selected(held_out=False), *folder.selected(held_out=True))
    return FolderCorpus(
        spec.name,
        prompts,
        left_out.get("repeated", 0),
        left_out.get("empty", 0),
        spec=spec,
        folder=folder,
    )


def folder_corpus_spec(folder: ActivationFolder) -> CorpusSpec:
    """Where the prompts can be read again: the corpus that they are from, else the folder."""
    return folder.index.corpus or CorpusSpec(str(folder.path / PROMPTS_FILE), "text")


def folder_config(folder: ActivationFolder | Path | str, **settings) -> TrainConfig:
    """A training from a folder, or one at a path; settings: fields of TrainConfig that the folder
    leaves open. By default all its layers, in its own order, at what blocks give where the folder
    has that."""
    if isinstance(folder, Path | str):
        folder = ActivationFolder(Path(folder).absolute())
    index = folder.index
    site = RESID_POST if RESID_POST in index.sites else index.sites[0]
    usual = {"layers": index.layers, "seed": folder.seed, "skip_first": True, "site": site}
    config = TrainConfig(
        model=index.model,
        corpus=folder_corpus_spec(folder),
        context_length=index.context_length,
        activations=str(folder.path),
        **{**usual, **settings},
    )
    RecordedModel(folder, "cpu").at(config.site).check_layers(config.layers)
    return config
