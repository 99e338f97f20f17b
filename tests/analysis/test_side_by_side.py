"""A text by two dictionaries, side by side, against sums by hand."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.side_by_side import side_by_side
from itda_core.errors import InputError


@dataclass
class Parts:
    """What is asked of a decomposition."""

    ends: list[int]
    """of every token of the text"""
    terms: dict[int, list[tuple[int, float, float]]]
    """by position: latent, coefficient, share left after it"""
    text: str = "ab cd"

    @property
    def positions(self):
        return np.array(list(self.terms))

    @property
    def shares_left(self):
        return np.array([terms[-1][2] if terms else 1.0 for terms in self.terms.values()])

    def spans(self):
        """Pieces of one character share its span, as tokenizers say it."""
        starts = [max([0, *(one for one in self.ends if one < end)]) for end in self.ends]
        return list(zip(starts, self.ends, strict=True))

    def token_text(self, position):
        return self.text[slice(*self.spans()[position])]

    def table(self):
        rows = [(place, *term) for place, terms in self.terms.items() for term in terms]
        return pd.DataFrame(rows, columns=["position", "latent", "coefficient", "share_left"])


PAIRS = np.array([[0, 5], [1, 6], [2, 7]])


def by_token(found):
    return found.tokens.set_index("position_a")


def test_what_is_in_common_is_what_shared_latents_explain_of_all_that_is_explained():
    a = Parts([2, 5], {0: [(0, 2.0, 0.4), (1, -1.0, 0.2)], 1: [(1, 1.0, 0.5)]})
    b = Parts(
        [1, 2, 5], {0: [(7, 1.0, 0.9)], 1: [(5, 1.0, 0.5), (9, 3.0, 0.25)], 2: [(6, -4.0, 0.6)]}
    )
    found = side_by_side(a, b, PAIRS, has_one_tokenizer=False)
    assert (found.unmatched_a, found.unmatched_b) == (0, 1)
    assert found.tokens["position_a"].tolist() == [1, 0], "the least in common first"
    first, second = (by_token(found).loc[place] for place in (1, 0))
    assert first["in_common"] == 0.0, "one latent, of the other sign"
    # Of A's 0.8 latent 0 explains 0.6, of B's 0.75 its namesake 5 explains 0.5.
    assert second["in_common"] == pytest.approx((0.6 / 0.8 + 0.5 / 0.75) / 2)
    assert second[["position_b", "token"]].tolist() == [1, "ab"]
    assert second[["left_a", "left_b"]].tolist() == [0.2, 0.25]
    assert second[["latents_a", "latents_b", "latents_both"]].tolist() == [2, 2, 1]
    terms = found.terms[found.terms["position_a"] == 0]
    assert terms["latent_a"].fillna(-1).tolist() == [0, -1, 1], "9 has no namesake"
    assert terms["latent_b"].tolist() == [5, 9, 6], "6 is a namesake that B does not use here"
    assert terms["is_common"].tolist() == [True, False, False]
    np.testing.assert_allclose(terms["explains_a"], [0.6, 0.0, 0.2])
    np.testing.assert_allclose(terms["explains_b"], [0.5, 0.25, 0.0])
    np.testing.assert_allclose(terms["coefficient_a"], [2.0, np.nan, -1.0])
    np.testing.assert_allclose(terms["coefficient_b"], [1.0, 3.0, np.nan])


def test_with_one_tokenizer_tokens_are_the_same_by_position():
    # Two tokens of one character have the same end.
    a = Parts([2, 2, 5], {0: [(0, 1.0, 0.5)], 1: [(1, 1.0, 0.5)]})
    b = Parts([2, 2, 5], {0: [(5, 1.0, 0.5)], 1: [(6, 1.0, 0.5)], 2: [(7, 1.0, 0.5)]})
    found = side_by_side(a, b, PAIRS, has_one_tokenizer=True)
    assert by_token(found)["in_common"].tolist() == [1.0, 1.0]
    assert (found.unmatched_a, found.unmatched_b) == (0, 1)
    # Otherwise the last of each side is taken.
    found = side_by_side(a, b, PAIRS, has_one_tokenizer=False)
    assert found.tokens["position_a"].tolist() == [1]


class Marked(Parts):
    """ends: (start, end) of every token."""

    def spans(self):
        return self.ends


def test_special_tokens_have_no_partner_in_another_tokenizer():
    use = [(0, 1.0, 0.5)]
    a = Marked([(0, 0), (0, 2), (2, 5)], {0: use, 1: use, 2: use})  # <s> ab cd
    b = Marked([(0, 0), (0, 2), (2, 5), (0, 0)], {1: use, 2: use, 3: use})  # [CLS] ab cd [SEP]
    found = side_by_side(a, b, PAIRS, has_one_tokenizer=False)
    places = found.tokens.sort_values("position_a")[["position_a", "position_b"]]
    assert places.to_numpy().tolist() == [[1, 1], [2, 2]]
    assert (found.unmatched_a, found.unmatched_b) == (1, 1)


def test_the_mark_that_closes_a_cut_text_is_not_the_word_that_a_longer_reading_has_there():
    use = [(0, 1.0, 0.5)]
    cut = Marked([(0, 0), (0, 2), (0, 0)], {1: use, 2: use})
    whole = Marked([(0, 0), (0, 2), (2, 5), (0, 0)], {1: use, 2: use, 3: use})
    found = side_by_side(cut, whole, PAIRS, has_one_tokenizer=True)
    assert found.tokens[["position_a", "position_b"]].to_numpy().tolist() == [[1, 1]]
    assert (found.unmatched_a, found.unmatched_b) == (1, 2)


def test_a_latent_that_is_taken_twice_is_one_and_a_token_without_terms_is_listed_last():
    a = Parts([2, 5], {0: [(0, 1.0, 0.6), (1, 1.0, 0.5), (0, 0.5, 0.3)], 1: []})
    b = Parts([2, 5], {0: [(5, 2.0, 0.5)], 1: []})
    found = side_by_side(a, b, PAIRS, has_one_tokenizer=True)
    assert found.tokens["position_a"].tolist() == [0, 1]
    assert by_token(found).loc[0, "in_common"] == pytest.approx((0.6 / 0.7 + 1) / 2)
    assert np.isnan(by_token(found).loc[1, "in_common"])
    assert by_token(found).loc[1, "latents_both"] == 0
    [row] = found.terms[found.terms["latent_a"] == 0].itertuples()
    assert (row.coefficient_a, row.coefficient_b) == (1.5, 2.0)


def test_a_token_that_one_side_alone_explains_has_nothing_in_common():
    a, b = Parts([2], {0: [(0, 1.0, 0.5)]}), Parts([2], {0: []})
    found = side_by_side(a, b, PAIRS, has_one_tokenizer=True)
    assert found.tokens["in_common"].tolist() == [0.0]


def test_other_texts_and_no_common_token_are_refused():
    a, b = Parts([2], {0: []}), Parts([3], {0: []})
    with pytest.raises(InputError, match="No token"):
        side_by_side(a, b, PAIRS, has_one_tokenizer=False)
    with pytest.raises(InputError, match="one text"):
        side_by_side(a, Parts([2], {0: []}, "else"), PAIRS, has_one_tokenizer=True)
