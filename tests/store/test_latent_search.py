"""Lists of latents a page at a time: filters, orders, places, against the run's own files."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.neighbours import cosines_to
from itda_core.runs.labels import Label, labels_file
from itda_core.runs.run import list_runs
from itda_core.store.latent_search import FREQUENT, LatentSearch
from itda_core.store.store import Store
from tests.support.labels import add_labels


@pytest.fixture
def runs(runs_folder, tmp_path):
    return list_runs(shutil.copytree(runs_folder, tmp_path / "data" / "runs"))


@pytest.fixture
def store(runs):
    store = Store()
    store.import_new(runs[0].directory.parent)
    yield store
    store.close()


def densities(run):
    """Share of the explored tokens of each latent, from the run's files."""
    codes = pd.read_parquet(run.directory / "codes.parquet")
    tokens = codes.drop_duplicates(["latent", "prompt_id", "position"]).groupby("latent").size()
    tokens = tokens.reindex(range(run.metrics["atoms"]), fill_value=0)
    return tokens / run.metrics["explored_tokens"]


def test_the_pages_one_after_another_are_the_whole_list(store, runs):
    run = runs[0]
    whole = store.latents.numbers(run.run_id, order="density")
    for rows in (7, 50, 1_000):
        seen = []
        for start in range(0, len(whole), rows):
            page = store.latents.page(run.run_id, LatentSearch(), whole[start], rows, "density")
            assert (page.first, page.total, page.place) == (start, len(whole), start)
            seen += page.numbers
        assert seen == whole


def test_the_page_of_a_latent_is_the_one_that_holds_it_and_of_one_outside_the_first(store, runs):
    run, asked = runs[0], LatentSearch(among=(2, 5, 9, 11, 17))
    page = store.latents.page(run.run_id, asked, 11, 2)
    assert (page.numbers, page.first, page.total, page.place) == ([9, 11], 2, 5, 3)
    page = store.latents.page(run.run_id, asked, 3, 2)
    assert (page.numbers, page.first, page.total, page.place) == ([2, 5], 0, 5, None)
    page = store.latents.page(run.run_id, LatentSearch("no such text"), 3, 2)
    assert (page.numbers, page.total, page.place) == ([], 0, None)


@pytest.mark.parametrize("place", ["context", "prompt"])
def test_the_best_match_is_a_source_token_that_is_what_was_searched_for(store, runs, place):
    run = runs[0]
    sources = run.dictionary().sources.set_index("latent")
    differs = 0
    for text in ["treaty", "E", *filter(None, sources["token"].str.strip().unique()[:40])]:
        found = store.latents.numbers(run.run_id, LatentSearch(text, place), "match")
        assert sorted(found) == store.latents.numbers(run.run_id, LatentSearch(text, place))
        tokens = sources.loc[found, "token"].str.lower()
        expected = sorted(
            found,
            key=lambda latent: (
                tokens[latent].strip() != text.lower(),
                text.lower() not in tokens[latent],
                latent,
            ),
        )
        assert found == expected
        differs += found != sorted(found)
    assert differs > 5
    numbers = store.latents.numbers(run.run_id, "", "match")
    assert numbers == list(range(run.metrics["atoms"]))


def test_after_the_last_latent_comes_the_first(store, runs):
    asked = LatentSearch(among=(2, 5, 9))
    found = [store.latents.at_place(runs[0].run_id, asked, place) for place in (-1, 0, 1, 2, 3, 7)]
    assert found == [9, 2, 5, 9, 2, 5]


def test_noise_is_what_is_on_the_first_position_or_on_more_than_a_tenth_of_the_tokens(store, runs):
    run = runs[0]
    density = densities(run)
    density[3] = 0.5  # made up: no latent of this run is so frequent
    half = run.metrics["explored_tokens"] // 2
    store.database.query("UPDATE latents SET tokens = ? WHERE latent = 3", half)
    first = run.dictionary().sources.set_index("latent")["position"] == 0
    expected = {
        "all": density >= 0,
        "usual": (density <= FREQUENT) & ~first,
        "unused": density == 0,
        "first": first,
        "frequent": density > FREQUENT,
    }
    for kind, chosen in expected.items():
        found = store.latents.numbers(run.run_id, LatentSearch(kind=kind))
        assert found == density.index[chosen].tolist()
    hidden = int((~expected["usual"]).sum())
    assert 0 < hidden < len(density)
    assert store.latents.hidden_noise(run.run_id, LatentSearch(kind="usual")) == hidden
    assert store.latents.hidden_noise(run.run_id, LatentSearch()) == 0


def test_a_source_on_the_first_position_is_noise(store, runs):
    run = runs[0]
    rare = int(densities(run).index[densities(run) <= FREQUENT][0])
    assert rare in store.latents.numbers(run.run_id, LatentSearch(kind="usual"))
    store.database.query("UPDATE latents SET position = 0 WHERE latent = ?", rare)
    assert rare not in store.latents.numbers(run.run_id, LatentSearch(kind="usual"))
    assert store.latents.numbers(run.run_id, LatentSearch(kind="first")) == [rare]


def test_latents_are_listed_by_their_cosine_to_another(store, runs):
    run = runs[0]
    atoms = run.dictionary().atoms.double().numpy()
    expected = np.argsort(-(atoms @ atoms[4]), kind="stable")
    similarities = cosines_to(run.dictionary(), 4).tolist()
    found = store.latents.numbers(run.run_id, order="similarity", similarities=similarities)
    assert found[0] == 4
    assert found[:10] == expected[:10].tolist()


def test_the_rank_of_a_latent_is_its_place_by_use(store, runs):
    run = runs[0]
    expected = densities(run).rank(ascending=False, method="min").astype(int)
    for latent in range(run.metrics["atoms"]):
        assert store.latents.rank(run.run_id, latent) == expected[latent]


def test_lists_are_kept_with_the_latents_that_were_put_into_them(store, runs):
    run = runs[0]
    source = run.dictionary().sources.loc[7]
    label = Label(run.run_id, 7, source["prompt_id"], int(source["position"]))
    label = dataclasses.replace(label, lists=["treaties", " war ", "war", ""])
    assert label.lists == ("treaties", "war")
    add_labels(labels_file(run.directory.parent), [label])
    store.import_new(run.directory.parent)
    assert store.latents.list_names() == ["treaties", "war"]
    assert store.latents.numbers(run.run_id, LatentSearch(in_list="war")) == [7]
    assert store.latents.numbers(run.run_id, LatentSearch(in_list="peace")) == []
    assert list(store.latents.table(run.run_id, [7])["lists"][0]) == ["treaties", "war"]


def test_every_use_is_given_with_its_place_in_the_text(store, runs):
    run = runs[0]
    codes = pd.read_parquet(run.directory / "codes.parquet")
    latent = int(codes["latent"].mode()[0])
    expected = codes[codes["latent"] == latent].groupby(["prompt_id", "position"])["coefficient"]
    found = store.uses.all(run.run_id, latent).set_index(["prompt_id", "position"])
    assert found["coefficient"].to_dict() == pytest.approx(expected.sum().to_dict(), abs=1e-5)
    prompts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")
    for (prompt_id, position), use in list(found.iterrows())[:20]:
        assert use["start"] == prompts.loc[prompt_id, "starts"][position]
        assert use["end"] == prompts.loc[prompt_id, "ends"][position]
        spans = store.runs.token_spans(run.run_id, prompt_id)
        assert spans[position] == (use["start"], use["end"])
    assert store.runs.token_spans(run.run_id, "nosuch") == []


def test_a_source_outside_of_the_explored_part_is_still_found_in_other_layers(store, runs):
    first, second = runs[0], runs[1]
    source = first.dictionary().sources.loc[3]
    at = source["prompt_id"], int(source["position"])
    store.database.query(
        """DELETE FROM codes WHERE position = ?
        AND prompt = (SELECT prompt FROM prompts WHERE prompt_id = ?)""",
        *reversed(at),
    )
    found = store.uses.at_token([first.run_id, second.run_id], *at).set_index("run_id")
    assert found.loc[first.run_id, "latent"] == 3
    assert found.loc[first.run_id, "is_source"]
    assert np.isnan(found.loc[first.run_id, "coefficient"])
