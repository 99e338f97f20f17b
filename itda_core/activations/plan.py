"""Which prompts a training reads, how long each is, and how they fall into windows."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from itda_core.activations.source import ActivationSource
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.errors import CorpusError
from itda_core.model.tokens import TokenizedText, Tokens, padded

_TOKENIZE_TOGETHER = 256
_MIN_STEPS = 16
_WINDOW_TOKENS = 8_192


@dataclass
class Plan:
    """Prompts in the order in which they are read, up to an exact number of tokens.

    Their texts are tokenised once, here: ids and spans are kept, some 21 bytes a token.
    """

    context_length: int
    skip_first: bool
    tokenizer: Any = field(default=None, repr=False)
    prompt_ids: list[str] = field(default_factory=list)
    """Of the prompts that were looked at, those too short to be read included: what counts as too
    short depends on the tokenizer, and dictionaries of two models compare on these."""
    prompts: list[Prompt] = field(default_factory=list)
    texts: list[TokenizedText] = field(default_factory=list)
    """The tokens of each prompt that are read, the first position included"""
    windows: list[tuple[int, int]] = field(default_factory=list)
    """First prompt of each window and the one after its last. A window is captured as a whole, in
    forward passes of prompts of similar length."""
    step: int = 1
    """Activations in one step of the threshold selection, at most"""
    too_short: int = 0
    """Prompts left out because they have fewer than two tokens"""
    cut: int = 0
    """Prompts of which only the first `context_length` tokens are read"""
    for_sources: int = 0
    """So many prompts, the last ones, are read for the sources in them alone"""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt that are read, the first position included."""
        return [len(text) for text in self.texts]

    @property
    def rows(self) -> np.ndarray:
        """Activations that each prompt gives, [n_prompts]."""
        return np.array(self.lengths, dtype=np.int64) - self.skip_first

    @property
    def total_rows(self) -> int:
        return int(self.rows.sum())

    @property
    def chosen_rows(self) -> int:
        """Activations without those that are read for sources alone."""
        return int(self.rows[: len(self.texts) - self.for_sources].sum())

    def with_sources(self, prompts: Sequence[Prompt], texts: Sequence[TokenizedText]) -> "Plan":
        """The same plan, and after it these prompts, read for the sources in them."""
        n_prompts = len(self.prompts)
        windows = _windows([len(text) for text in texts], _WINDOW_TOKENS) if texts else []
        return replace(
            self,
            prompts=[*self.prompts, *prompts],
            texts=[*self.texts, *texts],
            windows=[
                *self.windows,
                *((n_prompts + first, n_prompts + last) for first, last in windows),
            ],
            for_sources=len(prompts),
        )

    def first_rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Prompt number and token position of the first `count` activations, [count] each."""
        counts = self.rows
        prompts = np.repeat(np.arange(len(counts)), counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.arange(len(prompts)) - starts + self.skip_first
        return prompts[:count], positions[:count]

    def tokens(self, first: int, last: int) -> Tokens:
        """The tokens of prompts `first` to `last` (not included)."""
        return padded(self.tokenizer, self.texts[first:last])

    def in_windows(self) -> "LazyBatches":
        """The tokens of each window."""
        return LazyBatches([functools.partial(self.tokens, *window) for window in self.windows])


class LazyBatches(Sequence):
    """Batches of tokens, each made when it is asked for, so that no more than one is kept."""

    def __init__(self, makers: Sequence[Callable[[], Tokens]]):
        """makers: give the tokens of each batch, the same at every call."""
        self._makers = makers
        self._newest: tuple[int, Tokens] | None = None

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, number: int) -> Tokens:
        if self._newest is None or self._newest[0] != number:
            self._newest = None  # goes before the next one comes
            self._newest = number, self._makers[number]()
        return self._newest[1]


def make_plan(
    model: ActivationSource, prompts: Sequence[Prompt], config: TrainConfig, max_tokens: int
) -> Plan:
    """Take prompts in order until they give `max_tokens` activations; the last one is cut to fit.

    Raises CorpusError where no prompt has two tokens.
    """
    longest = min(config.context_length, model.context_length)
    plan = Plan(longest, config.skip_first, model.tokenizer)
    room = max_tokens
    for prompt, text in _tokenized(model, prompts, longest):
        if room < 1:
            break
        plan.prompt_ids.append(prompt.prompt_id)
        if len(text) < 2:
            plan.too_short += 1
            continue
        used = min(len(text), room + config.skip_first)
        plan.prompts.append(prompt)
        plan.texts.append(text.first(used))
        plan.cut += text.is_cut
        room -= used - config.skip_first
    if not plan.prompts:
        raise CorpusError("No prompt of this corpus has at least two tokens. Choose longer texts.")
    # The first step only takes seed atoms, so that a short training has to have several.
    sixteenth = max(longest, max_tokens // _MIN_STEPS)
    plan.step = min(config.batch_tokens, sixteenth)
    plan.windows = _windows(plan.lengths, max(plan.step, min(_WINDOW_TOKENS, sixteenth)))
    return plan


def _windows(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """Runs of consecutive prompts of about `tokens` tokens: first and the one after the last."""
    numbers = np.cumsum(lengths) // tokens
    edges = [0, *(np.nonzero(np.diff(numbers))[0] + 1).tolist(), len(lengths)]
    return list(itertools.pairwise(edges))


def _tokenized(
    model: ActivationSource, prompts: Sequence[Prompt], longest: int
) -> Iterator[tuple[Prompt, TokenizedText]]:
    """Each prompt with its tokens, at most `longest`."""
    for first in range(0, len(prompts), _TOKENIZE_TOGETHER):
        batch = prompts[first : first + _TOKENIZE_TOGETHER]
        texts = model.tokenized([prompt.text for prompt in batch], longest)
        yield from zip(batch, texts, strict=True)
