"""The queries about labels: what was written of a source, here and in other dictionaries."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pandas as pd

from itda_core.runs.labels import Change
from itda_core.store.database import Database
from itda_core.store.label_sources import ELSEWHERE, LABELLED, LATENTS, OWN, SHOWN

_SAYS = "(b.label <> '' OR b.note <> '')"


class LabelQueries:
    """Labels, notes, bookmarks and lists, from `store.labels`."""

    def __init__(self, database: Database):
        self._database = database

    def shown(self, run_id: str) -> pd.DataFrame:
        """The latents of a dictionary that have a label, of their own or from elsewhere: latent,
        prompt_id and position of its source, label, and label_from, the run that it was given in,
        "" where it is this one."""
        return self._database.query(
            f"""SELECT latent, prompt_id, position, label, label_from FROM (
                SELECT l.latent, p.prompt_id, l.position, {SHOWN}
                FROM {LABELLED} WHERE r.run_id = $run)
            WHERE label <> '' ORDER BY latent""",
            run=run_id,
        )

    def of_latent(self, run_id: str, latent: int) -> pd.DataFrame:
        """All that is written of the source of a latent, its own first (is_own), then what others
        say, the newest first: run_id, latent (its number there), label, note, bookmarked, lists,
        alone, changed; and model, layer and site of the run, missing where it is gone."""
        if not self._database.known(self._is_anything_written):  # the same of every latent
            return self._database.known(self._of_latent, run_id, -1)
        return self._of_latent(run_id, latent)

    def _is_anything_written(self) -> bool:
        select = """SELECT EXISTS (FROM labels) OR EXISTS (FROM shared_labels) AS "is" """
        return bool(self._database.query(select)["is"][0])

    def _of_latent(self, run_id: str, latent: int) -> pd.DataFrame:
        columns = "run_id, latent, label, note, bookmarked, lists"
        of_label = ", ".join(f"b.{name}" for name in columns.split(", "))
        of_other = of_label.replace("b.", "o.")
        return self._database.query(
            f"""WITH written AS (
                SELECT {of_label}, b.alone, b.changed, true AS is_own
                FROM {LATENTS} JOIN labels b ON {OWN} WHERE r.run_id = $run AND l.latent = $latent
                UNION ALL
                SELECT {of_other}, false, o.changed, false
                FROM {ELSEWHERE} AND r.run_id = $run AND l.latent = $latent)
            SELECT w.*, g.model, g.layer, g.site FROM written w LEFT JOIN runs g USING (run_id)
            ORDER BY is_own DESC, changed DESC, run_id DESC""",
            run=run_id,
            latent=latent,
        )

    def counts(self) -> pd.DataFrame:
        """How many latents of each dictionary have a label or a note: run_id, own, and elsewhere,
        how many others show one that was given to the same source in another dictionary."""
        return self._database.query(
            f"""WITH own AS (
                SELECT l.run, l.latent, {_SAYS} AS says, b.alone
                FROM {LATENTS} JOIN labels b ON {OWN}),
            others AS (
                SELECT DISTINCT l.run, l.latent FROM {ELSEWHERE}
                    AND (o.label <> '' OR o.note <> '')),
            both_kinds AS (
                SELECT coalesce(own.run, others.run) AS run, coalesce(says, false) AS is_own,
                    others.run IS NOT NULL AND NOT coalesce(says OR alone, false) AS is_other
                FROM own FULL JOIN others USING (run, latent))
            SELECT r.run_id, count(*) FILTER (is_own) AS own,
                count(*) FILTER (is_other) AS elsewhere
            FROM runs r LEFT JOIN both_kinds k ON k.run = r.run GROUP BY r.run_id
            ORDER BY r.run_id"""
        )

    def with_places(self, changes: Iterable[Change]) -> list[Change]:
        """Changes with where their sources stand in the text, and which latent at the root of its
        moves each is, of those that don't say it and whose dictionary is here: for the time when it
        is gone."""
        changes = list(changes)
        places = self._places(sorted({change.label.run_id for change in changes}))
        return [
            dataclasses.replace(change, **places.get(change.label.source, {}) | change.place)
            for change in changes
        ]

    def _places(self, run_ids: list[str]) -> dict[tuple, dict[str, Any]]:
        """By source, of all latents of some dictionaries: what Change.place has."""
        table = self._database.query(
            f"""SELECT r.run_id, l.latent, p.prompt_id, l.position, l."start", l."end",
                l.closes, r.kind, r.root, r.root_digest, l.origin
            FROM {LATENTS} WHERE list_contains($runs::VARCHAR[], r.run_id)""",
            runs=run_ids,
        )
        return {
            (row.run_id, row.latent, row.prompt_id, row.position): _place(row)
            for row in table.itertuples(index=False)
        }


def _place(row: Any) -> dict[str, Any]:
    """An autoencoder's latent has none."""
    if row.kind != "itda":
        return {"span": ()}
    closes = None if pd.isna(row.closes) else bool(row.closes)
    place = {"span": (row.start, row.end), "closes": closes}
    if not pd.isna(row.root_digest) and row.root_digest:  # "" of one that can't be read
        return place | {"origin": (row.root, row.origin, row.root_digest)}
    return place if row.root == row.run_id else place | {"origin": (row.root, row.origin)}
