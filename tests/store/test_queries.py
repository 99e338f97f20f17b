"""Every query of the store against a slow pandas computation over the run's own files."""

import numpy as np
import pandas as pd
import pytest

from itda_core.runs.run import list_runs
from itda_core.store.store import Store
from tests.support.trained_runs import tiny_config, trained

SPECIAL = ["100%", "_under_score", "it's", 'a "quoted" word', "back\\slash", "[a-z]+.*?",
           "É̌tude", "ÜBER", "Москва", "👩‍👩‍👧", "东京", "שלום", "<script>alert(1)</script>",
           "tab\there"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model_folder, tiny_texts):
    """Runs of layers 1 and 3 on texts with special characters; tokens use some latents twice."""
    folder = tmp_path_factory.mktemp("queries")
    texts = [
        f"{special} {text}" if number % 2 else f"{text[:20]} {special} {text[20:]}"
        for number, (text, special) in enumerate(zip(tiny_texts, SPECIAL * 4, strict=False))
    ]
    corpus = folder / "special.jsonl"
    pd.DataFrame({"text": texts}).to_json(corpus, orient="records", lines=True)
    config = tiny_config(
        tiny_model_folder, corpus, layers=(1, 3), l0=12, max_atoms=450, max_tokens=700,
        explored_tokens=650, threshold=0.003, context_length=20,
    )  # fmt: skip
    trained(config, folder / "runs")
    return list_runs(folder / "runs")


@pytest.fixture(scope="module")
def store(runs):
    opened = Store()
    for run in runs:
        opened.import_run(run)
    yield opened
    opened.close()


@pytest.fixture(params=[0, 1], ids=["layer 1", "layer 3"])
def run(runs, request):
    return runs[request.param]


def texts_of(run):
    return pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")["text"]


def uses_of(run):
    """One row for each token and latent: step (the first), coefficient (added up)."""
    codes = pd.read_parquet(run.directory / "codes.parquet").astype({"prompt_id": str})
    codes["coefficient"] = codes["coefficient"].astype(np.float64)
    grouped = codes.groupby(["latent", "prompt_id", "position"])
    return grouped.agg(step=("step", "min"), coefficient=("coefficient", "sum")).reset_index()


def sources_with_uses(run):
    """The sources with the number of tokens that use each latent and its strongest use."""
    uses = uses_of(run)
    uses["size"] = uses["coefficient"].abs()
    by_latent = uses.groupby("latent")["size"].agg(tokens="size", strongest="max")
    table = run.dictionary().sources.join(by_latent, on="latent")
    return table.fillna({"tokens": 0, "strongest": 0.0})


def busiest(run, number=3):
    """Some latents with the most uses, and one without any where there is one."""
    table = sources_with_uses(run).sort_values("tokens", ascending=False)["latent"]
    return [*table.head(number), table.iloc[-1]]


def slow_search(run, search):
    texts = texts_of(run)
    found = []
    for source in run.dictionary().sources.itertuples():
        around = texts[source.prompt_id][max(0, source.start - 40) : source.end + 40]
        if search.lower() in around.lower():
            found.append(source.latent)
    return found


# The list of latents


@pytest.mark.parametrize(
    "search",
    ["", "treaty", "TREATY", " ", "%", "100%", "_", "_under", "'", "it's", '"', "\\", "[a-z]+",
     ".*", "?", "<script>", "é", "über", "МОСКВА", "👩‍👩‍👧", "👧", "京", "שלום", "\t",
     "no such text at all", "'; DROP TABLE runs; --", "$1", "\x00"],
)  # fmt: skip
def test_a_search_finds_the_sources_with_that_text_around_them(store, run, search):
    expected = slow_search(run, search)
    assert store.latents.numbers(run.run_id, search) == expected


def test_the_searches_above_find_some_latents_and_not_all(store, runs):
    for search in ("treaty", "100%", "_", "'", "\\", "[a-z]+", "МОСКВА", "👧", "שלום", "<script>"):
        found = sum(len(store.latents.numbers(run.run_id, search)) for run in runs)
        assert 0 < found < sum(len(run.dictionary()) for run in runs), search


def test_latents_are_ordered_by_number_density_or_strength(store, run):
    table = sources_with_uses(run)
    assert store.latents.numbers(run.run_id) == list(range(len(table)))
    for order, column in (("density", "tokens"), ("strength", "strongest")):
        found = store.latents.numbers(run.run_id, order=order)
        assert sorted(found) == list(range(len(table)))
        values = table.set_index("latent").loc[found, column].astype(np.float32)
        assert (values.diff().dropna() <= 0).all()
        for _, ties in values.groupby(values):
            assert list(ties.index) == sorted(ties.index)


def test_a_search_can_be_ordered_as_well(store, run):
    expected = slow_search(run, "the ")
    found = store.latents.numbers(run.run_id, "the ", order="density")
    assert sorted(found) == expected
    whole = store.latents.numbers(run.run_id, order="density")
    assert found == [number for number in whole if number in set(expected)]


def test_latents_come_with_their_sources_and_how_much_they_are_used(store, run):
    table = sources_with_uses(run)
    numbers = [140, 3, 77, 3]
    found = store.latents.table(run.run_id, numbers).set_index("latent")
    assert list(found.index) == [3, 77, 140]
    for latent, row in found.iterrows():
        source = table.loc[latent]
        assert row["prompt_id"] == source["prompt_id"]
        assert row["text"] == texts_of(run)[source["prompt_id"]]
        assert (row["position"], row["start"], row["end"]) == tuple(
            source[["position", "start", "end"]]
        )
        assert row["token"] == source["token"] == row["text"][row["start"] : row["end"]]
        assert row["tokens"] == source["tokens"]
        assert row["density"] == pytest.approx(source["tokens"] / run.metrics["explored_tokens"])
        assert row["strongest"] == pytest.approx(source["strongest"], rel=1e-6)


def test_a_token_closes_a_character_where_no_later_token_ends_with_it(store, run):
    """By every token of the prompt, one after another."""
    prompts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")
    found = store.database.query(
        "SELECT latent, closes FROM latents JOIN runs USING (run) WHERE run_id = ? ORDER BY latent",
        run.run_id,
    )
    for source, closes in zip(run.dictionary().sources.itertuples(), found["closes"], strict=True):
        ends = list(prompts.loc[source.prompt_id, "ends"])
        last = max(place for place, end in enumerate(ends) if end == source.end)
        is_sure = last + 1 < len(ends) or source.token.isascii()  # a text may be cut in a character
        assert closes == (source.end > source.start and source.position == last and is_sure)
    assert 0 < (~found["closes"]).sum() < len(found)


def test_no_numbers_give_no_latents(store, run):
    assert store.latents.table(run.run_id, []).empty
    assert store.latents.table(run.run_id, [10**6]).empty
    assert store.latents.table("no such run", [1]).empty


# Uses


def test_some_tokens_use_a_latent_twice(run):
    codes = pd.read_parquet(run.directory / "codes.parquet")
    assert codes.duplicated(["latent", "prompt_id", "position"]).sum() > 20


@pytest.mark.parametrize("limit", [1, 20, 10_000])
def test_the_strongest_uses_are_those_with_the_largest_coefficients(store, run, limit):
    uses = uses_of(run)
    for latent in busiest(run):
        mine = uses[uses["latent"] == latent].set_index(["prompt_id", "position"])
        sizes = mine["coefficient"].abs().sort_values(ascending=False)
        found = store.uses.strongest(run.run_id, int(latent), limit)
        assert len(found) == min(limit, len(mine))
        np.testing.assert_allclose(
            found["coefficient"].abs(), sizes.head(limit).to_numpy(), rtol=1e-6
        )
        keys = list(zip(found["prompt_id"], found["position"], strict=True))
        assert len(set(keys)) == len(keys)
        expected = mine.loc[keys]
        np.testing.assert_allclose(found["coefficient"], expected["coefficient"], rtol=1e-6)
        assert found["step"].tolist() == expected["step"].tolist()


def test_a_use_comes_with_its_prompt_and_the_span_of_every_token(store, run):
    prompts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")
    found = store.uses.strongest(run.run_id, int(busiest(run)[0]), 10)
    assert len(found) == 10
    for use in found.itertuples():
        prompt = prompts.loc[use.prompt_id]
        assert use.text == prompt["text"]
        assert list(use.starts) == list(prompt["starts"])
        assert list(use.ends) == list(prompt["ends"])
        assert use.position < len(use.starts)


def test_uses_in_prompts_are_all_there_are_in_those(store, run):
    uses = uses_of(run)
    prompt_ids = sorted(uses["prompt_id"].unique())[:7]
    for latent in busiest(run):
        mine = uses[(uses["latent"] == latent) & uses["prompt_id"].isin(prompt_ids)]
        mine = mine.sort_values(["prompt_id", "position"])
        found = store.uses.in_prompts(run.run_id, int(latent), [*prompt_ids, "nothing"])
        assert found["prompt_id"].tolist() == mine["prompt_id"].tolist()
        assert found["position"].tolist() == mine["position"].tolist()
        np.testing.assert_allclose(found["coefficient"], mine["coefficient"], rtol=1e-6)
    assert store.uses.in_prompts(run.run_id, 0, []).empty


def test_coefficients_have_one_value_for_each_token_that_uses_the_latent(store, run):
    uses = uses_of(run)
    for latent in busiest(run):
        mine = uses.loc[uses["latent"] == latent, "coefficient"]
        found = store.uses.coefficients(run.run_id, int(latent))
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.sort(found), np.sort(mine), rtol=1e-6)


# Prompts


def test_prompts_are_found_by_their_ids_with_every_character(store, runs):
    texts = texts_of(runs[0]).to_dict()
    assert sorted(store.runs.prompt_ids()) == sorted(texts)
    for prompt_id, text in texts.items():
        assert store.runs.prompt_text(prompt_id) == text
    some = [*list(texts)[:5], "nothing"]
    assert store.runs.prompt_texts(some) == {name: texts[name] for name in some[:-1]}
    assert store.runs.prompt_text("nothing") is None
    assert store.runs.prompt_texts([]) == {}


def test_two_runs_on_the_same_prompts_keep_them_once(store, runs):
    assert len(store.database.query("SELECT * FROM prompts")) == len(texts_of(runs[0]))
    assert len(store.database.query("SELECT * FROM run_prompts")) == 2 * len(texts_of(runs[0]))


def test_runs_come_in_order_of_model_and_layer(store, runs):
    assert store.runs.table()["run_id"].tolist() == [run.run_id for run in runs]
    assert store.runs.table()["layer"].tolist() == [1, 3]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_strongest_uses_of_one_sign_are_those_of_that_sign(store, run, sign):
    latent = int(busiest(run)[0])
    both = store.uses.strongest(run.run_id, latent, 10_000)
    expected = both[both["coefficient"] * sign > 0].reset_index(drop=True)
    found = store.uses.strongest(run.run_id, latent, 10_000, sign=sign)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("sign", [0, 1, -1])
def test_bands_have_as_many_uses_each_and_some_of_each_are_shown(store, run, sign):
    latent = int(busiest(run)[0])
    whole = store.uses.strongest(run.run_id, latent, 10_000, sign=sign)
    sizes = whole["coefficient"].abs().to_numpy()
    found = store.uses.banded(run.run_id, latent, bands=4, of_each=3, sign=sign)
    counts = [len(part) for part in np.array_split(sizes, 4)]
    first = 0
    for band, count in enumerate(counts):
        rows, here = found[found["band"] == band], sizes[first : first + count]
        first += count
        assert len(rows) == min(3, count)
        if not count:
            continue
        assert set(rows["uses"]) == {count}
        assert rows["high"].iloc[0] == pytest.approx(here.max())
        assert rows["low"].iloc[0] == pytest.approx(here.min())
        inside = rows["coefficient"].abs()
        assert inside.between(here.min(), here.max()).all()
        assert inside.is_monotonic_decreasing
    places = set(zip(found["prompt_id"], found["position"], strict=True))
    assert len(places) == len(found)
    assert places <= set(zip(whole["prompt_id"], whole["position"], strict=True))


def test_an_empty_store_answers_every_question_with_nothing():
    empty = Store()
    assert empty.runs.table().empty
    assert empty.latents.numbers("x", "y", "density") == []
    assert empty.latents.table("x", [1]).empty
    assert empty.uses.strongest("x", 1).empty
    assert empty.uses.banded("x", 1, 4, 5).empty
    assert empty.uses.in_prompts("x", 1, ["y"]).empty
    assert empty.uses.coefficients("x", 1).empty
    assert empty.runs.prompt_ids() == []
    empty.close()


def test_tokens_are_put_into_context_in_the_order_given(store, run):
    uses = uses_of(run)
    wanted = uses.sample(9, random_state=1)[["prompt_id", "position", "coefficient"]]
    beyond = pd.DataFrame(
        {
            "prompt_id": [wanted["prompt_id"].iloc[0]] * 2 + ["not there"],
            "position": [10_000, -1, 0],
            "coefficient": [1.0, 1.0, 1.0],
        }
    )
    found = store.uses.in_context(run.run_id, pd.concat([beyond, wanted]))
    columns = ["prompt_id", "position", "coefficient"]
    pd.testing.assert_frame_equal(
        found[columns], wanted.reset_index(drop=True), check_dtype=False, rtol=1e-6
    )
    assert found["text"].tolist() == texts_of(run)[wanted["prompt_id"]].tolist()
    spans = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")["starts"]
    assert [list(one) for one in found["starts"]] == [
        list(spans[name]) for name in wanted["prompt_id"]
    ]


def test_uses_go_on_where_the_twenty_before_ended(store, run):
    source = run.dictionary().sources.set_index("latent")["prompt_id"]
    latent = int(busiest(run)[0])
    everything = store.uses.strongest(run.run_id, latent, 10_000)
    seen, firsts = [], range(0, len(everything), 7)
    for first in firsts:
        found = store.uses.of_card(run.run_id, latent, source[latent], 7, first=first)
        assert (found.first, found.total) == (first, len(everything))
        seen.append(found.strongest)
    pd.testing.assert_frame_equal(pd.concat(seen, ignore_index=True), everything)
    beyond = store.uses.of_card(run.run_id, latent, source[latent], 7, first=7_000)
    assert beyond.first == firsts[-1]
    pd.testing.assert_frame_equal(beyond.strongest, seen[-1])
    said = store.uses.saying(run.run_id, latent, "", "text", 10_000)
    page = store.uses.saying(run.run_id, latent, "", "text", 3, first=2)
    pd.testing.assert_frame_equal(page, said.iloc[2:5].reset_index(drop=True))


@pytest.mark.parametrize("sign", [0, 1, -1])
def test_what_a_card_asks_for_at_once_is_what_is_asked_for_one_by_one(store, run, sign):
    sources = run.dictionary().sources.set_index("latent")["prompt_id"]
    for latent in map(int, busiest(run)):
        found = store.uses.of_card(run.run_id, latent, sources[latent], 7, sign)
        strongest = store.uses.strongest(run.run_id, latent, 7, sign)
        is_used = len(strongest) > 0  # else a column has no values that could have a type
        pd.testing.assert_frame_equal(found.strongest, strongest, check_dtype=is_used)
        prompts = strongest["prompt_id"].unique().tolist()
        beside = store.uses.in_prompts(run.run_id, latent, prompts)
        pd.testing.assert_frame_equal(found.beside, beside, check_dtype=is_used)
        each = store.uses.coefficients(run.run_id, latent).to_numpy()
        np.testing.assert_array_equal(np.sort(found.coefficients), np.sort(each))
        assert found.source_spans == store.runs.token_spans(run.run_id, sources[latent])
        least = float(np.median(each)) if len(each) else 0.0  # as that of strong uses is
        strong = store.uses.of_card(run.run_id, latent, sources[latent], 10_000, sign, least)
        values = store.uses.strongest(run.run_id, latent, 10_000, sign)["coefficient"].to_numpy()
        assert strong.strongest["coefficient"].tolist() == values[values >= least].tolist()
        banded = store.uses.banded(run.run_id, latent, 4, 10_000, sign, least)
        assert sorted(banded["coefficient"]) == sorted(values[values >= least])
    assert store.uses.of_card(run.run_id, 0, "no such prompt").source_spans == []
    nothing = store.uses.of_card("no such run", 0, "no such prompt")
    assert nothing.strongest.empty and nothing.beside.empty and not len(nothing.coefficients)


def test_what_is_done_to_an_answer_is_not_known_to_the_next_who_asks():
    store = Store()
    answers = {"labels": {1: "x"}, "names": ["a", "b"], "numbers": np.arange(3)}
    labels = store.known(answers.get, "labels")
    labels[1] = "changed"
    store.known(answers.get, "names").append("changed")
    with pytest.raises(ValueError, match="read-only"):
        store.known(answers.get, "numbers")[:] = 9
    assert store.known(answers.get, "labels") == {1: "x"}
    assert store.known(answers.get, "names") == ["a", "b"]
    assert store.known(answers.get, "numbers").tolist() == [0, 1, 2]
    store.close()


def test_an_answer_is_known_until_something_is_written(runs):
    store, asked = Store(), []

    def names(prefix):
        asked.append(prefix)
        return store.runs.table().assign(name=prefix)

    assert store.known(names, "a").empty
    store.import_run(runs[0])
    table = store.known(names, "a")
    assert table["run_id"].tolist() == [runs[0].run_id]
    table["run_id"] = "changed by who got it"
    assert store.known(names, "a")["run_id"].tolist() == [runs[0].run_id]
    assert store.known(names, "b")["name"].tolist() == ["b"]
    assert asked == ["a", "a", "b"]
    with pytest.raises(ZeroDivisionError), store.database.transaction() as cursor:
        cursor.execute("DELETE FROM runs")
        raise ZeroDivisionError
    assert store.known(names, "a")["run_id"].tolist() == [runs[0].run_id]
    store.index.forget_run(runs[0].run_id)
    assert store.known(names, "a").empty
    store.close()
