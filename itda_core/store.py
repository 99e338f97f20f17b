"""The store: an index of the run directories, and every query that the app makes.

All SQL is here and in database.py. What is stored can be made anew from the run directories.
"""

from pathlib import Path

import duckdb
import pandas as pd

from itda_core.database import FILE_NAME, SCHEMA_VERSION, Database
from itda_core.errors import ItdaError, RunError, StoreError, StoreNotOursError
from itda_core.runs import Run, list_runs

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "Store", "rebuild"]

_LATENT_COLUMNS = """l.latent, p.prompt_id, p.title, p.text, l.position, l."start", l."end",
    l.token, l.tokens, l.tokens / greatest(r.explored_tokens, 1) AS density, l.strongest"""


class Store(Database):
    """The explorer's database: import of runs, and the queries of the pages."""

    # Import

    def import_run(self, run: Run) -> bool:
        """Take in a run directory in one transaction; False where it is there already.

        Raises RunError where its files can't be read, StoreError where there is no space.
        """
        try:
            return self._import_run(run)
        except duckdb.Error as error:
            raise _why_not_imported(run, str(error).splitlines()[0]) from error

    def _import_run(self, run: Run) -> bool:
        with self.transaction() as cursor:
            if cursor.execute("SELECT 1 FROM runs WHERE run_id = ?", [run.run_id]).fetchone():
                return False
            number = cursor.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
            _insert_run(cursor, number, run)
            _insert_prompts(cursor, number, run.directory)
            _insert_codes(cursor, number, run.directory)
            return True

    def import_new(self, folder: Path) -> list[str]:
        """Take in every finished run of `folder` that is not there yet; returns their ids.

        Runs whose directory is gone are forgotten, those that were moved are found again. One that
        can't be read does not keep the others out; its RunError is raised at the end.
        """
        table = self.runs()
        known = dict(zip(table["run_id"], table["directory"], strict=True))
        taken, failed, listed = [], None, list_runs(folder)
        here = {run.run_id: str(run.directory.resolve()) for run in listed}
        for run_id, directory in known.items():
            if run_id not in here and not Path(directory).exists():
                self.forget_run(run_id)
            elif here.get(run_id, directory) != directory:
                self.query("UPDATE runs SET directory = ? WHERE run_id = ?", here[run_id], run_id)
        for run in listed:
            try:
                if run.run_id not in known and self.import_run(run):
                    taken.append(run.run_id)
            except RunError as error:
                failed = failed or error
        if failed:
            raise failed
        return taken

    def forget_run(self, run_id: str) -> None:
        """Remove a run from the index; its directory is not touched."""
        with self.transaction() as cursor:
            for table in ("codes", "latents", "run_prompts", "runs"):
                cursor.execute(
                    f"DELETE FROM {table} WHERE run = (SELECT run FROM runs WHERE run_id = ?)",
                    [run_id],
                )
            cursor.execute(
                "DELETE FROM prompts WHERE prompt NOT IN (SELECT prompt FROM run_prompts)"
            )

    # Queries

    def runs(self) -> pd.DataFrame:
        """One row a dictionary, in order of model and layer."""
        return self.query("SELECT * FROM runs ORDER BY model, layer, created")

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


def _why_not_imported(run: Run, message: str) -> ItdaError:
    if "No space left" in message:
        return StoreError(f"There is no space left for the database ({message}). Free some space.")
    if "Out of Memory" in message:
        return StoreError(f"There is not enough memory to import {run.run_id} ({message}).")
    return RunError(f"{run.directory} is damaged ({message}). Delete it and train again.")


def _check_replaceable(path: Path) -> None:
    """A database that another process holds or that a newer version wrote is left alone."""
    try:
        Store(path).close()
    except StoreNotOursError:
        raise
    except StoreError:  # damaged, or of an older version: that is what a rebuild is for
        return


def _insert_run(cursor: duckdb.DuckDBPyConnection, number: int, run: Run) -> None:
    config, metrics = run.config, run.metrics
    values = {
        "run": number,
        "run_id": run.run_id,
        "training_id": run.about["training_id"],
        "model": config.model.name,
        "layer": run.layer,
        "d_model": run.about["d_model"],
        "n_layers": run.about["n_layers"],
        "atoms": metrics["atoms"],
        "max_atoms": config.max_atoms,
        "l0": config.l0,
        "tokens": metrics["tokens"],
        "explored_tokens": metrics["explored_tokens"],
        "fvu": metrics["fvu"],
        "explored_fvu": metrics["explored_fvu"],
        "selection": config.selection,
        "threshold": config.threshold,
        "seed": config.seed,
        "corpus": config.corpus.name,
        "dtype": run.about["dtype"],
        "created": run.about["created"],
        "seconds": metrics["seconds"],
        "directory": str(run.directory.resolve()),
    }
    marks = ", ".join("?" for _ in values)
    cursor.execute(f"INSERT INTO runs ({', '.join(values)}) VALUES ({marks})", [*values.values()])


def _insert_prompts(cursor: duckdb.DuckDBPyConnection, number: int, directory: Path) -> None:
    path = str(directory / "prompts.parquet")
    cursor.execute(
        """INSERT INTO prompts
        SELECT (SELECT coalesce(max(prompt), 0) FROM prompts) + row_number() OVER (), prompt_id,
            text, title
        FROM read_parquet(?) WHERE prompt_id NOT IN (SELECT prompt_id FROM prompts)""",
        [path],
    )
    cursor.execute(
        """INSERT INTO run_prompts SELECT ?, prompt, explored, starts, ends
        FROM read_parquet(?) JOIN prompts USING (prompt_id)""",
        [number, path],
    )


def _insert_codes(cursor: duckdb.DuckDBPyConnection, number: int, directory: Path) -> None:
    """Codes sorted by latent, so that a latent's uses lie together, then the latents."""
    cursor.execute(
        """INSERT INTO codes SELECT ?, latent, prompt, position, step, coefficient
        FROM read_parquet(?) JOIN prompts USING (prompt_id) ORDER BY latent, prompt, position""",
        [number, str(directory / "codes.parquet")],
    )
    cursor.execute(
        """INSERT INTO latents
        WITH uses AS (
            SELECT latent, count(*) AS tokens, max(abs(coefficient)) AS strongest FROM (
                SELECT latent, sum(coefficient) AS coefficient FROM codes WHERE run = $run
                GROUP BY latent, prompt, position)
            GROUP BY latent)
        SELECT $run, s.latent, prompt, s.position, s."start", s."end", s.token,
            coalesce(u.tokens, 0), coalesce(u.strongest, 0)
        FROM read_parquet($path) s JOIN prompts USING (prompt_id) LEFT JOIN uses u USING (latent)
        ORDER BY s.latent""",
        {"run": number, "path": str(directory / "sources.parquet")},
    )
