"""The short card of a latent, shown on hover wherever the latent is named: data for the project's
own components, which draw it by card.js."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from itda_core.store.card_queries import ShortUses
from pages.components.explorer import explorer
from pages.components.latents.elsewhere import origins
from pages.components.latents.score import how_well_told, strong_in_words, threshold_of
from pages.components.latents.search import wants_strong
from pages.components.run_names import words_of
from pages.components.text import shown, snippet, token_label

_HERE = Path(__file__).parent
CARD_JS = (_HERE / "card.js").read_text("utf-8")
"""Stands before the script of each component that shows cards"""
CARD_CSS = (_HERE / "card.css").read_text("utf-8")
_STRONGEST = 3
_BINS = 24
_MOST_KEPT = 4_096

Card = dict[str, Any]


class _KeptCards:
    """The cards of one dictionary, of strong uses or of all, that were made since something was
    written last."""

    def __init__(self) -> None:
        self.cards: dict[int, Card] = {}


def cards_of(run, latents: Collection[int]) -> dict[str, Card]:
    """By latent, as text: those that are not known yet are made together, in three queries. run: a
    row of Store.runs.table()."""
    store = explorer().store
    kept = store.known(_no_cards, run.run_id, wants_strong())
    wanted = dict.fromkeys(map(int, latents))
    missing = [latent for latent in wanted if latent not in kept.cards]
    if missing:
        if len(kept.cards) > _MOST_KEPT:
            kept.cards.clear()
            missing = list(wanted)
        kept.cards.update(_made(run, missing))
    return {str(latent): kept.cards[latent] for latent in wanted if latent in kept.cards}


def _no_cards(_run_id: str, _of_strong: bool) -> _KeptCards:
    return _KeptCards()


def _made(run, latents: list[int]) -> dict[int, Card]:
    store = explorer().store
    table = store.known(store.latents.table, run.run_id, tuple(sorted(latents)))  # as a list has it
    table["origin_words"] = origins(run, table["label_from"])
    uses = store.cards.uses(run.run_id, table["latent"].tolist(), _STRONGEST, _BINS)
    return {
        int(latent.latent): _card(run, latent, uses[int(latent.latent)])
        for latent in table.itertuples()
    }


def _card(run, latent, uses: ShortUses) -> Card:
    threshold = threshold_of(latent)
    strong = "strong uses" if threshold is not None else "strongest uses"
    return {
        "latent": int(latent.latent),
        "run": run.run_id,
        "title": token_label(latent.token),
        "source": snippet(latent.text, latent.start, latent.end, 50),
        "of": shown(latent.title or "") or f"{words_of(run).source} in prompt {latent.prompt_id}",
        "label": _label(latent),
        "score": _score(latent),
        "used": _used(latent, threshold is not None and wants_strong()),
        "strong": strong if len(uses.strongest) else "",
        "uses": [
            {
                "coefficient": f"{use.coefficient:+.2f}",
                "text": snippet(use.text, use.start, use.end, 34),
            }
            for use in uses.strongest
        ],
        "histogram": {
            name: bins.tolist() if isinstance(bins, np.ndarray) else bins
            for name, bins in vars(uses.bins).items()
        },
    }


def _used(latent, is_strong: bool) -> str:
    """In the words of the page of the latent."""
    share = f"{latent.strong_density if is_strong else latent.density:.2%}"
    return f"{'strongly ' * is_strong}used on {share} of the explored tokens"


def _label(latent) -> str:
    if not latent.label:
        return ""
    return shown(latent.label) + (f" (from {latent.origin_words})" if latent.origin_words else "")


def _score(latent) -> list[str]:
    """What is known of how far to trust it, a sentence each; none without scores."""
    if pd.isna(latent.why):
        return []
    return [sentence for sentence in (strong_in_words(latent), how_well_told(latent)) if sentence]
