"""What is read off the curves, on curves worked out by hand."""

import json
import math

import pytest
from scipy import stats

from benchmarks.versus_sae import comparison
from benchmarks.versus_sae.comparison import Record, chosen, first_reaching, goals, reached, records
from benchmarks.versus_sae.sae_grid import BUDGETS, SMOLLM2

OURS, PUBLISHED = "ITDA, ours", "ITDA, published"
ONE, TEN, HUNDRED = BUDGETS.values()


def point(seconds, fvu, score, distinct=1, **fields):
    more = {"fvu_all": fvu, "l0": 32.0, "unused": 0.0, "kl": 0.1, "tokens": distinct}
    return {
        "seconds": seconds, "fvu": fvu, "ce_loss_score": score, "distinct": distinct,
        **more, **fields,
    }  # fmt: skip


def record(method, tokens, *points, layer=7, seed=0):
    return Record(method, SMOLLM2, layer, tokens, seed, points, method.endswith("SAE"))


def sae(tokens, *points, **fields):
    points = [{**one, "validation_fvu": one.get("validation_fvu", one["fvu"])} for one in points]
    return record("TopK SAE", tokens, *points, **fields)


def test_a_curve_reaches_a_quality_between_two_checkpoints_on_a_logarithmic_scale_of_time():
    curve = [point(1, 0.5, 0.5, 10), point(100, 0.3, 0.9, 20)]
    seconds, distinct = first_reaching(curve, "fvu", 0.4)
    assert (seconds, distinct) == (pytest.approx(10.0), 20)
    assert first_reaching(curve, "ce_loss_score", 0.6)[0] == pytest.approx(100**0.25)


def test_a_curve_that_starts_better_reaches_it_at_its_first_checkpoint():
    assert first_reaching([point(3, 0.2, 0.9, 7)], "fvu", 0.4) == (3, 7)


def test_a_curve_that_never_gets_there_reaches_nothing():
    curve = [point(1, 0.5, 0.5), point(9, 0.41, 0.6)]
    assert first_reaching(curve, "fvu", 0.4) is None
    assert first_reaching(curve, "ce_loss_score", 0.7) is None


def test_checkpoints_without_the_measure_are_passed_over():
    without = {"seconds": 2.0, "distinct": 2, "fvu": 0.4}
    curve = [point(1, 0.5, 0.5), without, point(4, 0.3, 0.9, 8)]
    assert first_reaching(curve, "ce_loss_score", 0.7) == (pytest.approx(2.0), 8)


@pytest.mark.parametrize("values", [(1.0, 2.0), (1.0, 2.0, 4.0), (3.0, 1.0, 2.0, 2.5)])
def test_intervals_are_those_of_students_t(values):
    low, high = stats.t.interval(
        0.95, len(values) - 1, sum(values) / len(values), stats.sem(values)
    )
    shown = comparison.with_interval(values, 2)
    assert shown == f"{sum(values) / len(values):.2f} ± {(high - low) / 2:.2f}"


def test_one_value_has_no_interval():
    assert comparison.with_interval([0.12345]) == "0.1235"


def test_early_stopping_goes_by_the_validation_tokens_not_by_the_held_out_ones():
    curve = sae(
        ONE, point(1, 0.5, 0.5, validation_fvu=0.3), point(2, 0.4, 0.6, validation_fvu=0.35)
    )
    assert curve.best["seconds"] == 1


def test_of_several_settings_the_one_best_on_validation_tokens_is_kept():
    worse = sae(ONE, point(1, 0.2, 0.9, validation_fvu=0.5))
    better = sae(ONE, point(1, 0.3, 0.8, validation_fvu=0.4))
    other_seed = sae(ONE, point(1, 0.3, 0.8, validation_fvu=0.6), seed=1)
    assert chosen([worse, better, other_seed]) == [better, other_seed]


def test_times_and_tokens_are_given_as_multiples_of_the_dictionarys():
    every = [
        record(OURS, ONE, point(2.0, 0.3, 0.9, ONE)),
        sae(HUNDRED, point(10, 0.4, 0.7, TEN), point(40, 0.3, 0.8, HUNDRED)),
    ]
    rows = {row["measure"]: row for row in reached(every, OURS)}
    assert rows["FVU"]["time"] == "20.0×"
    assert rows["FVU"]["tokens"] == "100.00×"
    assert rows["CE loss score"]["time"] == rows["CE loss score"]["tokens"] == "never"
    assert rows["CE loss score"]["its best"] == "0.8000"


def judged(*every):
    return {goal.claim.split()[0]: goal for goal in goals(every, OURS, PUBLISHED)}


def test_the_first_goal_needs_both_measures_ahead_of_every_variant():
    ours = record(OURS, ONE, point(1, 0.2, 0.95))
    behind = sae(ONE, point(9, 0.3, 0.9))
    assert judged(ours, behind)["At"].holds
    ahead_in_score = Record(
        "BatchTopK SAE", SMOLLM2, 7, ONE, 0, (point(9, 0.3, 0.96, validation_fvu=0.3),), True
    )
    goal = judged(ours, behind, ahead_in_score)["At"]
    assert not goal.holds
    assert "0.9500 against 0.9600" in goal.figure


def test_the_second_goal_needs_a_point_and_a_hundredth_of_the_time():
    trained = sae(HUNDRED, point(100, 0.3, 0.90))
    for seconds, score, holds in ((1.0, 0.895, True), (1.1, 0.895, False), (1.0, 0.885, False)):
        few = record(OURS, ONE, point(seconds, 0.4, score))
        assert judged(few, trained)["With"].holds is holds
    more = record(OURS, TEN, point(5, 0.2, 0.92))
    goal = judged(record(OURS, ONE, point(1, 0.4, 0.895)), more, trained)["With"]
    assert (
        "+0.50 points behind at 1.00% of the time, ahead from 10% of the tokens on" in goal.figure
    )


def test_the_third_goal_takes_the_worst_of_the_layers():
    published = [record(PUBLISHED, ONE, point(1, 0.4, 0.8), layer=layer) for layer in (7, 15)]
    ours = [
        record(OURS, ONE, point(1, fvu, 0.9), layer=layer) for layer, fvu in ((7, 0.2), (15, 0.27))
    ]
    assert judged(*published, *ours)["FVU"].holds
    worse = record(OURS, ONE, point(1, 0.3, 0.9), layer=22)
    there = record(PUBLISHED, ONE, point(1, 0.4, 0.8), layer=22)
    assert not judged(*published, *ours, worse, there)["FVU"].holds


def test_a_goal_without_trainings_to_judge_it_is_left_out():
    assert goals([record(OURS, ONE, point(1, 0.2, 0.9))], OURS, PUBLISHED) == []


def test_seeds_are_averaged_in_one_row_of_the_table():
    seeds = [
        record(OURS, ONE, point(seconds, fvu, 0.9), seed=seed)
        for seed, (seconds, fvu) in enumerate([(1, 0.2), (2, 0.3), (3, 0.4)])
    ]
    (row,) = comparison.table(seeds)
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert row["FVU"] == f"0.3000 ± {half:.4f}"
    assert row["seeds"] == 3


def test_files_are_read_with_the_massive_tokens_in_their_budget_and_sweeps_left_out(tmp_path):
    found = {
        "model": SMOLLM2, "layer": 7, "distinct_tokens": ONE - 2, "massive_tokens": 2,
        "with_massive": False, "settings": {"variant": "topk", "seed": 1, "lr": 0.1, "epochs": 2.0},
        "points": [point(1, 0.2, 0.9)],
    }  # fmt: skip
    for purpose in ("curve", "sweep"):
        (tmp_path / f"{purpose}.json").write_text(json.dumps({**found, "purpose": purpose}))
    (record,) = records(tmp_path)
    assert (record.method, record.tokens, record.budget, record.seed) == ("TopK SAE", ONE, "1×", 1)


def test_curves_are_told_in_the_pace_that_was_measured_and_keep_their_shape(tmp_path):
    points = [
        point(seconds, 0.4, 0.8, tokens=tokens)
        for seconds, tokens in ((90, 2_048), (91, 10_240), (93, 18_432), (133, 34_816))
    ]
    found = {
        "model": SMOLLM2, "layer": 7, "distinct_tokens": ONE, "massive_tokens": 0,
        "with_massive": False, "settings": {"variant": "topk", "seed": 0, "lr": 0.1, "epochs": 2.0},
        "points": points, "purpose": "curve",
    }  # fmt: skip
    (tmp_path / "curve.json").write_text(json.dumps(found))
    measured = [
        {"model": SMOLLM2, "variant": "batchtopk", "seconds": 7.0},
        {"model": SMOLLM2, "variant": "topk", "seconds": 1.25 / 14_336},
    ]
    (tmp_path / "pace.json").write_text(json.dumps({"autoencoder": measured}))
    (record,) = records(tmp_path)
    # From 2,048 tokens to 16,384 the curve took 2.5 s (1 for the first 8,192, three quarters of 2
    # for the rest), where now 14,336 tokens take 1.25 s: half. What came before and after is
    # halved as well.
    assert [one["seconds"] for one in record.points] == pytest.approx([45, 45.5, 46.5, 66.5])


def test_the_curves_that_ship_give_rows_for_the_claims():
    from benchmarks.versus_sae.report import claims

    rows = claims()
    assert all(set(row) == {"claim", "command", "figure", "holds"} for row in rows)
    assert all(isinstance(row["holds"], bool) for row in rows)
