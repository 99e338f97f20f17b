"""The autoencoders that ship: those of docs/comparison.md, and shown beside their like alone."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.versus_sae.sae_grid import CURVES
from benchmarks.versus_sae.shipped import shipped
from itda_core.evaluation.autoencoders import FILE, topk_autoencoders

DOCUMENT = Path(__file__).parents[2] / "docs" / "comparison.md"
SOTU = {"corpus": "sotu", "held_out": True}


def test_the_file_is_what_its_command_makes_of_the_curves():
    assert json.loads(FILE.read_text()) == shipped(CURVES)


def test_they_are_those_that_the_comparison_tells_of():
    row = r"^\| (\S+), (\d+) \| ([\d,]+) \| TopK SAE \| ([\d.]+)[^|]*\| ([\d.]+)[^|]*\| ([\d.–]+)"
    told = re.findall(row, DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) == len(json.loads(FILE.read_text()))
    for model, layer, tokens, usual, everything, score in told:
        found = topk_autoencoders(model, int(layer), "resid_post", SOTU)
        [one] = [one for one in found if one.tokens == int(tokens.replace(",", ""))]
        assert f"{one.fvu_without_massive:.4f}" == usual
        assert f"{one.fvu:.4f}" == everything
        assert score == ("–" if one.ce_loss_score is None else f"{one.ce_loss_score:.4f}")


@pytest.mark.parametrize(
    "place",
    [
        ("smollm2-135m", 14, "resid_post", SOTU),
        ("other", 15, "resid_post", SOTU),
        ("smollm2-135m", 15, "mlp_out", SOTU),
        ("smollm2-135m", 15, "resid_post", {**SOTU, "corpus": "mine.txt"}),
        ("smollm2-135m", 15, "resid_post", {**SOTU, "held_out": False}),
    ],
)
def test_there_are_none_of_other_models_layers_places_and_texts(place):
    assert topk_autoencoders(*place) == []
