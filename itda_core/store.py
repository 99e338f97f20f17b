"""The store: an index of the run directories, and every query that the app makes.

All SQL is here, in indexing.py, importing.py and database.py. What is stored can be made anew from
the run directories and the comparisons beside them.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from itda_core.database import FILE_NAME, SCHEMA_VERSION
from itda_core.errors import RunError, StoreError, StoreNotOursError
from itda_core.indexing import Index

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "Store", "rebuild"]

_LATENT_COLUMNS = """l.latent, p.prompt_id, p.title, p.text, l.position, l."start", l."end",
    l.token, l.tokens, l.tokens / greatest(r.explored_tokens, 1) AS density, l.strongest"""


class Store(Index):
    """The explorer's database with the queries of the pages."""

    def stored(self) -> tuple[int, int, str | None]:
        """How many runs and evaluated rows there are, and when the newest was evaluated: what
        changes when something has come or gone."""
        found = self.query(
            """SELECT (SELECT count(*) FROM runs) AS runs, count(*) AS evaluated,
                max(created) AS newest FROM evaluations"""
        ).iloc[0]
        newest = found["newest"]
        return int(found["runs"]), int(found["evaluated"]), newest if newest == newest else None

    def runs(self) -> pd.DataFrame:
        """One row a dictionary, in order of model and layer."""
        return self.query("SELECT * FROM runs ORDER BY model, layer, created")

    def evaluations(self, run_ids: list[str] | None = None) -> pd.DataFrame:
        """What evaluations found, one row a dictionary and L0: run_id, l0, each measure of
        metrics.py, and what it was measured on. By default of all dictionaries."""
        return self.query(
            """SELECT run_id, e.* EXCLUDE (run) FROM evaluations e JOIN runs r USING (run)
            WHERE ?::VARCHAR[] IS NULL OR list_contains(?::VARCHAR[], run_id)
            ORDER BY model, layer, r.created, l0""",
            run_ids,
            run_ids,
        )

    def comparisons(self, measure: str, run_ids: Sequence[str]) -> pd.DataFrame:
        """What is known of a measure between dictionaries: run_a, run_b, value (NaN where there is
        none), tokens, unit, created, and reason, why there is no value. From a to b where the
        measure is not symmetric, otherwise a pair once, in either order."""
        return self.query(
            """SELECT a.run_id AS run_a, b.run_id AS run_b, value, c.tokens, unit, c.created,
                reason
            FROM comparisons c JOIN runs a ON a.activations = c.a
            JOIN runs b ON b.activations = c.b
            WHERE measure = ? AND list_contains(?::VARCHAR[], a.run_id)
                AND list_contains(?::VARCHAR[], b.run_id)""",
            measure,
            list(run_ids),
            list(run_ids),
        )

    def latent_numbers(self, run_id: str, search: str = "", order: str = "number") -> list[int]:
        """The numbers of a dictionary's latents, searched and ordered.

        search: text that the source token or the 40 characters on either side of it hold,
        whatever the case; order: "number", "density" or "strength".
        """
        by = {"number": "l.latent", "density": "l.tokens DESC", "strength": "l.strongest DESC"}
        where, values = "r.run_id = ?", [run_id]
        if search:
            left = 'greatest(0, l."start" - 40)'
            around = f'substr(p.text, {left} + 1, l."end" + 40 - {left})'
            where += f" AND contains(lower({around}), lower(?))"
            values.append(search)
        found = self.query(
            f"""SELECT l.latent FROM latents l JOIN runs r USING (run) JOIN prompts p USING (prompt)
            WHERE {where} ORDER BY {by[order]}, l.latent""",
            *values,
        )
        return found["latent"].tolist()

    def latents(self, run_id: str, numbers: list[int]) -> pd.DataFrame:
        """The given latents with their sources, in the order of their numbers."""
        return self.query(
            f"""SELECT {_LATENT_COLUMNS} FROM latents l JOIN runs r USING (run)
            JOIN prompts p USING (prompt)
            WHERE r.run_id = ? AND list_contains(?::INTEGER[], l.latent) ORDER BY l.latent""",
            run_id,
            list(numbers),
        )

    def strongest_uses(self, run_id: str, latent: int, limit: int = 20) -> pd.DataFrame:
        """The tokens that use a latent with the largest |coefficient|, strongest first.

        prompt_id, title, text, position, step, coefficient, and the prompt's token spans as
        lists `starts` and `ends`. A token that used it twice is one row, its coefficients added.
        """
        return self.query(
            """WITH uses AS (
                SELECT c.run, c.prompt, c.position, min(c.step) AS step,
                    sum(c.coefficient)::FLOAT AS coefficient
                FROM codes c JOIN runs r USING (run) WHERE r.run_id = ? AND c.latent = ?
                GROUP BY ALL ORDER BY abs(sum(c.coefficient)) DESC, c.prompt, c.position LIMIT ?)
            SELECT p.prompt_id, p.title, p.text, u.position, u.step, u.coefficient, rp.starts,
                rp.ends
            FROM uses u JOIN prompts p USING (prompt) JOIN run_prompts rp USING (run, prompt)
            ORDER BY abs(u.coefficient) DESC, p.prompt, u.position""",
            run_id,
            latent,
            limit,
        )

    def uses_in_prompts(self, run_id: str, latent: int, prompt_ids: list[str]) -> pd.DataFrame:
        """Every use of a latent in the given prompts: prompt_id, position, coefficient."""
        return self.query(
            """SELECT p.prompt_id, c.position, sum(c.coefficient)::FLOAT AS coefficient
            FROM codes c JOIN runs r USING (run) JOIN prompts p USING (prompt)
            WHERE r.run_id = ? AND c.latent = ? AND list_contains(?::VARCHAR[], p.prompt_id)
            GROUP BY ALL ORDER BY p.prompt_id, c.position""",
            run_id,
            latent,
            list(prompt_ids),
        )

    def coefficients(self, run_id: str, latent: int) -> pd.Series:
        """The coefficient of each token that uses a latent, [n_tokens that use it] float32."""
        return self.query(
            """SELECT sum(c.coefficient)::FLOAT AS coefficient FROM codes c JOIN runs r USING (run)
            WHERE r.run_id = ? AND c.latent = ? GROUP BY c.prompt, c.position""",
            run_id,
            latent,
        )["coefficient"]

    def used_together(self, run_id: str, latent: int, least: int, limit: int) -> pd.DataFrame:
        """The latents that are used on the same tokens as a latent more often than by chance.

        latent, both (tokens that use both), tokens (that use it), and lift: both over what chance
        gives, tokens × those of the latent / explored tokens. The largest lift first, of those that
        share at least `least` tokens.
        """
        return self.query(
            """WITH uses AS (
                SELECT DISTINCT run, prompt, position FROM codes c JOIN runs r USING (run)
                WHERE r.run_id = $run AND c.latent = $latent),
            shared AS (
                SELECT c.run, c.latent, count(DISTINCT (c.prompt, c.position)) AS "both"
                FROM codes c SEMI JOIN uses USING (run, prompt, position)
                WHERE c.latent <> $latent GROUP BY ALL HAVING "both" >= $least)
            SELECT s.latent, s."both", l.tokens,
                s."both" * r.explored_tokens / (l.tokens * (SELECT count(*) FROM uses)) AS lift
            FROM shared s JOIN latents l USING (run, latent) JOIN runs r USING (run)
            ORDER BY lift DESC, s.latent LIMIT $limit""",
            run=run_id,
            latent=latent,
            least=least,
            limit=limit,
        )

    def at_token(self, run_ids: Sequence[str], prompt_id: str, position: int) -> pd.DataFrame:
        """How dictionaries read one explored token: for each the latent with the largest
        |coefficient|: run_id, layer, latent, coefficient, and is_source, whether the token is the
        latent's own source."""
        return self.query(
            """SELECT r.run_id, r.layer, c.latent, sum(c.coefficient)::FLOAT AS coefficient,
                bool_or(l.prompt = c.prompt AND l.position = c.position) AS is_source
            FROM codes c JOIN runs r USING (run) JOIN prompts p USING (prompt)
            JOIN latents l USING (run, latent)
            WHERE list_contains($runs::VARCHAR[], r.run_id) AND p.prompt_id = $prompt
                AND c.position = $position
            GROUP BY r.run_id, r.layer, c.latent
            QUALIFY row_number() OVER (
                PARTITION BY r.run_id ORDER BY abs(sum(c.coefficient)) DESC, c.latent) = 1
            ORDER BY r.layer, r.run_id""",
            runs=list(run_ids),
            prompt=prompt_id,
            position=position,
        )

    def prompt_text(self, prompt_id: str) -> str | None:
        """The text of a prompt, None where it is not known."""
        found = self.query("SELECT text FROM prompts WHERE prompt_id = ?", prompt_id)["text"]
        return None if found.empty else str(found[0])

    def prompt_ids(self) -> list[str]:
        """The ids of all prompts."""
        return self.query("SELECT prompt_id FROM prompts")["prompt_id"].tolist()

    def prompt_texts(self, prompt_ids: list[str]) -> dict[str, str]:
        """Texts by prompt id."""
        found = self.query(
            "SELECT prompt_id, text FROM prompts WHERE list_contains(?::VARCHAR[], prompt_id)",
            list(prompt_ids),
        )
        return dict(zip(found["prompt_id"], found["text"], strict=True))

    def contents(self) -> dict[str, pd.DataFrame]:
        """Everything by name rather than internal number, sorted; equal for equal content."""
        joins = "JOIN runs r USING (run) JOIN prompts p USING (prompt)"
        return {
            "runs": self.query("SELECT * EXCLUDE (run) FROM runs ORDER BY run_id"),
            "prompts": self.query("SELECT * EXCLUDE (prompt) FROM prompts ORDER BY prompt_id"),
            "latents": self.query(
                f"SELECT run_id, prompt_id, l.* EXCLUDE (run, prompt) FROM latents l {joins} "
                "ORDER BY ALL"
            ),
            "codes": self.query(
                f"SELECT run_id, prompt_id, c.* EXCLUDE (run, prompt) FROM codes c {joins} "
                "ORDER BY ALL"
            ),
            "evaluations": self.evaluations(),
            "comparisons": self.query("SELECT * FROM comparisons ORDER BY measure, a, b"),
        }


def rebuild(path: Path, runs: Path) -> int:
    """Make the database anew from the run directories; returns how many there are.

    The old file is replaced only when the new one is whole. Raises StoreError where the old one
    is open in another process or of a newer version, and RunError after all other runs are in
    where one is damaged.
    """
    if path.exists():
        _check_replaceable(path)
    temporary = path.with_name(f".{path.name}-rebuild")
    temporary.unlink(missing_ok=True)
    store, damaged = Store(temporary), None
    try:
        store.import_new(runs)
    except RunError as error:  # the others are in all the same
        damaged = error
    finally:
        count = len(store.runs())
        store.close()
    temporary.replace(path)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    if damaged:
        raise damaged
    return count


def _check_replaceable(path: Path) -> None:
    """A database that another process holds or that a newer version wrote is left alone."""
    try:
        Store(path).close()
    except StoreNotOursError:
        raise
    except StoreError:  # damaged, or of an older version: that is what a rebuild is for
        return
