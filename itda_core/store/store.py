"""The store: an index of the run directories, and every query that the app makes.

All SQL is in this package. What is stored can be made anew from the run directories, and the
comparisons and labels beside them.
"""

from collections.abc import Callable
from pathlib import Path

from itda_core.runs.run import Run
from itda_core.store.card_queries import CardQueries
from itda_core.store.comparison_queries import ComparisonQueries
from itda_core.store.database import FILE_NAME, SCHEMA_VERSION, Database
from itda_core.store.index import Index
from itda_core.store.label_queries import LabelQueries
from itda_core.store.latent_queries import LatentQueries
from itda_core.store.namesake_queries import NamesakeQueries
from itda_core.store.rebuilding import Rebuilt, rebuild, rebuild_all
from itda_core.store.run_queries import RunQueries
from itda_core.store.use_queries import UseQueries

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "Rebuilt", "Store", "rebuild", "rebuild_all"]


class Store:
    """The explorer's database, what brings it up to date, and the queries of the pages."""

    def __init__(self, path: Path | str = ":memory:"):
        """Open or make the database. Raises StoreError where it is locked, damaged or newer."""
        self.database = Database(path)
        self.index = Index(self.database)
        self.runs = RunQueries(self.database)
        self.latents = LatentQueries(self.database)
        self.labels = LabelQueries(self.database)
        self.uses = UseQueries(self.database)
        self.cards = CardQueries(self.database)
        self.comparisons = ComparisonQueries(self.database)
        self.namesakes = NamesakeQueries(self.database)
        self.known = self.database.known
        """For a page: `known(store.runs.table)` is asked anew only after something was written"""

    def import_run(self, run: Run) -> bool:
        """Take in a run directory, as `Index.import_run` does."""
        return self.index.import_run(run)

    def import_new(self, folder: Path) -> list[str]:
        """Take in every run of a folder that is not there yet, as `Index.import_new` does."""
        return self.index.import_new(folder)

    def anew(self, make: Callable[[], Rebuilt]) -> Rebuilt:
        """Have `make`, a rebuild, make the file anew, as `Database.anew` does; all is read again
        then."""
        try:
            return self.database.anew(make)
        finally:
            self.index = Index(self.database)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
