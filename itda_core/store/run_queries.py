"""The queries about runs: what they are, what was measured of them, and the prompts they read."""

import pandas as pd

from itda_core.store.database import Database


class RunQueries:
    """Runs, their evaluations and their prompts, from `store.runs`."""

    def __init__(self, database: Database):
        self._database = database

    def table(self) -> pd.DataFrame:
        """One row a dictionary, in order of model and layer."""
        return self._database.query("SELECT * FROM runs ORDER BY model, layer, created")

    def evaluations(self, run_ids: list[str] | None = None) -> pd.DataFrame:
        """What evaluations found, one row a dictionary and L0: run_id, l0, each measure of
        metrics.py, and what it was measured on. By default of all dictionaries."""
        return self._database.query(
            """SELECT run_id, e.* EXCLUDE (run) FROM evaluations e JOIN runs r USING (run)
            WHERE ?::VARCHAR[] IS NULL OR list_contains(?::VARCHAR[], run_id)
            ORDER BY model, layer, r.created, l0""",
            run_ids,
            run_ids,
        )

    def state(self) -> tuple[int, int, str | None]:
        """How many runs and evaluated rows there are, and a digest of when each was: what
        changes when something has come or gone."""
        row = self._database.query(
            """SELECT (SELECT count(*) FROM runs) AS runs, count(*) AS evaluated,
                md5(string_agg(created, ' ' ORDER BY run, l0)) AS times FROM evaluations"""
        ).iloc[0]
        times = None if pd.isna(row["times"]) else row["times"]
        return int(row["runs"]), int(row["evaluated"]), times

    def prompt_ids(self) -> list[str]:
        """The ids of all prompts."""
        return self._database.query("SELECT prompt_id FROM prompts")["prompt_id"].tolist()

    def prompt_text(self, prompt_id: str) -> str | None:
        """The text of a prompt, None where it is not known."""
        select = "SELECT text FROM prompts WHERE prompt_id = ?"
        texts = self._database.query(select, prompt_id)["text"]
        return None if texts.empty else str(texts[0])

    def prompt_texts(self, prompt_ids: list[str]) -> dict[str, str]:
        """Texts by prompt id."""
        table = self._database.query(
            "SELECT prompt_id, text FROM prompts WHERE list_contains(?::VARCHAR[], prompt_id)",
            list(prompt_ids),
        )
        return dict(zip(table["prompt_id"], table["text"], strict=True))

    def token_spans(self, run_id: str, prompt_id: str) -> list[tuple[int, int]]:
        """Where the tokens of a prompt that were read begin and end in its text."""
        table = self._database.query(
            """SELECT rp.starts, rp.ends FROM run_prompts rp JOIN runs r USING (run)
            JOIN prompts p USING (prompt) WHERE r.run_id = ? AND p.prompt_id = ?""",
            run_id,
            prompt_id,
        )
        if table.empty:
            return []
        return list(zip(table["starts"][0].tolist(), table["ends"][0].tolist(), strict=True))

    def contents(self) -> dict[str, pd.DataFrame]:
        """Everything by name rather than internal number, sorted; equal for equal content."""
        query = self._database.query
        joins = "JOIN runs r USING (run) JOIN prompts p USING (prompt)"
        return {
            "runs": query("SELECT * EXCLUDE (run) FROM runs ORDER BY run_id"),
            "prompts": query("SELECT * EXCLUDE (prompt) FROM prompts ORDER BY prompt_id"),
            "latents": query(
                f"SELECT run_id, prompt_id, l.* EXCLUDE (run, prompt) FROM latents l {joins} "
                "ORDER BY ALL"
            ),
            "codes": query(
                f"SELECT run_id, prompt_id, c.* EXCLUDE (run, prompt) FROM codes c {joins} "
                "ORDER BY ALL"
            ),
            "evaluations": self.evaluations(),
            "comparisons": query("SELECT * FROM comparisons ORDER BY measure, a, b"),
            "labels": query("SELECT * FROM labels ORDER BY run_id, latent"),
        }
