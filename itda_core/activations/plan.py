"""Which prompts a training reads, how long each is, and how they fall into windows."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.errors import CorpusError
from itda_core.model.model import Model
from itda_core.model.tokens import Tokens, tokenize

_TOKENIZE_TOGETHER = 256
_LEAST_STEPS = 16
_WINDOW_TOKENS = 8_192


@dataclass
class Plan:
    """Prompts in the order in which they are read, up to an exact number of tokens."""

    context_length: int
    skip_first: bool
    offered: list[str] = field(default_factory=list)
    """Ids of the prompts that were looked at, those too short to be read included: what counts as
    too short depends on the tokenizer, and dictionaries of two models compare on these."""
    prompts: list[Prompt] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Tokens of each prompt that are read, the first position included"""
    windows: list[tuple[int, int]] = field(default_factory=list)
    """First prompt of each window and the one after its last. A window is captured as a whole, in
    forward passes of prompts of similar length."""
    step: int = 1
    """Activations in one step of the threshold selection, at most"""
    too_short: int = 0
    """Prompts left out because they have fewer than two tokens"""
    cut: int = 0
    """Prompts of which only the first `context_length` tokens are read"""

    @property
    def rows(self) -> np.ndarray:
        """Activations that each prompt gives, [n_prompts]."""
        return np.array(self.lengths, dtype=np.int64) - self.skip_first

    @property
    def total_rows(self) -> int:
        return int(self.rows.sum())

    def first_rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Prompt number and token position of the first `count` activations, [count] each."""
        counts = self.rows
        prompts = np.repeat(np.arange(len(counts)), counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.arange(len(prompts)) - starts + self.skip_first
        return prompts[:count], positions[:count]

    def tokens(self, model: Model, first: int, last: int) -> Tokens:
        """The tokens of prompts `first` to `last` (not included)."""
        texts = [prompt.text for prompt in self.prompts[first:last]]
        tokens = model.tokenize(texts, self.context_length)
        for row, length in enumerate(self.lengths[first:last]):
            if length < tokens.lengths[row]:
                tokens = tokens.shortened(row, length)
        return tokens


def make_plan(
    model: Model, prompts: Sequence[Prompt], config: TrainConfig, max_tokens: int
) -> Plan:
    """Take prompts in order until they give `max_tokens` activations; the last one is cut to fit.

    Raises CorpusError where no prompt has two tokens.
    """
    longest = min(config.context_length, model.context_length)
    plan = Plan(longest, config.skip_first)
    room = max_tokens
    for prompt, length, is_cut in _lengths(model, prompts, longest):
        if room < 1:
            break
        plan.offered.append(prompt.prompt_id)
        if length < 2:
            plan.too_short += 1
            continue
        used = min(length, room + config.skip_first)
        plan.prompts.append(prompt)
        plan.lengths.append(used)
        plan.cut += is_cut
        room -= used - config.skip_first
    if not plan.prompts:
        raise CorpusError("No prompt of this corpus has at least two tokens. Choose longer texts.")
    # The first step only seeds a dictionary, so that a short training has to have several.
    sixteenth = max(longest, max_tokens // _LEAST_STEPS)
    plan.step = min(config.batch_tokens, sixteenth)
    plan.windows = _windows(plan.lengths, max(plan.step, min(_WINDOW_TOKENS, sixteenth)))
    return plan


def _windows(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """Runs of consecutive prompts of about `tokens` tokens: first and the one after the last."""
    numbers = np.cumsum(lengths) // tokens
    edges = [0, *(np.nonzero(np.diff(numbers))[0] + 1).tolist(), len(lengths)]
    return list(itertools.pairwise(edges))


def _lengths(
    model: Model, prompts: Sequence[Prompt], longest: int
) -> Iterator[tuple[Prompt, int, bool]]:
    """Each prompt with its number of tokens, at most `longest`, and whether it was cut."""
    for first in range(0, len(prompts), _TOKENIZE_TOGETHER):
        some = prompts[first : first + _TOKENIZE_TOGETHER]
        # Not model.tokenize: its limit may be `longest`, and one token more shows what is cut.
        whole = tokenize(model.tokenizer, [prompt.text for prompt in some], longest + 1).lengths
        for prompt, length in zip(some, whole.tolist(), strict=True):
            yield prompt, min(length, longest), length > longest
