"""The same latents in two models, on the Similarity, Latents and Decompose pages."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.side_by_side import SideBySide
from itda_core.config import CorpusSpec, ModelSpec
from itda_core.jobs.job import Job
from itda_core.jobs.queue import JobQueue
from itda_core.model.loading import load_model
from itda_core.runs.labels import Label
from itda_core.runs.latent_comparisons import (
    SUMS,
    latent_comparisons_folder,
    save_latent_comparison,
)
from itda_core.runs.run import list_runs
from itda_core.sealed import seal
from itda_core.similarity.same_latents import compare_latents
from itda_core.store.latent_queries import LatentQueries
from itda_core.training.moving import move
from pages.components.charts.same_latents import correlation_histogram
from pages.components.decompose.two import sums_in_words as sums_of_text
from pages.components.explorer import explorer
from pages.components.reproduce import side_by_side_lines
from pages.components.similarity import same_choice
from pages.components.similarity.choice import Item
from pages.components.similarity.moved import construction_in_words, moved_pairs
from pages.components.similarity.paired_uses import (
    difference,
    paired_uses,
    strong_pairs,
    with_partners,
)
from pages.components.similarity.same_choice import likely_pairs
from pages.components.similarity.same_sentences import counts_in_words, sums_in_words
from tests.support.app import (
    assert_no_failure,
    close_explorer,
    newest,
    open_page,
    rows_of,
    table_with,
)
from tests.support.by_interval import by_interval
from tests.support.labels import add_labels
from tests.support.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def moved_folder(trained_folder, tmp_path_factory):
    """The trained folder, with layer 1 moved to a model of another seed."""
    folder = tmp_path_factory.mktemp("moved")
    shutil.copytree(trained_folder, folder, dirs_exist_ok=True)
    other = save_tiny_model(tmp_path_factory.mktemp("other") / "tiny-other", seed=3)
    for _ in move(newest(folder, 1), ModelSpec(str(other), dtype="float32"), [1], folder / "runs"):
        pass
    return folder


def test_the_other_models_are_listed_beside_a_latent(compared):
    """The relations of a latent alone: AppTest opens no tab."""
    a, b = both(compared)
    script = AppTest.from_function(_other_models, args=(a.run_id, 3), default_timeout=60).run()
    assert_no_failure(script)
    table = table_with(script, "over")
    assert f"3@{b.run_id}" in set(table["key"])
    assert [*table["over"].dropna()] == ["400 tokens"] * int(table["correlation"].notna().sum())


def _other_models(run_id, latent):
    from pages.components.explorer import explorer
    from pages.components.latents.other_models import show_other_models

    store = explorer().store
    run = next(run for run in store.runs.table().itertuples() if run.run_id == run_id)
    show_other_models(run, store.latents.table(run_id, [latent]).iloc[0])


def both(folder):
    runs = [run for run in list_runs(folder / "runs") if run.layer == 1]
    return sorted(runs, key=lambda run: run.config.moved_from is not None)


@pytest.fixture(scope="module")
def result(moved_folder):
    *_, last = compare_latents(*both(moved_folder), 400)
    [found] = last.results
    return found


@pytest.fixture
def not_compared(moved_folder, data_folder):
    shutil.copytree(moved_folder, data_folder, dirs_exist_ok=True)
    yield data_folder
    close_explorer()


@pytest.fixture
def compared(not_compared, result):
    save_latent_comparison(latent_comparisons_folder(not_compared / "runs"), result)
    return not_compared


def opened(folder, **query):
    a, b = both(folder)
    return open_page("similarity", view="latents", left=a.run_id, right=b.run_id, **query)


def text_of(app):
    said = [*app.markdown, *app.caption, *app.info, *app.warning]
    return " ".join(one.value for one in said).replace("`", "")


def listed(app):
    return table_with(app, "correlation")


def test_the_comparison_is_offered_with_how_long_it_takes(not_compared, monkeypatch):
    submitted = []
    monkeypatch.setattr(
        same_choice, "submit_latent_comparison", lambda _queue, *given: submitted.append(given)
    )
    app = opened(not_compared)
    assert "64 latents have the same source in both" in text_of(app)
    button = app.button(key="compare_latents")
    assert button.label.startswith("Compare their latents (about ")
    button.click().run()
    assert_no_failure(app)
    assert submitted == [(*both(not_compared), "any")]


def proposed(folder):
    app = open_page("similarity", view="latents")
    assert_no_failure(app)
    return {app.selectbox(key=side).value for side in ("left", "right")}


def test_the_pair_with_most_sources_in_common_is_proposed(not_compared):
    assert proposed(not_compared) == {run.run_id for run in both(not_compared)}
    found = explorer().store.namesakes.in_common().set_index(["run_a", "run_b"])["sources"]
    ends = {
        run.run_id: {
            *zip(*(run.dictionary().sources[c] for c in ("prompt_id", "end")), strict=True)
        }
        for run in list_runs(not_compared / "runs")
    }
    expected = {
        (a, b): len(ends[a] & ends[b]) for a in ends for b in ends if a != b and ends[a] & ends[b]
    }
    assert found.to_dict() == expected


def test_compared_pairs_come_before_moved_ones_and_these_before_common_sources():
    runs = pd.DataFrame({"run_id": [*"abcdef"], "root": [*"abcdde"], "layer": 3, "site": "mlp_out"})
    known = pd.DataFrame({"run_a": ["c", "f"], "run_b": ["f", "c"]})
    shared = pd.DataFrame({"run_a": [*"abef"], "run_b": [*"bafe"], "sources": [5, 5, 9, 9]})

    def order(*left_out, known=known):
        here = runs[~runs["run_id"].isin(left_out)]
        pairs = likely_pairs(here, known, shared)
        n = len(here)
        assert len(pairs.drop_duplicates()) == len(pairs) == n * (n - 1)
        return ["".join(pair) for pair in pairs.to_numpy()]

    assert order()[:8] == ["cf", "fc", "de", "ed", "ef", "fe", "ab", "ba"]
    assert order(known=known[:0])[:2] == ["de", "ed"]
    assert order("d", "f")[:2] == ["ab", "ba"]


def test_the_same_layer_elsewhere_comes_before_another_layer_with_more_in_common():
    runs = pd.DataFrame(
        {
            "run_id": ["a3", "a4", "b3", "c3", "d3"],
            "root": ["a3", "a4", "b3", "c3", "d3"],
            "layer": [3, 4, 3, 3, 3],
            "site": ["resid_post", "resid_post", "resid_post", "mlp_out", "resid_post"],
        }
    )
    sources = {"a4": 90, "b3": 20, "c3": 50}
    shared = pd.DataFrame({"run_a": "a3", "run_b": [*sources], "sources": [*sources.values()]})
    known = pd.DataFrame({"run_a": [], "run_b": []}, dtype=str)
    pairs = likely_pairs(runs, known, shared)
    of_a3 = pairs.loc[pairs["run_a"] == "a3", "run_b"].tolist()
    assert of_a3 == ["b3", "a4", "c3", "d3"], "what can be compared first; d3 has nothing in common"
    shared.loc[shared["run_b"] == "b3", "sources"] = 19  # too few for a median
    pairs = likely_pairs(runs, known, shared)
    assert pairs.loc[pairs["run_a"] == "a3", "run_b"].tolist() == ["a4", "c3", "b3", "d3"]


def test_where_nothing_is_in_common_a_sentence_says_so(not_compared):
    a, b = both(not_compared)
    shutil.rmtree(b.directory)
    other = newest(not_compared, 2)
    ours, theirs = (run.dictionary().sources for run in (a, other))
    names = ["prompt_id", "position"]
    n_common = len(ours[names].merge(theirs[names]))
    app = open_page("similarity", view="latents", left=a.run_id, right=other.run_id)
    told = f"{n_common:,} latent" if n_common else "no source in common"
    assert told in text_of(app)


def test_sums_list_and_order_are_those_of_the_comparison(compared, result):
    app = opened(compared, uses="0")
    said = text_of(app)
    assert f"{result['best_value']:.1%}** of the latents" in said
    assert f"{result['best_chance']:.1%} by chance" in said
    assert f"namesake is **{result['median_value']:.2f}**" in said
    assert f"{result['only_a']:,} are used in A alone" in said
    rows = {row["latent_a"]: row for row in result["latents"]}
    changed = by_interval(result["latents"])[:12]
    assert listed(app)["latent_a"].tolist() == changed
    correlations = [rows[latent]["correlation"] for latent in changed]
    assert listed(app)["correlation"].tolist() == correlations
    app = opened(compared, uses="0", by="most_alike")
    alike = by_interval(result["latents"], -1)
    assert listed(app)["latent_a"].tolist() == alike[:12]
    app.button(key="same_Next page").click().run()
    assert_no_failure(app)
    assert listed(app)["latent_a"].tolist() == alike[12:24]
    assert str(alike[12]) in app.query_params["same"]


def test_a_chosen_latent_has_its_numbers_and_both_cards(compared, result):
    row = max(result["latents"], key=lambda row: row["uses_both"])
    app = opened(compared, uses="0", same=str(row["latent_a"]))
    said = text_of(app)
    assert f"Correlation {row['correlation']:+.3f}" in said
    assert "one of the two has no scores that tell its strong uses" in said
    uses = f"A uses it on {row['uses_a']:,}, B on {row['uses_b']:,}, both on {row['uses_both']:,}"
    assert uses in said
    for run in both(compared):
        codes = pd.read_parquet(run.directory / "codes.parquet")
        of_latent = codes[codes["latent"] == row["latent_a"]]
        uses = len(of_latent.groupby(["prompt_id", "position"]))
        assert f"Used on {uses:,} of {run.metrics['explored_tokens']:,} tokens" in said
    links = [one.proto.query_string for one in app.get("page_link")]
    for run in both(compared):
        assert any(f"run={run.run_id}" in link for link in links)


def test_strong_uses_count_unless_all_are_asked_for(not_compared, result):
    rows = [
        row
        | {"strong_correlation": -0.5 + number / 100, "strong_rank_a": 1, "strong_rank_b": 3}
        | {"strong_uses_a": 500 + number, "strong_uses_b": 900, "strong_uses_both": 400}
        | {"strong_chance": 0.0}
        for number, row in enumerate(result["latents"])
    ]
    strong = {name: result[name] for name in SUMS} | {"median_value": 0.77, "only_a": 13}
    folder = latent_comparisons_folder(not_compared / "runs")
    save_latent_comparison(folder, {**result, "latents": rows, "strong": strong})
    app = opened(not_compared)
    said = text_of(app)
    assert "namesake is **0.77**" in said
    assert "13 are strongly used in A alone" in said
    assert "of the strong uses of either are" in said
    assert "Correlation of strong uses -0.500" in said
    assert "A uses it strongly on 500, B on 900, both on 400." in said
    assert listed(app)["uses_a"].tolist() == [*range(500, 512)]
    assert listed(app)["latent_a"].tolist() == [row["latent_a"] for row in rows[:12]]
    assert "of_strong=True" in lines_of(app)
    app.toggle(key="all_uses").set_value(True).run()
    assert_no_failure(app)
    said = text_of(app)
    assert f"namesake is **{result['median_value']:.2f}**" in said
    assert "A uses it strongly" not in said
    assert app.query_params["all_uses"] == "True"


@pytest.fixture
def scored_since(monkeypatch):
    """Both dictionaries have scores, which they had not when they were compared."""
    monkeypatch.setattr(LatentQueries, "judged", lambda *_: "strong")


def test_strong_uses_are_offered_of_the_same_tokens(compared, scored_since, monkeypatch):
    queued = []
    monkeypatch.setattr(JobQueue, "enqueue", lambda _self, *job, **_: queued.append(job))
    a, b = both(compared)
    app = open_page("similarity", view="latents", left=b.run_id, right=a.run_id)
    assert "takes the place of this comparison, on 400 tokens of held-out prompts" in text_of(app)
    button = app.button(key="compare_latents")
    assert button.label.startswith("Compare again by strong uses (about ")
    button.click().run()
    assert_no_failure(app)
    [(command, arguments, title)] = queued
    directories = [str(run.directory.resolve()) for run in (a, b)]
    assert command == "compare-latents"
    assert arguments == [*directories, "--save", "--max-tokens=400"], "as it was made"
    failed = Job("1", "failed", title, 0.0, command=command, error="Error: The disk is full.")
    monkeypatch.setattr(JobQueue, "jobs", lambda _self: [failed])
    app.run()
    said = text_of(app)
    assert "The last comparison of latents failed. The disk is full." in said
    assert "made by an earlier version, or before both had scores" in said


def lines_of(app):
    return next(code.value for code in app.code if "compare_latents(" in code.value)


def assert_lines_print(lines, result, capsys):
    capsys.readouterr()
    exec(lines, {})
    counts, best, median, *changed = capsys.readouterr().out.splitlines()
    tokens, compared = result["tokens"], result["compared"]
    assert counts == f"{tokens:,} {result['unit']}s, {compared:,} latents compared"
    for name, line in (("best", best), ("median", median)):
        values = [result[f"{name}_{of}"] for of in ("value", "low", "high", "chance")]
        assert line == " ".join(map(str, [name, *values]))
    return changed


def test_lines_that_reproduce_a_comparison_print_what_the_page_shows(compared, result, capsys):
    app = opened(compared)
    changed = assert_lines_print(lines_of(app), result, capsys)
    assert f"On {result['tokens']:,} tokens, **" in text_of(app)
    assert [eval(row)["latent_a"] for row in changed] == listed(app)["latent_a"].tolist()[:10]


def test_lines_give_the_settings_of_a_comparison_made_from_the_other_side(not_compared, capsys):
    texts = not_compared / "texts.csv"
    words = "The Senate will ratify this treaty with Spain after a long debate number"
    texts.write_text("".join(f"{n};{words} {n}\n" for n in range(40)))
    corpus = CorpusSpec(str(texts), column="column 2", separator=";", header=False)
    *_, last = compare_latents(*both(not_compared)[::-1], 300, corpus, seed=5)
    [made] = last.results
    folder = latent_comparisons_folder(not_compared / "runs")
    path = save_latent_comparison(folder, made)
    assert_lines_print(lines_of(opened(not_compared)), made, capsys)
    table = pq.read_table(path)  # as the first files were
    header = json.loads(table.schema.metadata[b"itda"])
    del header["settings"]
    header["created"] += "0"
    pq.write_table(table.replace_schema_metadata({b"itda": json.dumps(header)}), path)
    seal(path.parent)
    close_explorer()
    app = opened(not_compared)
    assert "did not note how many tokens were asked for" in text_of(app)
    assert f"max_tokens={made['tokens']}, seed=5" in lines_of(app)


def test_a_latents_page_names_the_other_models_that_have_it(compared, result):
    a, b = both(compared)
    row = next(row for row in result["latents"] if row["correlation"] is not None)
    number = row["latent_a"]
    source = b.dictionary().sources.iloc[row["latent_b"]]
    place = source["prompt_id"], int(source["position"])
    add_labels(
        compared / "labels.jsonl", [Label(b.run_id, row["latent_b"], *place, "<i>there</i>")]
    )
    app = open_page("latents", run=a.run_id, latent=str(number), kind="all")
    assert_no_failure(app)
    table = explorer().store.latents.elsewhere(a.run_id, number).set_index("run_id")
    found = table.loc[b.run_id]
    assert found["latent"] == row["latent_b"]
    assert found["correlation"] == row["correlation"]
    assert found["rank_a"] == row["rank_a"]
    assert (found["compared_tokens"], found["compared_unit"]) == (result["tokens"], result["unit"])
    assert found["label"] == "<i>there</i>"
    codes = pd.read_parquet(b.directory / "codes.parquet")
    uses = codes[codes["latent"] == row["latent_b"]].groupby(["prompt_id", "position"])
    assert found["density"] == pytest.approx(len(uses) / b.metrics["explored_tokens"])
    other = newest(compared, 2).dictionary().sources
    is_there = ((other["prompt_id"] == place[0]) & (other["position"] == place[1])).any()
    assert len(table) == 1 + is_there


def test_tokens_that_end_where_others_do(compared):
    a, _ = both(compared)
    prompts = pd.read_parquet(a.directory / "prompts.parquet")
    codes = pd.read_parquet(a.directory / "codes.parquet")
    explored = set(zip(codes["prompt_id"], codes["position"], strict=True))
    spans = explorer().store.runs.token_spans(a.run_id, prompts["prompt_id"][0])
    ends = [end for _, end in spans[:6]]
    places = pd.DataFrame({"prompt_id": prompts["prompt_id"][0], "end": [*ends, 10**6]})
    found = explorer().store.uses.at_ends(a.run_id, places)
    expected = [
        (end, position) for position, (_, end) in enumerate(spans) if end in places["end"].tolist()
    ]
    assert list(zip(found["end"], found["position"], strict=True)) == sorted(expected)
    for row in found.itertuples():
        assert row.has_terms == ((row.prompt_id, row.position) in explored)


def test_labels_filter_the_list_and_the_charts(compared, result):
    a, _ = both(compared)
    source = a.dictionary().sources.iloc[7]
    label = Label(a.run_id, 7, source["prompt_id"], int(source["position"]), "<b>war</b>")
    add_labels(compared / "labels.jsonl", [label])
    app = opened(compared, uses="0", called="WAR")
    assert "1 of 64 latents" in text_of(app)
    assert "1 latents" not in text_of(app)
    [row] = [row for row in result["latents"] if row["latent_a"] == 7]
    if row["correlation"] is not None:
        assert listed(app)["label"].tolist() == ["<b>war</b>"]
    app = opened(compared, uses="0", called="no such")
    assert not app.dataframe
    assert "No latent matches" in text_of(app)


def test_links_that_ask_for_what_is_not_there_are_answered(compared):
    app = opened(compared, same="9999")
    assert "The link asks for latent 9999, which A does not have" in text_of(app)


def test_tokens_are_paired_as_by_hand():
    columns = ["prompt_id", "title", "position", "coefficient", "start", "end"]
    a = pd.DataFrame(
        [("p", "t", 1, 4.0, 0, 3), ("p", "t", 5, -1.0, 9, 12), ("q", "", 2, 2.0, 4, 6)],
        columns=columns,
    )
    b = pd.DataFrame(
        [("p", "t", 2, 3.0, 1, 3), ("p", "t", 5, 6.0, 9, 12), ("q", "", 3, 1.5, 6, 8)],
        columns=columns,
    )
    by_end = paired_uses(a, b, has_one_tokenizer=False)
    found = {(row.prompt_id, row.end): row for row in by_end.itertuples()}
    assert set(found) == {("p", 3), ("p", 12), ("q", 6), ("q", 8)}
    assert (found["p", 3].coefficient_a, found["p", 3].coefficient_b) == (4.0, 3.0)
    assert (found["p", 3].position_a, found["p", 3].position_b) == (1, 2)
    assert np.isnan(found["q", 6].coefficient_b)
    assert by_end["strength"].tolist() == [1.0, 1.0, 0.5, 0.25]
    tokens_a = pd.DataFrame(
        [("p", 3, 1, True), ("p", 12, 5, True), ("q", 6, 2, True), ("q", 8, 4, False)],
        columns=["prompt_id", "end", "position", "has_terms"],
    )
    tokens_b = pd.DataFrame(
        [("p", 3, 2, True), ("p", 12, 5, True), ("q", 6, 2, True), ("q", 8, 3, True)],
        columns=["prompt_id", "end", "position", "has_terms"],
    )
    placed = with_partners(by_end, tokens_a, tokens_b, has_one_tokenizer=False)
    told = {(row["prompt_id"], row["end"]): difference(row) for _, row in placed.iterrows()}
    # A has not explored the last one, so that it can't be said to differ there.
    signs = {("p", 3): "", ("p", 12): "of the other sign", ("q", 6): "only in A", ("q", 8): ""}
    assert told == signs
    assert placed["position_a"].tolist() == [1, 5, 2, 4]
    assert placed["position_b"].tolist() == [2, 5, 2, 3]
    by_position = paired_uses(a, b, has_one_tokenizer=True)
    assert len(by_position) == 5  # only position 5 of p is the same
    assert by_position["coefficient_a"].notna().sum() == 3
    placed = with_partners(by_position, tokens_a, tokens_b, has_one_tokenizer=True)
    # B has no token 1 that ends there, and neither has A's own a partner at another position.
    assert placed.loc[placed["position_a"] == 1, "position_b"].isna().all()


def test_strong_pairs_by_hand():
    columns = ["prompt_id", "coefficient_a", "coefficient_b", "has_terms_a", "has_terms_b"]
    paired = pd.DataFrame(
        [
            ("both", 5.0, 7.0, True, True),
            ("filler", 4.9, 6.9, True, True),
            ("one", 8.0, 2.0, True, True),
            ("other", np.nan, 9.0, True, True),
            ("not explored", np.nan, 9.0, False, True),
        ],
        columns=columns,
    )
    strong = strong_pairs(paired, 5.0, 7.0)
    told = {row["prompt_id"]: difference(row) for _, row in strong.iterrows()}
    only = {"one": "strong only in A", "other": "strong only in B"}
    assert told == {"both": "", "not explored": "", **only}
    without = strong_pairs(paired.dropna(), None, 7.0)
    assert without["prompt_id"].tolist() == ["both", "filler", "one"], "all of A's uses count"


def uses_and_tokens(*tokens):
    """Of prompt p, whose tokens (position, start, end) all use the latent."""
    rows = [("p", "t", *token, 1.0, True) for token in tokens]
    names = ["prompt_id", "title", "position", "start", "end", "coefficient", "has_terms"]
    table = pd.DataFrame(rows, columns=names)
    return table.drop(columns="has_terms"), table[["prompt_id", "end", "position", "has_terms"]]


def placed_positions(a, b, has_one_tokenizer):
    shown = paired_uses(a[0], b[0], has_one_tokenizer)
    places = ["position_a", "position_b"]
    placed = with_partners(shown, a[1], b[1], has_one_tokenizer)
    for table in (shown, placed):
        yield {tuple(row) for row in table[places].astype(float).fillna(-1).to_numpy().tolist()}


def test_tokens_without_characters_are_paired_with_none_of_another_kind():
    # One tokenizer; the first text was cut, so that a mark stands where the other has a word, and
    # the other has a mark further on.
    cut = uses_and_tokens((1, 0, 4), (2, 0, 0))
    whole = uses_and_tokens((1, 0, 4), (2, 5, 10), (3, 0, 0))
    apart = {(1, 1), (2, -1), (-1, 2), (-1, 3)}
    assert [*placed_positions(cut, whole, has_one_tokenizer=True)] == [apart, apart]
    # <s> of one tokenizer, [CLS] and [SEP] of another.
    first, second = (
        uses_and_tokens((0, 0, 0), (1, 0, 4)),
        uses_and_tokens((0, 0, 0), (1, 0, 4), (2, 0, 0)),
    )
    apart = {(1, 1), (0, -1), (-1, 0), (-1, 2)}
    assert [*placed_positions(first, second, has_one_tokenizer=False)] == [apart, apart]


def test_what_is_not_known_is_not_said():
    about = {"compared": 3, "tokens": 400, "unit": "word"}
    for name in ("best", "median"):
        about |= {f"{name}_value": 0.5, f"{name}_low": None, f"{name}_high": None}
        about[f"{name}_chance"] = -0.0034
    said = sums_in_words(about)
    assert "interval" not in said
    assert "(0.00 by chance)" in said
    assert "nothing can be said" in sums_in_words({"compared": 0})


def test_uses_without_the_namesake_are_one_number_where_both_are_alike():
    counts = dict.fromkeys(("namesakes", "compared", "only_a", "only_b", "unused", "prompts"), 9)
    about = {"atoms_a": 9, "atoms_b": 9, "tokens": 400, "unit": "token", "held_out": True, **counts}
    said = counts_in_words(about | {"alone_a": 0.9, "alone_b": 0.903})
    assert said.endswith(" 90% of the uses of either are on tokens where its namesake is not used.")
    said = counts_in_words(about | {"alone_a": 0.9, "alone_b": 0.8})
    assert "90% of A's uses are on tokens where the namesake is not used in B, and 80% of" in said


def test_what_a_text_has_in_common_is_said_plainly():
    def said(*shares):
        return sums_of_text(SideBySide(pd.DataFrame({"in_common": shares}), pd.DataFrame(), 0, 0))

    assert said(0.0, 0.0, None, 0.0) == "Nothing is in common on any of the 3 tokens."
    assert said(0.0) == "Nothing is in common on the one token."
    assert said(0.5).startswith("On the one token **50.0%** of what the terms explain")
    assert said(0.0, 0.5, 0.7).endswith("same source; on 1 of them nothing is.")
    assert said(0.2, 0.5).endswith(
        "On the median of 2 tokens **35.0%** of what the terms explain "
        "is due to latents with the same source."
    )


def test_an_axis_of_few_latents_has_whole_numbers():
    bins = pd.DataFrame({"low": [-1.0, 0.0], "high": [0.0, 1.0], "latents": [1, 3], "chance": 1})
    assert correlation_histogram(bins, None).layout.yaxis.dtick == 1
    bins["latents"] = 800
    assert correlation_histogram(bins, None).layout.yaxis.dtick is None


def test_a_jaccard_index_of_sources_that_were_moved_is_said_to_be_by_construction(compared):
    a, b = both(compared)
    app = open_page("similarity", view="layers", measure="jaccard")
    models = app.selectbox(key="a").options
    [trained] = [name for name in models if "moved" not in name]
    [moved] = [name for name in models if "moved" in name]
    app.selectbox(key="a").select(trained).run()
    app.selectbox(key="b").select(moved).run()
    assert_no_failure(app)
    said = text_of(app)
    assert "A layer 1 and B layer 1 have the same sources" in said
    assert "a Jaccard index of 1 is by construction" in said
    links = [one.proto.query_string for one in app.get("page_link")]
    assert f"view=latents&left={a.run_id}&right={b.run_id}" in links
    app.selectbox(key="b").select(trained).run()
    assert "by construction" not in text_of(app)


def test_pairs_that_were_moved_are_those_of_one_root_and_layer():
    def item(name, *runs):
        layers = [int(run[-1]) for run in runs]
        return Item(name, name, name, tuple((layer, "") for layer in layers), runs)

    roots = pd.Series({"x1": "x1", "y1": "x1", "z2": "x1", "w1": "w1"})
    items = [item("x", "x1"), item("y", "y1"), item("z", "z2"), item("w", "w1")]
    values = np.full((4, 4), 1.0)
    [pair] = moved_pairs(items, items, values, roots)
    assert (pair.names, pair.run_ids) == (("x", "y"), ("x1", "y1"))
    assert "of 1 is by construction" in construction_in_words([pair])
    [pair] = moved_pairs(items, items, 0.9 * values, roots)
    assert "near 1 is by construction" in construction_in_words([pair])


TEXT = "The Senate will ratify the treaty with Spain."


def test_a_text_by_two_dictionaries_is_that_of_loops_over_both(compared):
    a, b = both(compared)
    app = open_page("decompose", run=a.run_id, view="two", second=b.run_id, text=TEXT)
    assert_no_failure(app)
    results = [
        decompose(run.dictionary(), load_model(run.config.model), TEXT, run.config)
        for run in (a, b)
    ]
    expected = {int(n): in_common(results, row) for row, n in enumerate(results[0].positions)}
    [tokens] = [one.value for one in app.dataframe if "in_common" in one.value]
    found = dict(zip(tokens["position_a"], tokens["in_common"], strict=True))
    assert found == pytest.approx(expected)
    assert tokens["in_common"].is_monotonic_increasing
    median = np.median(list(expected.values()))
    said = f"On the median of {len(expected)} tokens {median:.1%} of what the terms explain is due"
    assert said in text_of(app).replace("*", "")
    first = int(tokens["position_a"].iloc[0])
    assert f"Token {first}:" in text_of(app)
    terms = rows_of(app, "two_terms")
    row = results[0].positions.tolist().index(first)
    for side, result in zip("ab", results, strict=True):
        own = terms.dropna(subset=f"coefficient_{side}")
        expected_terms = result.terms(row).set_index("latent")["coefficient"].to_dict()
        shown = dict(zip(own[f"latent_{side}"], own[f"coefficient_{side}"], strict=True))
        assert shown == pytest.approx(expected_terms)
    assert app.query_params["second"] == b.run_id


def in_common(results, row):
    """Of one token, by loops; numbers of the moved dictionary are those of the other."""
    sides = []
    for result in results:
        before, terms = 1.0, {}
        for term in result.terms(row).itertuples():
            terms[term.latent] = (term.coefficient, before - term.share_left)
            before = term.share_left
        sides.append(terms)
    both_use = [n for n in sides[0] if n in sides[1] and sides[0][n][0] * sides[1][n][0] > 0]
    shares = [
        sum(terms[n][1] for n in both_use) / sum(explains for _, explains in terms.values())
        for terms in sides
    ]
    return sum(shares) / 2


def test_a_locked_token_is_the_one_whose_terms_are_shown_by_two_dictionaries(compared):
    a, b = both(compared)
    query = {"run": a.run_id, "view": "two", "second": b.run_id, "text": TEXT}
    app = open_page("decompose", token="4", l0="2", **query)
    assert "Token 4:" in text_of(app)
    terms = rows_of(app, "two_terms")
    assert terms["coefficient_a"].notna().sum() <= 2
    assert terms["coefficient_b"].notna().sum() <= 2
    app = open_page("decompose", token="0", **query)
    assert "not one of those that both decompose" in text_of(app)


def test_lines_that_reproduce_two_dictionaries_print_what_the_page_shows(compared, capsys):
    a, b = both(compared)
    lines = side_by_side_lines((str(a.directory), str(b.directory)), TEXT, (3, 2))
    scope = {}
    exec(lines, scope)
    assert capsys.readouterr().out
    app = open_page("decompose", run=a.run_id, view="two", second=b.run_id, text=TEXT, l0="3")
    [tokens] = [one.value for one in app.dataframe if "in_common" in one.value]
    assert scope["found"].tokens["latents_a"].max() <= 3
    assert scope["found"].tokens["latents_b"].max() <= 2
    assert set(scope["found"].tokens["position_a"]) == set(tokens["position_a"])


def test_what_has_no_namesakes_is_said_where_two_dictionaries_are_asked_for(not_compared):
    a, b = both(not_compared)
    shutil.rmtree(b.directory)
    other = newest(not_compared, 2)
    app = open_page("decompose", run=a.run_id, view="two", second=other.run_id, text=TEXT)
    assert_no_failure(app)
    names = ["prompt_id", "position"]
    sources = [run.dictionary().sources[names] for run in (a, other)]
    n_common = len(sources[0].merge(sources[1]))
    assert ("no source in common" in text_of(app)) == (n_common == 0)
    assert ("On the median" in text_of(app)) == (n_common > 0)
