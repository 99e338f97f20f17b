"""Which latent is proposed to steer with: one that means something, not the full stop that is in
every text."""

import pandas as pd

from itda_core.analysis.latent_scores import CHANCE
from itda_core.corpus.words import is_content_word
from itda_core.runs.latent_uses import word_at
from pages.components.explorer import explorer
from pages.components.latents.score import SURE

RULE = (
    "Of the latents that the text or the locked token uses, what explains most first: the first "
    "whose source is a whole word of three letters or more and no function word, that has at least "
    "20 strong uses of which at most a fifth may be filler, and whose source tells them from other "
    "tokens (the interval of its AUROC is above 0.5). Without such a one, or without scores, the "
    "first such word; without one, the first latent."
)
_MIN_STRONG = 20
_MOST = 200
"""Latents that are looked at"""


def proposed_latent(run, latents: pd.DataFrame) -> int:
    """Its number, by RULE; 0 without a latent. run: a row of Store.runs.table(); latents: with a
    column latent, in their order."""
    numbers = latents["latent"].drop_duplicates().head(_MOST).tolist()
    if not numbers:
        return 0
    store = explorer().store
    table = store.known(store.latents.table, run.run_id, tuple(sorted(numbers)))
    table = table.set_index("latent").reindex(numbers).dropna(subset=["token"])
    words = table[[_is_whole_word(source) for source in table.itertuples()]]
    for some in (words[_is_trusted(words)], words):
        if len(some):
            return int(some.index[0])
    return int(numbers[0])


def _is_whole_word(source) -> bool:
    token = source.token.strip()
    return is_content_word(token) and word_at(source.text, source.start, source.end) == token


def _is_trusted(table: pd.DataFrame) -> pd.Series:
    strong = table["strong"].ge(_MIN_STRONG) & table["filler"].le(SURE)
    return (strong & table["auroc_low"].gt(CHANCE)).fillna(False).astype(bool)
