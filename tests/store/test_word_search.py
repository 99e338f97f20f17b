"""Latents found by what was searched for: against a slow reading of the run's own files."""

import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from itda_core.corpus.words import is_content_word
from itda_core.errors import InputError
from itda_core.runs.latent_scores import NONE, SCORE_COLUMNS, save_scores, scored_digest
from itda_core.runs.run import list_runs
from itda_core.store.latent_search import LatentSearch
from itda_core.store.store import Store
from itda_core.store.word_search import FEW_USES, MIN_SHARE, TIMES_CHANCE

NEAR, AROUND = 20, 40


@pytest.fixture
def folder(runs_folder, tmp_path):
    return Path(shutil.copytree(runs_folder, tmp_path / "runs"))


@pytest.fixture
def store():
    opened = Store()
    yield opened
    opened.close()


def uses_of(run):
    """Each use once, with the span of its token."""
    codes = pd.read_parquet(run.directory / "codes.parquet")
    uses = codes.groupby(["latent", "prompt_id", "position"], as_index=False)["coefficient"].sum()
    return uses.assign(coefficient=uses["coefficient"].astype(np.float32))


def with_scores(run, quantile=0.7, why="too few uses"):
    """Scores whose thresholds are a quantile of each latent's coefficients, some missing."""
    uses, n = uses_of(run), run.metrics["atoms"]
    threshold = uses.groupby("latent")["coefficient"].quantile(quantile).reindex(range(n))
    threshold[::5] = np.nan
    table = {name: np.full(n, np.nan) for name in SCORE_COLUMNS}
    table |= {"latent": np.arange(n), "threshold": threshold.to_numpy()}
    table |= {name: np.zeros(n) for name in ("uses", "drawn", "same_drawn")}
    least = threshold.astype(np.float32).reindex(uses["latent"]).to_numpy()
    is_strong = uses["coefficient"].to_numpy() >= least
    strong = np.bincount(uses["latent"][is_strong], minlength=n)
    table["strong"] = np.where(threshold.isna(), np.nan, strong)
    table["filler"] = np.where(threshold.isna(), np.nan, 0.0)
    table["why"] = np.where(threshold.isna(), why, "").astype(object)
    about = {"run_id": run.run_id, "digest": scored_digest(run), "judged": "strong",
             "embedder": "", "seed": 0, "tokens": 1, "seconds": 1.0}  # fmt: skip
    save_scores(run, about, table)
    return uses[np.isnan(least) | is_strong]


def gap(span, found):
    """0 where one holds a character of the other, else 1 and the characters in between."""
    if span[0] == span[1]:
        return 10**9
    distances = [
        0
        if span[0] < end and start < span[1]
        else 1 + (start - span[1] if start >= span[1] else span[0] - end)
        for start, end in found
    ]
    return min(distances, default=10**9)


def reference(run, uses, pattern):
    """Latents in order, with why: every use looked at by itself."""
    prompts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")
    said = {
        prompt_id: [one.span() for one in re.finditer(pattern, row.text, re.IGNORECASE)]
        for prompt_id, row in prompts.iterrows()
    }
    distance = {
        (prompt_id, position): gap(span, said[prompt_id])
        for prompt_id, row in prompts.iterrows()
        for position, span in enumerate(zip(row.starts, row.ends, strict=True))
    }
    explored = [one for one in distance if prompts.loc[one[0], "explored"]]
    chance_on = np.mean([distance[one] == 0 for one in explored])
    chance = np.mean([distance[one] <= NEAR for one in explored])
    found = []
    for source in run.dictionary().sources.itertuples():
        own = uses[uses["latent"] == source.latent]
        away = [distance[one] for one in zip(own["prompt_id"], own["position"], strict=True)]
        away, squares = np.array(away, float), own["coefficient"].to_numpy(float) ** 2
        total = squares.sum() or 1.0
        on, near = squares[away == 0].sum() / total, squares[(away > 0) & (away <= NEAR)].sum()
        near, count = near / total, int((away <= NEAR).sum())
        at_source = gap((source.start, source.end), said[source.prompt_id])
        is_on = on >= max(MIN_SHARE, TIMES_CHANCE * chance_on)
        is_near = on + near >= max(MIN_SHARE, TIMES_CHANCE * chance) and count >= FEW_USES
        says_little = not is_content_word(source.token)
        weight = count / (count + FEW_USES)
        more = on + near - chance
        more = more * weight if more > 0 else more
        if is_on or at_source == 0:
            key, by = (0, False, -on * weight), "uses on" if is_on else "source"
        elif is_near:
            key, by = (1, says_little, -more), "uses near"
        elif at_source <= AROUND:
            key, by = (2, says_little, -more), "context"
        else:
            continue
        found.append((*key, source.latent, by, on, near, count))
    return sorted(found)


def assert_found(table, expected):
    assert table["latent"].tolist() == [one[3] for one in expected]
    assert table["by"].tolist() == [one[4] for one in expected]
    for column, place in (("on", 5), ("near", 6), ("uses", 7)):
        np.testing.assert_allclose(table[column], [one[place] for one in expected], rtol=1e-4)


WORDS = ("the", "family", "people", "government", "a", "E")


@pytest.mark.parametrize("of_strong", [True, False])
def test_a_word_finds_latents_by_their_uses_then_sources_then_context(store, folder, of_strong):
    run = list_runs(folder)[0]
    strong, kinds = with_scores(run), set()
    store.import_new(folder)
    for word in WORDS:
        expected = reference(run, strong if of_strong else uses_of(run), rf"\b{word}\b")
        search = LatentSearch(word, "meaning", "word", of_strong=of_strong)
        assert_found(store.latents.found(run.run_id, search), expected)
        numbers = [one[3] for one in expected]
        assert store.latents.numbers(run.run_id, search, "match") == numbers
        assert store.latents.numbers(run.run_id, search) == sorted(numbers)
        kinds |= {one[4] for one in expected}
    assert kinds == {"uses on", "uses near", "source", "context"}


def test_without_scores_all_uses_count(store, folder):
    run = list_runs(folder)[1]
    store.import_new(folder)
    search = LatentSearch("the", "meaning", "word", of_strong=True)
    expected = reference(run, uses_of(run), r"\bthe\b")
    assert_found(store.latents.found(run.run_id, search), expected)


def test_an_expression_finds_as_pythons_own_does(store, folder):
    run = list_runs(folder)[0]
    store.import_new(folder)
    for pattern in (r"\bt[a-h]+", "(of|the) [a-m]", "ion|ing", r"[^a-z\s]+", "x*"):
        expected = reference(run, uses_of(run), pattern.replace("*", "+"))
        search = LatentSearch(pattern, "meaning", "regex")
        assert_found(store.latents.found(run.run_id, search), expected)


def test_of_plain_text_whole_words_come_first(store, folder):
    run = list_runs(folder)[0]
    store.import_new(folder)
    for text in ("the", "ate", "or"):
        whole, part = (
            [one[3] for one in reference(run, uses_of(run), pattern)]
            for pattern in (rf"\b{text}\b", text)
        )
        expected = [*whole, *(latent for latent in part if latent not in whole)]
        search = LatentSearch(text, "meaning", "text")
        assert store.latents.numbers(run.run_id, search, "match") == expected
    assert len(whole) < len(expected)


def test_a_word_is_not_found_in_another_and_white_space_is_one():
    store = Store()
    texts = ["unaware of it. War! war", "the  war\nof wars, _war", "naïve wär İwar"]
    store.database.query("INSERT INTO runs (run, run_id, explored_tokens) VALUES (1, 'r', 9)")
    for number, text in enumerate(texts):
        words = [one.span() for one in re.finditer(r"\S+", text)]
        starts, ends = map(list, zip(*words, strict=True))
        store.database.query("INSERT INTO prompts VALUES (?, ?, ?, '')", number, str(number), text)
        row = "INSERT INTO run_prompts VALUES (1, ?, true, ?, ?)"
        store.database.query(row, number, starts, ends)
        for place, (start, end) in enumerate(words):
            store.database.query(
                """INSERT INTO latents (run, latent, prompt, position, "start", "end", tokens)
                VALUES (1, ?, ?, ?, ?, ?, 0)""",
                10 * number + place, number, place, start, end,
            )  # fmt: skip

    def sources(text, way="word"):
        found = store.latents.found("r", LatentSearch(text, "meaning", way))
        return sorted(found["latent"][found["by"] == "source"].tolist())

    assert sources("war") == [3, 4, 11]
    assert sources("war", "regex") == [0, 3, 4, 11, 13, 14, 22]
    assert sources("war", "text") == [3, 4, 11, 22]  # a whole word is near the other three
    assert sources("the war of") == [10, 11, 12]
    assert sources("WÄR") == [21]
    assert sources("W[AÄ]R$", "regex") == [4, 14, 22]
    assert sources("zebra") == []
    assert sources(" ") == []  # no token here has white space
    store.close()


def one_text(store, text, sources, uses):
    """A run r of one prompt, each word a token. sources: the position of each latent's, by its
    number; uses: (latent, position, coefficient)."""
    words = [(one.group(), *one.span()) for one in re.finditer(r"\S+", text)]
    store.database.query("INSERT INTO runs (run, run_id, explored_tokens) VALUES (1, 'r', 20)")
    store.database.query("INSERT INTO prompts VALUES (0, '0', ?, '')", text)
    row = "INSERT INTO run_prompts VALUES (1, 0, true, ?, ?)"
    store.database.query(row, [one[1] for one in words], [one[2] for one in words])
    for latent, place in enumerate(sources):
        store.database.query(
            """INSERT INTO latents (run, latent, prompt, position, token, "start", "end", tokens)
            VALUES (1, ?, 0, ?, ?, ?, ?, 1)""", latent, place, *words[place],
        )  # fmt: skip
    for use in uses:
        store.database.query(
            """INSERT INTO codes (run, latent, prompt, position, step, coefficient)
            VALUES (1, ?, 0, ?, 0, ?)""", *use,
        )  # fmt: skip


def test_no_use_near_a_word_says_less_than_some(store):
    # Words of nine letters: at most 20 characters from "war" are it and two of the 20 tokens, a
    # share of 0.15; the sources are 22 and 32 from it.
    text = " ".join(["war", *(f"treaties{letter}" for letter in "abcdefghijklmnopqrs")])
    none, some, more = [(0, 12, 1)], [(1, 1, 1), (1, 10, 3)], [(2, 2, 1), (2, 11, 2)]
    one_text(store, text, [3, 4, 3], [*none, *some, *more])
    found = store.latents.found("r", LatentSearch("war", "meaning", "word"))
    assert found["by"].tolist() == ["context"] * 3
    assert dict(zip(found["latent"], found["near"], strict=True)) == {2: 1 / 5, 1: 1 / 10, 0: 0}
    assert found["latent"].tolist() == [2, 1, 0], "more than chance, less than chance, none"


@pytest.mark.parametrize("text", ["(", "[a", "*", "a{2,1}"])
def test_a_wrong_expression_is_answered_with_a_sentence(store, folder, text):
    store.import_new(folder)
    search = LatentSearch(text, "meaning", "regex")
    with pytest.raises(InputError, match=r"is no regular expression: .*Correct it"):
        store.latents.numbers(list_runs(folder)[0].run_id, search)


def test_strong_uses_come_and_go_with_the_scores_and_an_older_file_gets_them(folder, tmp_path):
    run = list_runs(folder)[0]
    strong, path = with_scores(run), tmp_path / "explorer.duckdb"
    expected = strong.astype({"prompt_id": str})
    expected = expected.sort_values(["latent", "prompt_id", "position"]).reset_index(drop=True)

    def kept(store):
        table = store.database.query(
            """SELECT latent, prompt_id, position, coefficient FROM strong_uses
            JOIN prompts USING (prompt) ORDER BY ALL"""
        )
        pd.testing.assert_frame_equal(
            table.sort_values(["latent", "prompt_id", "position"]).reset_index(drop=True),
            expected, check_dtype=False,
        )  # fmt: skip

    store = Store(path)
    store.import_new(folder)
    kept(store)
    store.close()
    with duckdb.connect(str(path)) as database:
        database.execute("DROP TABLE strong_uses")
        names = ["cross_entropy", "model_cross_entropy", "zeros_cross_entropy", "quick"]
        for column in [*names, "median_unexplained"]:
            database.execute(f"ALTER TABLE evaluations DROP COLUMN {column}")
        database.execute("UPDATE meta SET version = 8")
    store = Store(path)
    kept(store)
    (run.directory / "scores.parquet").unlink()
    store.import_new(folder)
    assert store.database.query("SELECT * FROM strong_uses").empty
    store.close()


def test_an_older_file_learns_of_which_latents_no_use_is_strong(tmp_path, folder):
    """As the version before had them: no threshold, and all of their uses among the strong ones."""
    with_scores(list_runs(folder)[0], why=NONE)
    path = tmp_path / "explorer.duckdb"
    store = Store(path)
    store.import_new(folder)
    asked = ["SELECT * FROM strong_uses ORDER BY ALL", "SELECT * FROM latent_scores ORDER BY ALL"]
    expected = [store.database.query(one) for one in asked]
    store.close()
    is_none = "threshold = 'inf'"
    with duckdb.connect(str(path)) as database:
        [(count,)] = database.execute(
            f"SELECT count(*) FROM latent_scores WHERE {is_none}"
        ).fetchall()
        assert count > 0
        database.execute(f"""INSERT INTO strong_uses
            SELECT run, latent, prompt, position, coefficient FROM codes
            SEMI JOIN (SELECT * FROM latent_scores WHERE {is_none}) USING (run, latent)""")
        database.execute(f"""UPDATE latent_scores SET threshold = NULL, filler = NULL,
            strong = NULL, strong_squares = NULL WHERE {is_none}""")
        database.execute("UPDATE meta SET version = 11")
    store = Store(path)
    for one, before in zip(asked, expected, strict=True):
        pd.testing.assert_frame_equal(store.database.query(one), before)
    store.close()


@pytest.mark.parametrize(("text", "way"), [("the", "word"), ("e", "text"), ("t[a-h]e", "regex")])
@pytest.mark.parametrize("least", [-np.inf, 0.5])
def test_the_uses_of_a_latent_are_searched_in_what_is_around_them(store, folder, text, way, least):
    run = list_runs(folder)[0]
    store.import_new(folder)
    prompts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")
    uses = uses_of(run)
    latent = int(uses["latent"].value_counts().index[0])
    pattern = re.compile(rf"\b{text}\b" if way == "word" else text, re.IGNORECASE)
    expected = []
    for use in uses[(uses["latent"] == latent) & (uses["coefficient"] >= least)].itertuples():
        row = prompts.loc[use.prompt_id]
        start, end = row.starts[use.position], row.ends[use.position]
        low, high = max(0, start - AROUND), end + AROUND
        spans = [one.span() for one in pattern.finditer(row.text)]
        inside = any(low <= span[0] and span[1] <= high for span in spans)
        # An expression sees what is around a use alone.
        if inside if way == "word" else pattern.search(row.text[low:high]):
            expected.append((-abs(use.coefficient), use.prompt_id, use.position))
    found = store.uses.saying(run.run_id, latent, text, way, limit=7, least=least)
    assert len(expected) > 3
    assert list(zip(found["prompt_id"], found["position"], strict=True)) == [
        one[1:] for one in sorted(expected)[:7]
    ]
    assert set(found["uses"]) == {len(expected)}
    with pytest.raises(InputError, match="is no regular expression"):
        store.uses.saying(run.run_id, latent, "(", "regex")


def test_a_word_that_the_edge_of_a_context_cuts_is_no_whole_word():
    store = Store()
    store.database.query("INSERT INTO runs (run, run_id, explored_tokens) VALUES (1, 'r', 9)")
    # The source "x" and what is 40 characters from it: "war" with and without another letter.
    texts = [f"x{'.' * 37}wars", f"x{'.' * 37}war s", f"x{'.' * 37}war",
             f"x{'.' * 38}war", f"awar{'.' * 37}x", f"a war{'.' * 37}x", f"war{'.' * 37}x",
             f"war{'.' * 38}x"]  # fmt: skip
    for number, text in enumerate(texts):
        start = text.index("x")
        store.database.query("INSERT INTO prompts VALUES (?, ?, ?, '')", number, str(number), text)
        row = "INSERT INTO run_prompts VALUES (1, ?, true, ?, ?)"
        store.database.query(row, number, [start], [start + 1])
        store.database.query(
            """INSERT INTO latents (run, latent, prompt, position, "start", "end", tokens)
            VALUES (1, ?, ?, 0, ?, ?, 1)""", number, number, start, start + 1,
        )  # fmt: skip
        store.database.query(
            """INSERT INTO codes (run, latent, prompt, position, step, coefficient)
            VALUES (1, 0, ?, 0, 0, 1.0)""", number,
        )  # fmt: skip
    found = store.uses.saying("r", 0, "war", "word")
    assert sorted(found["prompt_id"]) == ["1", "2", "5", "6"]
    assert store.latents.numbers("r", LatentSearch("war", "context", "word", kind="all")) == [
        1, 2, 5, 6
    ]  # fmt: skip
    # By meaning a word counts that begins in the context.
    by_meaning = store.latents.found("r", LatentSearch("war", "meaning", "word"))
    assert sorted(by_meaning["latent"]) == [1, 2, 3, 5, 6, 7]
    store.close()


def test_companions_and_places_of_strong_uses_are_counted_one_by_one(store, folder):
    run = list_runs(folder)[0]
    strong = with_scores(run, 0.5)
    store.import_new(folder)
    n = run.metrics["atoms"]
    where = {latent: set() for latent in range(n)}
    for use in strong.itertuples():
        where[use.latent].add((use.prompt_id, use.position))
    # What the scores say of a latent without a threshold is all of its uses.
    counts = store.database.query(
        """SELECT q.latent, coalesce(q.strong, l.tokens) AS tokens FROM latent_scores q
        JOIN latents l USING (run, latent) ORDER BY latent"""
    )["tokens"].to_numpy()
    assert counts.tolist() == [len(where[latent]) for latent in range(n)]
    explored = run.metrics["explored_tokens"]
    for latent in (1, 5, int(np.argmax(counts))):
        both = {other: len(where[latent] & where[other]) for other in range(n) if other != latent}
        expected = {
            other: (shared, shared * explored / (counts[other] * counts[latent]))
            for other, shared in both.items()
            if shared >= 2
        }
        found = store.uses.together(run.run_id, latent, 2, n, of_strong=True)
        assert found["lift"].is_monotonic_decreasing
        assert set(found["latent"]) == set(expected)
        for row in found.itertuples():
            assert (row.both, row.tokens) == (expected[row.latent][0], counts[row.latent])
            assert row.lift == pytest.approx(expected[row.latent][1])
        rank = 1 + int((counts > counts[latent]).sum())
        assert store.latents.rank(run.run_id, latent, of_strong=True) == rank
    overview = store.latents.overview(run.run_id, 5, of_strong=True)
    np.testing.assert_allclose(overview["density"], counts / explored)
