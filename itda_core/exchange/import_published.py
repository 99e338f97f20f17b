"""A dictionary of the published code becomes a run, once its sources are found in the texts."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from itda_core.activations.plan import LazyBatches, Plan, make_plan
from itda_core.activations.pool import pool_at
from itda_core.activations.sources import Sources
from itda_core.config import CorpusSpec, TrainConfig
from itda_core.corpus.corpus import (
    Corpus,
    Prompt,
    corpus_texts,
    make_corpus,
    prompt_id,
)
from itda_core.corpus.reading import BadRow, whole_characters
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ExchangeError, InputError
from itda_core.exchange.importing import (
    ImportedRun,
    ImportOptions,
    check_fits,
    digest_of,
    import_config,
    import_workspace,
    is_plain_name,
)
from itda_core.exchange.published import PROMPTS_FILE, PublishedFolder, read_published
from itda_core.model.model import Model
from itda_core.model.tokens import Tokens, padded
from itda_core.progress import Progress
from itda_core.runs.training_context import TrainingContext

MIN_COSINE = 0.99
"""Between an atom and the activation of the token that is said to be its source."""
_TEXTS_TOGETHER = 64
_ALL = 2**62
"""More tokens than there are"""


def import_published(folder: Path, runs: Path, options: ImportOptions) -> Iterator[Progress]:
    """Make a run of a folder in the published layout, yielding progress; the last one names it.

    Each source is looked up in the texts, and the model's activation there is compared with the
    atom. Raises ExchangeError where they differ: then texts, model, layer or indices are not
    those of the atoms. Atoms from padding, or without an index, have no text and are left out.
    """
    published = read_published(folder)
    layer = options.layer_of(published.layer)
    spec, texts, bad_rows = _texts(published, options, folder)
    yield Progress("loading")
    model = options.load_model(published.model)
    check_fits(model, layer, len(published.offset))
    yield Progress("reading")
    config = import_config(
        options,
        model,
        spec,
        layer,
        context_length=options.context_length or published.context_length,
        max_atoms=len(published.atoms),
        l0=published.l0,
        threshold=published.threshold,
        offset="mean" if published.offset.any() else "zero",
        pursuit=published.pursuit,
        skip_first=published.skip_first,
    )
    matched = _match(published, texts, model, config)
    corpus = make_corpus(spec.name, texts)
    read = make_corpus(spec.name, texts[: published.texts_read])
    plan = _plan(matched, read, model, config)
    unseen = _unseen(corpus, read, bad_rows)
    identity = f"{corpus.digest} {digest_of(published.atoms, published.offset)}"
    workspace = import_workspace(config, model, runs, "published", identity)
    imported = ImportedRun(
        TrainingContext(config, model, unseen, plan, workspace),
        {"kind": "itda", "origin": "published"},
        skipped={"atoms without a text": len(published.atoms) - len(matched.rows)},
    )
    yield from imported.run(
        lambda: _dictionary(published, matched, read, imported.context),
        lambda: {"lowest_cosine": min(matched.cosines)},
    )


def _texts(
    published: PublishedFolder, options: ImportOptions, folder: Path
) -> tuple[CorpusSpec, list[str], tuple[BadRow, ...]]:
    """The texts that the indices count, what they are called, and rows that can't be read."""
    if options.corpus is None and published.prompts is not None:
        spec, texts = CorpusSpec(str(folder / PROMPTS_FILE)), published.prompts
        bad_rows = ()
    else:
        name = options.corpus or published.dataset
        if name is None or (options.corpus is None and not is_plain_name(name)):
            raise InputError(
                "The folder does not say which texts it was made of in a way that is known here. "
                "Name them with --corpus."
            )
        content = corpus_texts(options.corpus_spec(name))
        spec, texts, bad_rows = content.spec, content.texts, content.bad_rows
    return spec, [whole_characters(text) for text in texts], bad_rows


@dataclass
class _Matched:
    """Atoms whose sources were found in the texts."""

    rows: list[int] = field(default_factory=list)
    """Numbers of the atoms"""
    sources: list[tuple] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    """Of each atom and the activation of its source"""
    centred: list[float] = field(default_factory=list)
    """The same, the mean of its components taken off the activation"""


def _match(
    published: PublishedFolder, texts: Sequence[str], model: Model, config: TrainConfig
) -> _Matched:
    """Find each atom's token and compare its activation. Raises ExchangeError where one differs."""
    last = int(published.indices[:, 0].max())
    if len(texts) <= last:
        raise ExchangeError(
            f"An atom comes from text {last:,} (counted from 0), and there are {len(texts):,}. "
            "Give the texts that the dictionary was made of, with --corpus."
        )
    matched = _Matched()
    numbers = [number for number in np.unique(published.indices[:, 0]) if number >= 0]
    numbers = [number for number in numbers if texts[number].strip()]
    firsts = range(0, len(numbers), _TEXTS_TOGETHER)
    batches = [numbers[first : first + _TEXTS_TOGETHER] for first in firsts]
    longest = min(config.context_length, model.context_length)
    tokens = LazyBatches(
        [
            functools.partial(padded, model.tokenizer, model.tokenized(some_texts, longest))
            for some_texts in ([texts[one] for one in some] for some in batches)
        ]
    )
    for step in model.capture_each(tokens, config.layers, skip_first=False, to="cpu"):
        if step.value is not None:
            of_batch = batches[step.number], tokens[step.number], step.value[config.layers[0]]
            _look_up(published, *of_batch, matched)
    if not matched.rows:
        raise ExchangeError("None of the atoms comes from a token of these texts.")
    _check_cosines(matched, published.indices)
    return matched


def _look_up(
    published: PublishedFolder,
    numbers: Sequence[int],
    tokens: Tokens,
    activations: torch.Tensor,
    matched: _Matched,
) -> None:
    """Add the atoms that come from the given texts. numbers: what the indices call these texts;
    activations: of all their tokens, [n_tokens, d_model], on the host.

    Texts of one token are not read, and positions after the last token are padding.
    """
    prompts = [Prompt(prompt_id(text), text) for text in tokens.texts]
    firsts = np.cumsum(tokens.lengths) - tokens.lengths
    for row, number in enumerate(numbers):
        length = tokens.lengths[row] if tokens.lengths[row] > 1 else 0
        of_text, position = published.indices[:, 0] == number, published.indices[:, 1]
        atoms = np.nonzero(of_text & (position >= 0) & (position < length))[0]
        x, own = activations[firsts[row] + position[atoms]], published.atoms[atoms]
        places = np.stack([np.full(len(atoms), row), position[atoms]], axis=1)
        matched.rows += atoms.tolist()
        matched.sources += Sources(tokens, prompts, places)
        matched.cosines += _cosines(own, x - published.offset)
        matched.centred += _cosines(own, x - x.mean(1, keepdim=True))


def _cosines(atoms: torch.Tensor, x: torch.Tensor) -> list[float]:
    return torch.nn.functional.cosine_similarity(atoms, x, dim=1).tolist()


def _check_cosines(matched: _Matched, indices: np.ndarray) -> None:
    cosines, centred = np.array(matched.cosines), np.array(matched.centred)
    is_wrong = ~(cosines >= MIN_COSINE)
    if not is_wrong.any():
        return
    worst = int(cosines.argmin())
    atom = matched.rows[worst]
    why = (
        "Check model, revision, layer and texts; where those are right, the indices have drifted "
        "from the atoms, and which tokens they come from can't be known."
    )
    if (centred[is_wrong] >= MIN_COSINE).all():
        why = (
            "They do match once the mean of its components is taken off each activation: the "
            "dictionary was made with TransformerLens, which changes a model's weights so that "
            "this mean is zero. Make it again with the model as it is."
        )
    raise ExchangeError(
        f"{int(is_wrong.sum()):,} of {len(cosines):,} atoms are not the activations of the tokens "
        f"that they are said to come from: the cosine has to be at least {MIN_COSINE}, and for "
        f"atom {atom} (text {indices[atom, 0]}, token {indices[atom, 1]}) it is "
        f"{cosines[worst]:.3f}. {why}"
    )


def _plan(matched: _Matched, read: Corpus, model: Model, config: TrainConfig) -> Plan:
    """Reads the texts that have a source, whole, then others that were read."""
    with_source = {source[0] for source in matched.sources}
    first = [prompt for prompt in read.prompts if prompt.prompt_id in with_source]
    others = [prompt for prompt in read.prompts if prompt.prompt_id not in with_source]
    enough = len(first) * config.context_length
    whole = make_plan(model, first, config, enough).total_rows
    return make_plan(model, [*first, *others], config, max(whole, config.explored_tokens))


@dataclass(frozen=True)
class _HeldOut(Corpus):
    """Prompts that are held out, all of them."""

    def held_out(self) -> list[Prompt]:
        return list(self.prompts)


def _unseen(corpus: Corpus, read: Corpus, bad_rows: tuple[BadRow, ...]) -> _HeldOut:
    """Of the prompts that are held out here, those that the dictionary was not made of."""
    seen = {prompt.prompt_id for prompt in read.prompts}
    unseen = [prompt for prompt in corpus.held_out() if prompt.prompt_id not in seen]
    return _HeldOut(corpus.name, tuple(unseen), bad_rows=bad_rows)


def _dictionary(
    published: PublishedFolder, matched: _Matched, read: Corpus, context: TrainingContext
) -> Dictionary:
    order = np.argsort(matched.rows)  # the atoms keep the order in which they were taken
    whole = make_plan(context.model, read.prompts, context.config, _ALL)
    return context.dictionary(
        context.config.layers[0],
        [matched.sources[row] for row in order],
        atoms=published.atoms[np.sort(matched.rows)],
        offset=published.offset,
        l0=published.l0,
        prompt_ids=tuple(prompt.prompt_id for prompt in read.prompts),
        pursuit=published.pursuit,
        min_projection=published.min_projection,
        median_norm=published.median_norm,
        pool=pool_at(whole, np.arange(whole.total_rows)),
        n_seed_atoms=sum(row < published.n_seed_atoms for row in matched.rows),
    )
