"""Scores on the Latents page: strong uses first, filler pale, and what the numbers say in words."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.judged_tokens import ReadRun
from itda_core.analysis.latent_scores import score_latents
from itda_core.jobs.job import Job
from itda_core.jobs.queue import JobQueue
from itda_core.progress import Progress
from itda_core.runs.latent_scores import save_scores, scored_digest
from itda_core.store.latent_queries import LatentQueries
from itda_core.store.latent_search import LatentSearch
from pages.components.histogram.histogram import histogram_data
from pages.components.latents import score
from pages.components.latents.found import why_found
from pages.components.latents.score import (
    how_well_told,
    strong_in_words,
    threshold_of,
    told_in_detail,
)
from pages.components.text import ordinal
from tests.support.app import (
    assert_no_failure,
    button,
    drawn,
    metrics,
    newest,
    open_page,
    rows_of,
    table_with,
)


@pytest.fixture
def data(own_data):
    return own_data


def scored(run, without=slice(0)):
    """The run's own scores, with an AUROC of 0.9, 0.89, … for the latents in order; without: of
    which the thresholds are taken away."""
    *_, (_, found) = score_latents(ReadRun.of(run))
    n = run.metrics["atoms"]
    values = np.maximum(0.3, 0.9 - np.arange(n) / 100)
    table = found.table | {"auroc": values, "auroc_low": values - 0.1, "auroc_high": values + 0.05}
    for name, nothing in (("threshold", np.nan), ("strong", np.nan), ("why", "too few uses")):
        table[name] = table[name].copy()
        table[name][without] = nothing
    about = {"run_id": run.run_id, "digest": scored_digest(run), "judged": found.judged,
             "embedder": "minilm-l6", "seed": 0, "tokens": 600, "seconds": 1.5}  # fmt: skip
    save_scores(run, about, table)
    return table


def uses_of(run, latent):
    codes = pd.read_parquet(run.directory / "codes.parquet")
    own = codes[codes["latent"] == latent].astype({"prompt_id": str})
    return own.groupby(["prompt_id", "position"])["coefficient"].sum().astype(np.float32)


def rich(table):
    """A latent with a threshold that leaves out most of its many uses."""
    share = table["strong"] / np.maximum(1, table["uses"])
    candidates = np.where((table["strong"] > 2) & (share < 0.6), table["uses"], 0)
    assert candidates.max() > 0
    return int(candidates.argmax())


def latent(**changes):
    fields = {
        "threshold": 40.0, "why": "", "strong": 27.0, "filler": 0.1, "strong_on_word": 0.93,
        "word_above": 52.1234, "text": "They spoke of War, and of peace.", "start": 13, "end": 16,
        "token": " War", "strong_on_token": 0.9,
        "drawn": 20, "auroc": 0.93, "auroc_low": 0.812, "auroc_high": 0.979, "same_auroc": np.nan,
        "same_low": np.nan, "same_high": np.nan,
    }  # fmt: skip
    return pd.Series(fields | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Strong from 40 up: 27 uses. From 52.1 up nine in ten are on 'War'; mixed below."),
        ({"word_above": 40.0}, "Strong from 40 up: 27 uses, nine in ten of them on 'War'."),
        ({"word_above": 31.0}, "Strong from 40 up: 27 uses. From 31 up nine in ten are on 'War'."),
        ({"word_above": np.nan},
         "Strong from 40 up: 27 uses; in other prompts 93% of them are on 'War'."),
        ({"word_above": np.nan, "strong_on_word": 0.214, "threshold": 3.14159},
         "Strong from 3.14 up: 27 uses; in other prompts 21% of them are on 'War'."),
        ({"word_above": np.nan, "strong_on_word": 0.02, "strong_on_token": 0.02},
         "Strong from 40 up: 27 uses; in other prompts 2% of them are on 'War': its title hardly "
         "says when it is used."),
        ({"word_above": np.nan, "text": "lot 945", "start": 5, "end": 6, "token": "4",
          "strong_on_token": 0.5, "strong_on_word": 0.0},
         "Strong from 40 up: 27 uses; in other prompts 50% of them are on its token '4', "
         "0% on its word '945'."),
        ({"threshold": np.inf, "strong": 0.0, "filler": 1.0},
         "None of its uses can be told from filler: outside the prompt of its source the largest "
         "coefficient is negative."),
        ({"word_above": np.nan, "strong_on_word": np.nan}, "Strong from 40 up: 27 uses."),
        ({"filler": 0.5, "strong": 2.0},
         "Strong from 40 up, but that is 2 uses: too few to say how many are filler (50% may be)."),
        ({"threshold": np.nan, "why": "too few uses"},
         "No threshold between strong uses and filler: too few uses."),
    ],
)  # fmt: skip
def test_the_numbers_are_said_in_words(changes, expected):
    assert strong_in_words(latent(**changes)) == expected


def test_a_piece_of_a_word_is_named_by_its_word():
    piece = latent(text="to ratify it", start=2, end=6)  # " rat"
    assert "From 52.1 up nine in ten are on 'ratify'" in strong_in_words(piece)
    middle = latent(text="to ratify it", start=6, end=9)
    assert "From 52.1 up nine in ten are on 'ratify'" in strong_in_words(middle)
    comma = latent(text="peace, and", start=5, end=6)
    assert "From 52.1 up nine in ten are on ','" in strong_in_words(comma)


def test_how_well_a_source_tells_its_uses_is_said_with_the_interval():
    assert how_well_told(latent()) == (
        "Its source tells its strong uses from other tokens: AUROC 0.93 (0.81–0.98) by 20 uses; "
        "0.5 is chance."
    )
    sure = latent(same_auroc=0.7, same_low=0.51, same_high=0.8, same_drawn=75)
    assert how_well_told(sure) == (
        "Its source tells its strong uses from other tokens, also from the same token elsewhere: "
        "AUROC 0.93 (0.81–0.98) by 20 uses, and there AUROC 0.70 (0.51–0.80) by 75 uses; 0.5 is "
        "chance."
    )
    turned = latent(same_auroc=0.17, same_low=0.08, same_high=0.35, same_drawn=3)
    assert how_well_told(turned) == (
        "Its source tells its strong uses from other tokens, but they are less like it than the "
        "same token elsewhere is: AUROC 0.93 (0.81–0.98) by 20 uses, and there AUROC 0.17 "
        "(0.08–0.35) by 3 uses; 0.5 is chance."
    )
    against = latent(auroc=0.2, auroc_low=0.1, auroc_high=0.4, threshold=np.nan)
    assert how_well_told(against) == (
        "Its uses are less like its source than other tokens are: AUROC 0.20 (0.10–0.40) by 20 "
        "uses; 0.5 is chance."
    )
    assert told_in_detail(sure) == ""
    both = latent(same_auroc=0.6, same_low=0.4, same_high=0.8, same_drawn=75)
    assert how_well_told(both) == (
        "Its source tells its strong uses from other tokens, but perhaps not from the same token "
        "elsewhere: AUROC 0.93 (0.81–0.98) by 20 uses; 0.5 is chance."
    )
    assert told_in_detail(both).startswith(
        "From the same token elsewhere AUROC 0.60 (0.40–0.80) by 75 uses, which may be chance"
    )
    neither = latent(auroc=0.5, auroc_low=0.3, auroc_high=0.7)
    assert how_well_told(neither) == (
        "Its source may not tell its strong uses from any other token: AUROC 0.50 (0.30–0.70) by "
        "20 uses; 0.5 is chance."
    )
    either = latent(**{**neither, **both.filter(like="same_")})
    assert told_in_detail(either) == (
        "From the same token elsewhere AUROC 0.60 (0.40–0.80) by 75 uses, which may be chance: "
        "the interval holds 0.5."
    ), "nothing says that its source tells the token"
    assert told_in_detail(both).endswith(" its source says which token they are on, and no more.")
    assert told_in_detail(latent()) == ""
    assert how_well_told(latent(auroc=np.nan)) == ""
    assert threshold_of(latent(threshold=np.nan)) is None


def test_the_histogram_tells_strong_uses_from_filler():
    drawn = histogram_data(np.float32([-2, -2, 0.5, 1.95, 2]), None, 1.96)
    assert {bin: count for bin, count in enumerate(drawn["strong"]) if count} == {39: 1}
    assert drawn["positive"][39] == 2
    assert histogram_data(np.float32([-2, 2]), None)["strong"] is None


def test_places_are_said_as_a_person_would():
    numbers = (1, 2, 3, 4, 11, 12, 13, 21, 1_022, 1_111)
    words = ["first", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "1,022nd", "1,111th"]
    assert [ordinal(number) for number in numbers] == words


def test_all_uses_has_the_card_count_filler_too(data):
    run = newest(data, 2)
    table = scored(run)
    number = rich(table)
    n_uses, explored = int(table["uses"][number]), run.metrics["explored_tokens"]
    app = open_page("latents", run=run.run_id, latent=str(number))
    n_strong = int(table["strong"][number])
    start = f"Strongly used on {n_strong:,} of {explored:,} tokens"
    assert any(one.value.startswith(start) for one in app.caption)
    app.toggle(key="all_uses").set_value(True).run()
    assert not app.exception
    assert metrics(app)["tokens that use it"] == f"{n_uses / explored:.2%}"
    rank = 1 + int((table["uses"] > n_uses).sum())
    place = "the most" if rank == 1 else f"the {ordinal(rank)} most"
    used = f"Used on {n_uses:,} of {explored:,} tokens ({n_uses / explored:.2%}): {place} used of "
    assert any(
        one.value.startswith(f"{used}{len(table['uses']):,} latents; ") for one in app.caption
    )
    kinds = next(one for one in app.button_group if one.key == "kind_of_all_uses")
    assert kinds.value in (0, [0])
    shown = table_with(app, "percent")
    uses = pd.Series(table["uses"]).reindex(shown["latent"]).to_numpy()
    assert shown["percent"].to_numpy() == pytest.approx(100 * uses / explored)


def test_the_short_card_says_how_often_as_the_list_and_the_page_do(data):
    run, text = newest(data, 2), "The Senate will ratify the treaty."
    table, explored = scored(run), run.metrics["explored_tokens"]
    app = open_page("decompose", run=run.run_id, text=text)
    cards = drawn(app, f"strip_{hash(text)}")["cards"]
    latents = [int(latent) for latent in cards]
    assert 0 < np.isfinite(table["threshold"][latents]).mean() < 1
    for latent in latents:
        strong, uses = table["strong"][latent], table["uses"][latent]
        count, start = (uses, "used") if np.isnan(strong) else (strong, "strongly used")
        expected = f"{start} on {count / explored:.2%} of the explored tokens"
        assert cards[str(latent)]["used"] == expected
    app.session_state["all_uses"] = True
    app.run()
    cards = drawn(app, f"strip_{hash(text)}")["cards"]
    for latent in latents:
        expected = f"used on {table['uses'][latent] / explored:.2%} of the explored tokens"
        assert cards[str(latent)]["used"] == expected


def test_all_uses_of_a_latent_without_a_threshold_are_not_called_strong(data, monkeypatch):
    run = newest(data, 2)
    table = scored(run, without=slice(None, None, 2))
    is_without = np.isnan(table["threshold"])
    open_page("latents", run=run.run_id)
    latents = [int(np.flatnonzero(is_without == without)[0]) for without in (True, False)]
    by_uses = {"latent": latents, "by": "uses", "on": 0.5, "near": 0.0, "uses": 9}
    monkeypatch.setattr(LatentQueries, "found", lambda *_: pd.DataFrame(by_uses))
    found = why_found(run.run_id, LatentSearch("war", "meaning", "word", of_strong=True))
    assert [found[latent].strip("\u2068\u2069") for latent in latents] == [
        "50% by weight of its uses on “war”", "50% by weight of its strong uses on “war”"
    ]  # fmt: skip
    for without in (True, False):
        uses = np.where(is_without == without, np.nan_to_num(table["strong"], nan=table["uses"]), 0)
        latent = int(uses.argmax())
        app = open_page("latents", run=run.run_id, latent=str(latent), kind="all")
        rest = "without a threshold are counted with all uses"
        assert any(rest in one.proto.help for one in app.caption) != without
        app.session_state["related"], app.session_state["relations"] = True, "Used together"
        app.run()
        assert_no_failure(app)
        said = next(one.value for one in app.caption if "by lift" in one.value)
        assert said.startswith("Latents on the same" if without else "Latents strongly on the same")
        lift = table_with(app, "lift")
        whole = [n for n in [latent, *lift["latent"]] if is_without[n]]
        named = "latent" if len(whole) == 1 else "latents"
        expected = f" Of {named} {', '.join(map(str, whole))}, without a threshold, all uses count."
        assert said.endswith(expected) if whole else "threshold" not in said


def test_a_card_lists_strong_uses_until_all_are_asked_for(data):
    run = newest(data, 2)
    table = scored(run)
    number = rich(table)
    uses = uses_of(run, number)
    strong = uses[uses >= table["threshold"][number]]
    app = open_page("latents", run=run.run_id, latent=str(number))
    share = len(strong) / run.metrics["explored_tokens"]
    assert metrics(app)["tokens that use it strongly"] == f"{share:.2%}"
    assert any("Its source " in one.value and "AUROC" in one.value for one in app.caption)
    kinds = next(one for one in app.button_group if one.key == "kind_of_uses")
    assert kinds.value == [2] or kinds.value == 2
    app.session_state["kind_of_uses"] = -1
    app.run()
    assert not app.exception
    app.session_state["which_uses"] = "Whole range"
    app.run()
    assert not app.exception
    other = newest(data, 1)  # which has no scores
    app = open_page("latents", run=other.run_id, latent="3")
    assert "tokens that use it" in metrics(app)


def test_a_dictionary_without_scores_offers_to_find_them(data, monkeypatch):
    run, asked = newest(data, 1), []
    monkeypatch.setattr(score, "submit_scores", lambda _queue, runs: asked.append(runs))
    app = open_page("latents", run=run.run_id, latent="3")
    button(app, "Find strong uses and score the latents").click().run()
    assert [one.run_id for [one] in asked] == [run.run_id]
    failed = Job("00001", "failed", "Scores", 1.0, ended=2.0, command="score",
                 error="Error: the disk is full.", arguments=(str(run.directory),))  # fmt: skip
    monkeypatch.setattr(JobQueue, "jobs", lambda _queue: [failed])
    app = open_page("latents", run=run.run_id, latent="3")
    said = app.warning[0].value.replace("`", "")
    assert said == "The last scoring failed. the disk is full."
    monkeypatch.setattr(JobQueue, "jobs", lambda _queue: [replace(failed, state="running")])
    app = open_page("latents", run=run.run_id, latent="3")
    assert any("A job is finding its strong uses" in one.value for one in app.caption)


def test_the_list_shows_scores_is_sorted_by_them_and_filtered(data):
    run = newest(data, 2)
    table = scored(run)
    app = open_page("latents", run=run.run_id, order="auroc", kind="all")
    shown = table_with(app, "auroc")
    assert shown["latent"].tolist() == list(range(15))
    assert shown["auroc"].tolist() == pytest.approx([0.9 - n / 100 for n in range(15)])
    strong = np.where(np.isnan(table["strong"]), table["uses"], table["strong"])
    expected = 100 * strong[:15] / run.metrics["explored_tokens"]
    assert shown["percent"].tolist() == pytest.approx(expected.tolist())
    expected = 100 * table["uses"][:15] / run.metrics["explored_tokens"]
    assert shown["with_filler"].tolist() == pytest.approx(expected.tolist())
    app = open_page("latents", run=run.run_id, kind="all", score="0.885", of_strong="True")
    shown = table_with(app, "auroc")
    assert shown["latent"].tolist() == [0, 1]


def test_how_far_the_scoring_is_stands_on_the_page(data, monkeypatch):
    run, app = newest(data, 1), open_page("train")
    job = Job("00001", "running", "Scores", 1.0, started=2.0, command="score",
              arguments=(str(run.directory),))  # fmt: skip
    progress = Progress("scoring", run_id=run.run_id, fraction=0.5).to_dict()
    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "jobs", lambda _queue: [job])
        patch.setattr(JobQueue, "progress", lambda _queue, _job: progress)
        app.run()
    assert_no_failure(app)
    [bar] = app.get("progress")
    assert bar.proto.text.startswith("Finding strong uses")


def test_the_terms_of_a_token_that_are_filler_are_pale(data):
    run, text = newest(data, 2), "The Senate will ratify the treaty."
    table = scored(run, without=slice(None, None, 3))
    app = open_page("decompose", run=run.run_id, text=text, token="3")
    assert_no_failure(app)
    terms = table_with(app, "percent_left")
    sums = terms.groupby("latent")["coefficient"].sum()
    for term in terms.itertuples():
        threshold = table["threshold"][term.latent]
        assert term.pale == (sums[term.latent] < threshold), "of a latent without one all count"
    n_strong = len(terms) - terms["pale"].sum()
    said = f"Strong uses: {n_strong} of {len(terms)} terms; the others, pale, are filler."
    assert any(said in one.value for one in app.caption)
    assert 0 < n_strong < len(terms)
    app = open_page("decompose", run=run.run_id, text=text, token="3", view="what-if")
    assert_no_failure(app)
    changed = rows_of(app, "edit_rows").set_index("latent")["pale"]
    assert (
        changed.to_dict() == terms.drop_duplicates("latent").set_index("latent")["pale"].to_dict()
    )
    app.segmented_control(key="at").set_value("all").run()
    assert_no_failure(app)
