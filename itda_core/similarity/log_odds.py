"""In which order sources and words are shown: the most distinctive first, chance last.

Words of two lists are told apart by the log-odds ratio with an informative Dirichlet prior
(Monroe, Colaresi & Quinn 2008, "Fightin' Words", equations 16, 20 and 22).
"""

import numpy as np
import pandas as pd

COLUMN = "score"
"""Added to lists of sources: the more, the sooner its word is shown"""
_STABLE = {"kind": "stable", "ignore_index": True}


def word_of(tokens: pd.Series) -> pd.Series:
    """What tokens are counted as: their text in small letters without white space around it, or
    as it is where that leaves nothing."""
    words = tokens.astype(str).str.strip().str.lower()
    return words.where(words != "", tokens.astype(str))


def word_counts(only_a: pd.DataFrame, only_b: pd.DataFrame) -> pd.DataFrame:
    """The words of two lists of sources: word, only_a, only_b (int64, how many sources), log_odds
    and z (float64, positive where A has more), largest |z| first.

    log_odds is ln of the odds of the word in A over those in B; the prior of each word is its
    count in both lists, so that rare words don't stand out by chance. z is log_odds in standard
    deviations.
    """
    a, b = (word_of(table["token"]).value_counts() for table in (only_a, only_b))
    words = pd.Index(sorted({*a.index, *b.index}), dtype=object)
    y_a, y_b = (counts.reindex(words, fill_value=0).to_numpy(np.int64) for counts in (a, b))
    prior = (y_a + y_b).astype(np.float64)
    mass = prior.sum() + 1  # one for all words that neither has, so that no odds are infinite
    odds_a, odds_b = (np.log((y + prior) / (y.sum() + mass - y - prior)) for y in (y_a, y_b))
    log_odds = odds_a - odds_b
    z = log_odds / np.sqrt(1 / (y_a + prior) + 1 / (y_b + prior))
    table = pd.DataFrame(
        {"word": words, "only_a": y_a, "only_b": y_b, "log_odds": log_odds, "z": z}
    )
    order = np.lexsort((np.arange(len(z)), -prior, -np.abs(z).round(12)))
    return table.iloc[order].reset_index(drop=True)


def by_log_odds(
    shared: pd.DataFrame, only_a: pd.DataFrame, only_b: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The three lists in order, with the column `score`.

    What one side has alone begins with one source of each word, the words by their log-odds
    (`word_counts`), largest first: those that only this side has, then those of which it has more.
    Then come their second sources, and so on, and last those of words that the other side has as
    often. What is shared is as distinctive as its word is rare: −ln of its share among the sources
    of both, since of frequent words chance shares many. Ties keep their order.
    """
    log_odds = word_counts(only_a, only_b).set_index("word")["log_odds"]
    everything = pd.concat([shared["token"], shared["token"], only_a["token"], only_b["token"]])
    surprise = -np.log(word_of(everything).value_counts(normalize=True))
    return (
        _scored(shared, surprise).sort_values(COLUMN, ascending=False, **_STABLE),
        _in_turn(_scored(only_a, log_odds)),
        _in_turn(_scored(only_b, -log_odds)),
    )


def _scored(table: pd.DataFrame, scores: pd.Series) -> pd.DataFrame:
    return table.assign(**{COLUMN: word_of(table["token"]).map(scores).astype(np.float64)})


def _in_turn(table: pd.DataFrame) -> pd.DataFrame:
    """One row of each word after another, so that no word fills the beginning. table: of
    `_scored`."""
    turn = table.groupby(word_of(table["token"])).cumcount()
    order = np.lexsort((-table[COLUMN], turn, table[COLUMN] <= 0))
    return table.iloc[order].reset_index(drop=True)
