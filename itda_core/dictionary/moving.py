"""A dictionary in another model: the activations of its sources there become the atoms.

A latent is a token in a text, so that any model that reads the text has it. docs/method.md has what
is taken for the offset, docs/architecture.md what becomes of sources that have no token.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from itda_core.activations.centre import centre_of
from itda_core.activations.massive import massive, usable
from itda_core.activations.plan import LazyBatches
from itda_core.activations.source_places import Reading, SourcePlaces, find_sources
from itda_core.activations.sources import source_table, sources_of
from itda_core.config import MEAN_BUDGET_CAP, HookPoint
from itda_core.corpus.corpus import Prompt, prompt_id
from itda_core.devices import to_device, to_host
from itda_core.errors import InputError, RunError
from itda_core.model.model import Model
from itda_core.model.tokenizer import is_of_before, may_be_same
from itda_core.model.tokens import Tokens, padded
from itda_core.pursuit.budget import smallest_worth
from itda_core.tables import read_frame

if TYPE_CHECKING:
    from itda_core.dictionary.dictionary import Dictionary

NOT_USABLE = "its activation there is zero, not finite, or equal to the mean"
_TOGETHER = 64
"""Prompts captured together"""
_SAMPLE = 65_536
"""Activations, at most, whose mean is the offset of a dictionary that is moved by itself"""
_APART = 2_048
"""Activations, at most, on which a budget is measured, as the coverage has it: a tenth of all"""
LATE = "the last "
"""How `Dictionary.reading` begins where an earlier version read the ends of long prompts"""
_SHOWN = 10
"""Latents that a sentence names"""


@dataclass(frozen=True)
class MovedSources:
    """The sources of a dictionary among the activations that a move reads."""

    origin: "Dictionary"
    rows: np.ndarray
    """[n_atoms] int64: of each latent the row of its token, −1 where it has none"""
    why: Mapping[int, str]
    """By latent without a token: what keeps it from having one"""
    passed_on: Mapping[str, Any]
    """What config.json says of the origin that holds for this one as well"""

    @functools.cached_property
    def latents(self) -> np.ndarray:
        """[n] int64: latents that have a token, ascending."""
        return np.flatnonzero(self.rows >= 0)

    def about(self, dictionary: "Dictionary") -> dict[str, Any]:
        """What config.json says of the move: the latents that `dictionary` lacks and why, and those
        that meet on one token, all by their numbers in the dictionary that was trained."""
        numbers = self.origin.latents_in_origin()
        lacking = np.flatnonzero(~np.isin(numbers, dictionary.origin_latents)).tolist()
        left_out = [
            {"latent": int(numbers[latent]), "why": self.why.get(latent, NOT_USABLE)}
            for latent in lacking
        ]
        return {"moved": {"left_out": left_out, "together": self.together()}, **self.passed_on}

    def together(self) -> list[list[int]]:
        """Latents, by their numbers in the origin, that meet on one token and so have one atom."""
        numbers, table = self.origin.latents_in_origin(), {}
        for latent in self.latents.tolist():
            table.setdefault(int(self.rows[latent]), []).append(int(numbers[latent]))
        return [latents for latents in table.values() if len(latents) > 1]

    @property
    def notes(self) -> list[str]:
        """What a person has to know of the move, a sentence each."""
        notes, by_reason = [], {}
        numbers = self.origin.latents_in_origin()
        for latent, why in self.why.items():
            by_reason.setdefault(why, []).append(int(numbers[latent]))
        for why, latents in by_reason.items():
            notes.append(f"Left out {named(latents)}: {why}.")
        if groups := self.together():
            rest = sorted(latent for group in groups for latent in group[1:])
            notes.append(
                f"Come to stand on the token of another latent: {named(rest)}. Atoms of one token "
                "are equal, and the pursuit uses the first."
            )
        return notes


def named(latents: Sequence[int]) -> str:
    """ "latent 5", or "12 latents (5, 77, …)"."""
    if len(latents) == 1:
        return f"latent {latents[0]}"
    shown = ", ".join(map(str, latents[:_SHOWN]))
    return f"{len(latents):,} latents ({shown}{', …' if len(latents) > _SHOWN else ''})"


@dataclass(frozen=True)
class MovedAtoms:
    """What the activations of sources make."""

    atoms: torch.Tensor
    """[n_atoms, d_model] float32, unit rows"""
    kept: np.ndarray
    """[n_atoms] int64: which of the activations they are; others are no direction"""
    offset: torch.Tensor
    """[d_model] float32"""
    median_norm: float
    min_projection: float


def moved_atoms(
    origin: "Dictionary", x: torch.Tensor, sample: torch.Tensor, apart: np.ndarray
) -> MovedAtoms:
    """Unit atoms of the activations at sources, after an offset of the new model's own.

    x: [n_sources, d_model]; sample: [n_tokens, d_model], whose mean (massive activations left out)
    is the offset where `origin` has one; apart: [n_tokens] bool, those of the sample that no source
    can have a part in, on which a budget is measured.
    """
    [good] = to_host(usable(sample))
    is_apart = torch.from_numpy(apart)[good]
    sample = sample[to_device(good.nonzero()[:, 0], sample.device)]
    centre = centre_of(sample)
    offset = centre.mean if origin.offset.any() else torch.zeros_like(centre.mean)
    centred = x - offset
    [good] = to_host(usable(x) & usable(centred))
    kept = good.nonzero()[:, 0]
    atoms = torch.nn.functional.normalize(centred, dim=1)[to_device(kept, x.device)]
    min_projection = 0.0
    if origin.min_projection:
        [norms] = to_host(sample.norm(dim=1))
        rows = is_apart.nonzero()[:, 0][-min(_APART, max(1, len(sample) // 10)) :]
        rows = rows[~massive(norms[rows], centre.median_norm)]
        measured = sample[to_device(rows, sample.device)] - offset
        terms = origin.l0 // MEAN_BUDGET_CAP, origin.l0
        min_projection = smallest_worth(measured, atoms, *terms)
    return MovedAtoms(atoms, kept.numpy(), offset, centre.median_norm, min_projection)


def check_can_move(origin: "Dictionary") -> None:
    """Raises InputError for an autoencoder."""
    if origin.kind != "itda":
        raise InputError(
            "An autoencoder can't be moved: its latents are no tokens, so that another model has "
            "no activation that would be theirs. Move a dictionary that was trained on tokens."
        )


def is_same_tokenizer(origin: "Dictionary", model: Model) -> bool:
    """Whether token positions surely are the same."""
    names = origin.tokenizer, model.tokenizer_digest
    return may_be_same(*names) and not any(map(is_of_before, names))


def moved(
    origin: "Dictionary", model: Model, layer: int, prompts: Iterable[str] | None = None
) -> "Dictionary":
    """See `Dictionary.moved`."""
    check_can_move(origin)
    model.check_layers([layer])
    texts = texts_of(origin) if prompts is None else {prompt_id(text): text for text in prompts}
    check_texts(origin, texts)
    longest, skip_first = _how_read(origin, model)
    is_same = is_same_tokenizer(origin, model)
    places = find_sources(origin.sources, texts, model, longest, skip_first, is_same)
    latents = np.flatnonzero(places.reading >= 0)
    if not len(latents):
        raise InputError(f"No source of this dictionary has a token in {model.name}.")
    read = _read(places, latents, model, layer, skip_first)
    made = moved_atoms(origin, read.x, read.sample, read.is_apart)
    hook_point = HookPoint(model.name, layer, model.site)
    return taken_over(origin, made, latents, read.sources, hook_point, model)


def taken_over(
    origin: "Dictionary",
    made: MovedAtoms,
    latents: np.ndarray,
    sources: Sequence[tuple],
    hook_point: HookPoint,
    model: Model,
) -> "Dictionary":
    """`origin` in another model. latents: which of its latents the activations are of that `made`
    was made from; sources: (prompt_id, position, start, end, token, word) of each of them."""
    kept = latents[made.kept]
    table = source_table([sources[number] for number in made.kept])
    is_same = is_same_tokenizer(origin, model)
    return replace(
        origin,
        atoms=made.atoms,
        offset=made.offset,
        hook_point=hook_point,
        sources=table.drop(columns="word"),
        words=table["word"].to_numpy(),
        tokenizer=model.tokenizer_digest,
        model_digest=model.digest or "",
        reading=origin.reading.removeprefix(LATE),
        min_projection=made.min_projection,
        median_norm=made.median_norm,
        pool=origin.pool if is_same else None,
        n_seed_atoms=int((kept < origin.n_seed_atoms).sum()),
        origin_latents=origin.latents_in_origin()[kept],
    )


def texts_of(origin: "Dictionary") -> dict[str, str]:
    """Texts by prompt id, from the run directory that a dictionary was loaded from. Raises RunError
    where there is none."""
    file = None if origin.directory is None else Path(origin.directory) / "prompts.parquet"
    try:
        table = read_frame(file, columns=["prompt_id", "text"])
    except (TypeError, ValueError, OSError) as error:
        raise RunError(
            "The texts that hold the sources are not known: load the dictionary from its run "
            "directory, or give the texts."
        ) from error
    return dict(zip(table["prompt_id"], table["text"], strict=True))


def check_texts(origin: "Dictionary", texts: Mapping[str, str]) -> None:
    """Raises RunError where the text of a source is missing or another one."""
    needed = origin.sources["prompt_id"].unique()
    missing = [name for name in needed if name not in texts]
    wrong = [name for name in needed if name in texts and prompt_id(texts[name]) != name]
    if missing or wrong:
        raise RunError(
            f"Of {len(needed):,} texts that hold sources {len(missing):,} are missing and "
            f"{len(wrong):,} are other ones, such as prompt {(missing or wrong)[0]}. Give the "
            "texts that the dictionary was made of."
        )


def _how_read(origin: "Dictionary", model: Model) -> tuple[int, bool]:
    """Tokens of a prompt that are read, and whether the first position is left out, as
    `Dictionary.reading` says it."""
    words = origin.reading.removeprefix(LATE).split()
    longest = int(words[0]) if words and words[0].isdigit() else model.context_length
    return min(longest, model.context_length), "with the first" not in origin.reading


@dataclass(frozen=True)
class _Read:
    """The activations of the prompts that hold sources."""

    x: torch.Tensor
    """[n_sources, d_model]"""
    sources: list[tuple]
    """(prompt_id, position, start, end, token, word) of each"""
    sample: torch.Tensor
    """[n_tokens, d_model], of all tokens that were read, or the first of them"""
    is_apart: np.ndarray
    """[n_tokens] bool, those that are no source"""


def _read(
    places: SourcePlaces, latents: np.ndarray, model: Model, layer: int, skip_first: bool
) -> _Read:
    """latents: the sources that have a token."""
    readings, size = places.readings, model.d_model
    counts = np.array([len(reading.text) for reading in readings]) - skip_first
    starts = np.cumsum(counts) - counts
    rows = starts[places.reading[latents]] + places.position[latents] - skip_first
    batches = [readings[first : first + _TOGETHER] for first in range(0, len(readings), _TOGETHER)]
    tokens = LazyBatches([functools.partial(_tokens, model, batch) for batch in batches])
    x = torch.zeros((len(latents), size), dtype=torch.float32, device=model.device)
    n_sample = min(_SAMPLE, int(counts.sum()))
    sample = torch.zeros((n_sample, size), dtype=torch.float32, device=model.device)
    sources: dict[int, tuple] = {}
    for step in model.capture_each(tokens, [layer], skip_first):
        if step.value is None:
            continue
        found, begin = step.value[layer], int(starts[step.number * _TOGETHER])
        inside = np.flatnonzero((rows >= begin) & (rows < begin + len(found)))
        taken = to_device(torch.from_numpy(rows[inside] - begin), found.device)
        x[to_device(torch.from_numpy(inside), found.device)] = found[taken]
        sample[begin : begin + len(found)] = found[: max(0, n_sample - begin)]
        prompts = [Prompt(one.prompt_id, one.text.text) for one in batches[step.number]]
        of_rows = sources_of(tokens[step.number], prompts, step.value)
        sources.update(zip(inside.tolist(), of_rows.take(rows[inside] - begin), strict=True))
    is_apart = ~np.isin(np.arange(n_sample), rows)
    return _Read(x, [sources[number] for number in range(len(latents))], sample, is_apart)


def _tokens(model: Model, readings: Sequence[Reading]) -> Tokens:
    return padded(model.tokenizer, [reading.text for reading in readings])
