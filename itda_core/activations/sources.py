"""Which token each row of captured activations is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from itda_core.activations.plan import Plan
from itda_core.corpus.corpus import Prompt
from itda_core.model.model import Activations
from itda_core.model.tokens import Tokens

SOURCE_COLUMNS = ["latent", "prompt_id", "position", "start", "end", "token"]


class Sources(Sequence):
    """(prompt_id, position, start, end, token, word) of each row of captured activations.

    Made when they are looked at: few rows become atoms.
    """

    def __init__(self, tokens: Tokens, prompts: Sequence[Prompt], places: np.ndarray):
        """places: [n_rows, 2] int, the prompt's number and the token's position of each row."""
        self._tokens, self._prompts, self._places = tokens, prompts, places

    def take(self, rows: np.ndarray) -> "Sources":
        """The sources of these rows only."""
        return Sources(self._tokens, self._prompts, self._places[rows])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> tuple:
        prompt, position = (int(number) for number in self._places[row])
        start, end = self._tokens.spans[prompt, position]
        return (
            self._prompts[prompt].prompt_id,
            position,
            int(start),
            int(end),
            self._tokens.token_text(prompt, position),
            self._tokens.word_start(prompt, position),
        )


def sources_of(tokens: Tokens, prompts: Sequence[Prompt], activations: Activations) -> Sources:
    """The source of each row of captured activations."""
    places = np.stack([activations.prompts, activations.positions], axis=1)
    return Sources(tokens, prompts, places)


def sources_at(plan: Plan, rows: np.ndarray) -> list[tuple]:
    """(prompt_id, position, start, end, token, word) of the given rows of a plan."""
    prompts, positions = plan.first_rows(plan.total_rows)
    source_of_row: dict[int, tuple] = {}
    wanted = np.unique(rows)
    for first, last in plan.windows:
        inside = wanted[(prompts[wanted] >= first) & (prompts[wanted] < last)]
        if not len(inside):
            continue
        places = np.stack([prompts[inside] - first, positions[inside]], axis=1)
        sources = Sources(plan.tokens(first, last), plan.prompts[first:last], places)
        source_of_row.update(zip(inside.tolist(), sources, strict=True))
    return [source_of_row[row] for row in rows.tolist()]


def source_table(sources: Sequence[tuple]) -> pd.DataFrame:
    """(prompt_id, position, start, end, token, word) of each atom as a table: latent, prompt_id,
    position, start, end, token, word."""
    table = pd.DataFrame(list(sources), columns=[*SOURCE_COLUMNS[1:], "word"])
    table.insert(0, "latent", np.arange(len(table)))
    numbers = ["latent", "position", "start", "end", "word"]
    return table.astype(dict.fromkeys(numbers, "int64"))
