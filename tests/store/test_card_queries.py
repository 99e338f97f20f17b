"""Uses of several latents at once are those of each alone."""

import numpy as np
import pytest

from itda_core.runs.run import list_runs
from itda_core.store.store import Store


@pytest.fixture(scope="module")
def stored(runs_folder):
    store = Store()
    run = list_runs(runs_folder)[0]
    store.import_run(run)
    yield store, run
    store.close()


def test_the_uses_of_several_latents_are_those_of_each_alone(stored):
    store, run = stored
    numbers = range(run.metrics["atoms"])
    found = store.cards.uses(run.run_id, dict.fromkeys(numbers), limit=4)
    assert list(found) == list(numbers)
    for latent in numbers:
        alone = store.uses.strongest(run.run_id, latent, limit=4)
        own = found[latent]
        assert sorted(own.coefficients) == sorted(store.uses.coefficients(run.run_id, latent))
        assert own.strongest["coefficient"].tolist() == alone["coefficient"].tolist()
        assert own.strongest["text"].tolist() == alone["text"].tolist()
        for use, other in zip(own.strongest.itertuples(), alone.itertuples(), strict=True):
            assert (use.start, use.end) == (
                other.starts[other.position],
                other.ends[other.position],
            )


def test_strong_uses_alone_are_shown_where_there_is_a_threshold(stored):
    store, run = stored
    coefficients = store.uses.all(run.run_id, 0)["coefficient"]
    threshold = float(np.sort(coefficients)[-2])
    for least, count in ((threshold, 2), (float(coefficients.max()) + 1, 0)):
        shown = store.cards.uses(run.run_id, {0: least})[0]
        assert len(shown.strongest) == count
        assert len(shown.coefficients) == len(coefficients)


def test_their_number_does_not_change_the_number_of_queries(stored, monkeypatch):
    store, run = stored
    asked, query = [], store.database.query

    def counted(*values, **named):
        asked.append(values)
        return query(*values, **named)

    monkeypatch.setattr(store.database, "query", counted)
    for numbers in ([0], range(20), []):
        asked.clear()
        store.cards.uses(run.run_id, dict.fromkeys(numbers))
        assert len(asked) == 2
