"""What the benchmark of moving compares is what `itda move` makes, and its figures are by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import claims
from benchmarks.moving import contest, report
from benchmarks.moving.both import rows_for_both
from benchmarks.moving.measure import results
from benchmarks.moving.reading import Amounts, Reading
from itda_core.evaluation.metrics import fvu

LAYER = 2


@pytest.fixture(scope="module")
def readings():
    amounts = Amounts(training=12, held_out=4, spliced=64)
    return [Reading(f"tiny-6x128-{seed}", [LAYER], amounts) for seed in (0, 1)]


def states(reading, text):
    """The layer's output at each token of a text, by transformers itself."""
    ids = torch.tensor([reading.model.tokenizer(text)["input_ids"][: reading.model.context_length]])
    with torch.no_grad():
        out = reading.model.module(ids, output_hidden_states=True)
    return out.hidden_states[LAYER + 1][0]


def directions(reading, sources):
    """What stands at the sources, less the plain mean of the training tokens."""
    mean = reading.x[LAYER].double().mean(0)
    rows = [
        states(reading, reading.texts[name])[position].double() - mean
        for name, position in sources[["prompt_id", "position"]].itertuples(index=False)
    ]
    return torch.nn.functional.normalize(torch.stack(rows), dim=1).float()


def test_a_moved_dictionary_has_what_stands_at_its_sources(readings):
    origin = contest.own(readings[0], LAYER, n_atoms=40)
    there = contest.moved(origin, readings[1])[LAYER]
    product = origin.moved(readings[1].model, LAYER, readings[0].texts.values())
    assert (there.left_out, there.together) == (0, 0)
    assert there.dictionary.sources.equals(origin.sources)
    assert there.dictionary.sources.equals(product.sources)
    wanted = directions(readings[1], origin.sources)
    torch.testing.assert_close(there.dictionary.atoms, wanted, rtol=0, atol=1e-4)


def test_a_source_behind_what_is_read_of_all_prompts_is_read_too(readings):
    reading = readings[1]
    long = next(text for text in reading.plan.texts if text.is_cut)
    name = reading.plan.prompts[reading.plan.texts.index(long)].prompt_id
    whole = reading.model.tokenizer(long.text, return_offsets_mapping=True)
    position = reading.plan.context_length + 3
    start, end = whole["offset_mapping"][position]
    origin = contest.own(readings[0], LAYER, n_atoms=1)
    source = {"latent": 0, "prompt_id": name, "position": 1, "start": start, "end": end}
    sources = origin.sources.assign(**source, token="of another tokenizer")
    there = contest.moved(replace(origin, sources=sources, tokenizer="another"), reading)[LAYER]
    assert there.dictionary.sources["position"].tolist() == [position]
    wanted = directions(reading, there.dictionary.sources)
    torch.testing.assert_close(there.dictionary.atoms, wanted, rtol=0, atol=1e-4)


def test_what_is_left_is_the_fvu_of_held_out_tokens(readings):
    reading = readings[0]
    coders = {
        "own": contest.own(reading, LAYER, n_atoms=40),
        "random": contest.random(reading, LAYER, n_atoms=40, seed=1),
    }
    left = contest.left_by(reading, LAYER, coders)
    x, prompts = reading.held_out[LAYER]
    for name, coder in coders.items():
        rebuilt = coder.decode(coder.encode(x))
        assert left[name].fvu == pytest.approx(fvu(x, rebuilt), rel=1e-6)
        of_prompt = (x - rebuilt)[prompts == 2].square().sum()
        assert left[name].errors[2] == pytest.approx(float(of_prompt), rel=1e-5)
        assert len(left[name].errors) == 4
    value, low, high = contest.ratio(left["random"], left["own"])
    assert value == pytest.approx(left["random"].fvu / left["own"].fvu)
    assert low <= value <= high


def test_tokens_of_two_clusters_in_either_model_serve_both():
    # Each model tells only two directions apart, and not those that the other does.
    generator = torch.Generator().manual_seed(0)
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float32)
    groups = torch.arange(200) % 4
    one = torch.randn(200, 6, generator=generator, dtype=torch.float32) * 0.01
    other = one.flip(0).clone()
    one[:, 0] += signs[groups, 0]
    other[:, 3] += signs[groups, 1]
    rows = rows_for_both(one, other, n_atoms=4, l0=1, seed=0)
    assert (np.diff(rows) > 0).all()
    assert len(set(signs[groups[rows], 0].tolist())) == 2
    assert len(set(signs[groups[rows], 1].tolist())) == 2


def row(ratio, random, model="tiny-6x128-1"):
    figures = {"fvu": 0.02 * ratio, "ce_loss_score": 0.99}
    return {
        "from": {"model": "tiny-6x128-0", "layer": 2},
        "to": {"model": model, "layer": 2},
        "own": {"fvu": 0.02, "ce_loss_score": 0.99},
        "moved": {**figures, "ratio": ratio, "low": ratio, "high": ratio},
        "random": {**figures, "ratio": random, "low": random, "high": random},
    }


def test_a_goal_holds_where_every_move_meets_it():
    met = {"seeds": {"rows": [row(1.01, 1.1), row(1.05, 1.2)]}}
    between, across, below = report.claims(met)
    assert (
        between["holds"] is True
        and "1.030 (1.010 – 1.050); within it in 2 of 2" in between["figure"]
    )
    assert across["holds"] is None
    assert below["holds"] is True and "in 2 of 2 moves" in below["figure"]
    missed = {"seeds": {"rows": [row(1.01, 1.1), row(1.06, 1.05)]}}
    between, _, below = report.claims(missed)
    assert between["holds"] is False
    assert below["holds"] is False and "in 1 of 2 moves" in below["figure"]


def test_the_document_is_what_the_files_that_ship_give(tmp_path, monkeypatch):
    shipped = report.DOCUMENT.read_text(encoding="utf-8")
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "docs" / "moving.md")
    report.DOCUMENT.parent.mkdir()
    report.write(results())
    assert report.DOCUMENT.read_text(encoding="utf-8") == shipped


def test_moves_are_held_against_the_random_tokens_that_a_source_can_reach():
    # Two moves to one layer: the first is ahead of neither, the second of the reachable ones.
    reachable = row(1.0, 1.0) | {"reachable": {"ratio": 1.3}}
    parts = {"tokenizers": {"rows": [row(1.4, 1.2), row(1.25, 1.2)]}, "reachable": {"rows": []}}
    parts["reachable"]["rows"] = [reachable]
    told = report._against_reachable(parts)
    assert told.endswith("among those: tiny-6x128-0 to tiny-6x128-1 in 1 of 2 moves.")
    summary = report._summary(parts)["rows"]
    assert [cells[0] for cells in summary][1:] == ["– tiny-6x128-0 to tiny-6x128-1"]
    assert summary[0][1:3] == ["2", "1.325 (1.250 – 1.400)"]
    assert summary[0][4] == "0 of 2"


def test_the_rows_of_one_benchmark_are_exchanged_and_the_others_stay():
    old = "**The paper's claims**\n\n| a | b |\n\n**This project's claims**\n\n| head |\n|---|\n"
    old += "| Mine | 1 | holds | `x` |\n| Another | 2 | holds | `y` |\n\n"
    old += "**Machine**\n\n- cores: 9\n"
    mine = {"claim": "Mine", "figure": "3", "holds": False, "command": "x"}
    new = claims.with_rows(old, [mine])
    assert new.startswith("# Claims")
    assert "| a | b |" in new and "- cores: 9" in new
    end = "| Another | 2 | holds | `y` |\n| Mine | 3 | **does not hold** | `x` |\n\n**Machine**"
    assert end in new and "| Mine | 1" not in new
    assert claims.with_rows(new, [mine]) == new
