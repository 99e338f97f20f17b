"""The database file: its schema, its version, who may open it, and its transactions.

DuckDB locks the whole file to one process, so the app owns it: one connection, one cursor for
each call.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from itda_core.errors import StoreError, StoreNotOursError, StoreOutdatedError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.files.foreign import check_foreign
from itda_core.store.gate import Gate
from itda_core.store.namesake_tables import NAMESAKE_TABLES, OF_STRONG_USES
from itda_core.store.score_tables import SCORE_TABLES
from itda_core.store.strong_tables import NONE_STRONG, STRONG_OF_ALL_RUNS, STRONG_TABLES
from itda_core.store.trouble import (
    of_the_file,
    why_damaged,
    why_newer,
    why_no_name,
    why_not_opened,
)

SCHEMA_VERSION = 12
FILE_NAME = "explorer.duckdb"
_SIGNS_OF_DUCKDB = "?" if os.name == "nt" else "?\\"
"""For DuckDB the name of a file ends before a question mark, and a backslash is a slash"""
_SETTINGS = {
    # A table that is missing must not be a variable that happens to have its name.
    "python_enable_replacements": False,
    # No question of ours needs an extension that is not built in: none is fetched.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_PROGRAMS = """
SELECT 'view', view_name FROM system.main.duckdb_views() WHERE NOT internal
UNION ALL SELECT 'function', function_name FROM system.main.duckdb_functions() WHERE NOT internal
UNION ALL SELECT 'trigger', trigger_name FROM system.main.duckdb_triggers()
UNION ALL SELECT 'type', type_name FROM system.main.duckdb_types() WHERE NOT internal
LIMIT 1"""
"""What a file can hold beside tables. All of it works when tables are read or written: it can read
files of this machine, ask others, or give other answers than DuckDB's own functions. The names are
whole, so that nothing in the file is asked in their place."""
_KNOWN_ANSWERS = 1_024
"""That are remembered: a page asks for about twelve, and twenty people should not take each other's
away. Most have some 60 KB or less."""
CLOSES = """"end" > "start" AND (unicode(right(token, 1)) < 128 OR ends[position + 2] <> "end")"""
"""Whether a token is the last one of its last character, so that with it the text has been read up
to its end: characters of ASCII are never cut in pieces, others where the next token has the same
end; open where there is no next token, since the text may have been cut there. Of a latent's
position, start, end and token, and of the ends of its prompt's tokens."""
_SHARED_LABELS = """
CREATE TABLE shared_labels (run_id VARCHAR, latent INTEGER, label VARCHAR, note VARCHAR,
    bookmarked BOOLEAN, lists VARCHAR[], changed VARCHAR, label_changed VARCHAR,
    note_changed VARCHAR, prompt INTEGER, position INTEGER, "start" INTEGER, "end" INTEGER,
    closes BOOLEAN, root VARCHAR, origin INTEGER, root_digest VARCHAR);
"""
_UPGRADES = {
    4: "ALTER TABLE runs ADD COLUMN site VARCHAR DEFAULT 'resid_post'",
    5: f"""ALTER TABLE runs ADD COLUMN moved_from VARCHAR;
        ALTER TABLE runs ADD COLUMN root VARCHAR;
        ALTER TABLE latents ADD COLUMN closes BOOLEAN;
        ALTER TABLE latents ADD COLUMN origin INTEGER;
        ALTER TABLE labels ADD COLUMN label_changed VARCHAR;
        ALTER TABLE labels ADD COLUMN note_changed VARCHAR;
        ALTER TABLE labels ADD COLUMN alone BOOLEAN;
        ALTER TABLE labels ADD COLUMN "start" INTEGER;
        ALTER TABLE labels ADD COLUMN "end" INTEGER;
        ALTER TABLE labels ADD COLUMN of_source BOOLEAN;
        UPDATE latents SET closes = {CLOSES} FROM run_prompts rp
        WHERE rp.run = latents.run AND rp.prompt = latents.prompt;
        UPDATE latents SET closes = "end" > "start" AND unicode(right(token, 1)) < 128
        WHERE closes IS NULL;
        UPDATE runs SET root = run_id;
        UPDATE latents SET origin = latent;
        UPDATE labels SET label_changed = changed, note_changed = changed, alone = false,
            of_source = true;
        {_SHARED_LABELS}
        {NAMESAKE_TABLES}
        ALTER TABLE namesakes DROP COLUMN chance""",
    6: f"""UPDATE latents SET closes = {CLOSES} FROM run_prompts rp
        WHERE rp.run = latents.run AND rp.prompt = latents.prompt;
        ALTER TABLE namesakes ADD COLUMN chance DOUBLE;
        ALTER TABLE labels ADD COLUMN closes BOOLEAN;
        ALTER TABLE labels ADD COLUMN root VARCHAR;
        ALTER TABLE labels ADD COLUMN origin INTEGER;
        ALTER TABLE labels ADD COLUMN root_digest VARCHAR;
        ALTER TABLE runs ADD COLUMN root_digest VARCHAR;
        ALTER TABLE shared_labels ADD COLUMN IF NOT EXISTS root_digest VARCHAR""",
    7: SCORE_TABLES,
    8: f"{STRONG_TABLES}{STRONG_OF_ALL_RUNS}",
    9: """ALTER TABLE evaluations ADD COLUMN cross_entropy DOUBLE;
        ALTER TABLE evaluations ADD COLUMN model_cross_entropy DOUBLE;
        ALTER TABLE evaluations ADD COLUMN zeros_cross_entropy DOUBLE;
        ALTER TABLE evaluations ADD COLUMN quick BOOLEAN DEFAULT false""",
    10: f"""{OF_STRONG_USES}
        ALTER TABLE evaluations ADD COLUMN median_unexplained DOUBLE;
        UPDATE evaluations SET created = ''""",
    11: NONE_STRONG,
}
"""What makes a file of a version one of the next, where that is sure: before there were sites, all
runs were of one; no dictionary was moved, and there were no comparisons of latents; labels are
taken in anew from their file; what `closes` is of a text's last token was not open, and
comparisons did not keep chance; latents had no scores; strong uses had no table; evaluations
kept no cross-entropies, and none was quick; comparisons of latents counted all uses alone, and
evaluations knew no median token, so that all are read again; of latents none of whose uses is
strong all counted"""

_SCHEMA = f"""
CREATE TABLE meta (version INTEGER);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, run_id VARCHAR UNIQUE, training_id VARCHAR, model VARCHAR,
    layer INTEGER, d_model INTEGER, n_layers INTEGER, atoms INTEGER, max_atoms INTEGER, l0 INTEGER,
    tokens BIGINT, explored_tokens BIGINT, fvu DOUBLE, explored_fvu DOUBLE, kind VARCHAR,
    method VARCHAR, selection VARCHAR, threshold DOUBLE, "offset" VARCHAR, pursuit VARCHAR,
    budget VARCHAR, mean_l0 DOUBLE, seed BIGINT, corpus VARCHAR, dtype VARCHAR,
    created TIMESTAMPTZ, seconds DOUBLE, directory VARCHAR, activations VARCHAR,
    site VARCHAR DEFAULT 'resid_post', moved_from VARCHAR, root VARCHAR,
    root_digest VARCHAR);
CREATE TABLE prompts (prompt INTEGER PRIMARY KEY, prompt_id VARCHAR UNIQUE, text VARCHAR,
    title VARCHAR);
CREATE TABLE run_prompts (run INTEGER, prompt INTEGER, explored BOOLEAN, starts INTEGER[],
    ends INTEGER[]);
CREATE TABLE latents (run INTEGER, latent INTEGER, prompt INTEGER, position INTEGER,
    "start" INTEGER, "end" INTEGER, token VARCHAR, tokens INTEGER, strongest FLOAT,
    closes BOOLEAN, origin INTEGER);
CREATE TABLE codes (run INTEGER, latent INTEGER, prompt INTEGER, position INTEGER,
    step SMALLINT, coefficient FLOAT);
CREATE TABLE evaluations (run INTEGER, l0 INTEGER, mean_l0 DOUBLE, mean_latents DOUBLE, fvu DOUBLE,
    fvu_without_massive DOUBLE, explained_variance DOUBLE, cosine DOUBLE, norm_ratio DOUBLE,
    ce_loss_score DOUBLE, kl DOUBLE, unused_share DOUBLE, massive_tokens BIGINT, tokens BIGINT,
    prompts BIGINT, corpus VARCHAR, held_out BOOLEAN, created VARCHAR, cross_entropy DOUBLE,
    model_cross_entropy DOUBLE, zeros_cross_entropy DOUBLE, quick BOOLEAN DEFAULT false,
    median_unexplained DOUBLE);
CREATE TABLE comparisons (measure VARCHAR, a VARCHAR, b VARCHAR, value DOUBLE, reason VARCHAR,
    tokens BIGINT, unit VARCHAR, created VARCHAR);
CREATE TABLE labels (run_id VARCHAR, latent INTEGER, prompt_id VARCHAR, position INTEGER,
    label VARCHAR, note VARCHAR, bookmarked BOOLEAN, lists VARCHAR[], changed VARCHAR,
    label_changed VARCHAR, note_changed VARCHAR, alone BOOLEAN, "start" INTEGER, "end" INTEGER,
    of_source BOOLEAN, closes BOOLEAN, root VARCHAR, origin INTEGER, root_digest VARCHAR);
{_SHARED_LABELS}
{NAMESAKE_TABLES}
{SCORE_TABLES}
{STRONG_TABLES}"""


class Database:
    """An open database of the current version. Safe to use from several threads."""

    def __init__(self, path: Path | str = ":memory:"):
        """Open or make the database. Raises StoreError where it is locked, damaged or newer."""
        self.path = path
        self._gate = Gate()
        self._writing = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        """Answers by question, each with how often had been written when it was asked"""
        self._writes = 0
        self._open()

    def _open(self) -> None:
        self._connection = connect(self.path)
        try:
            self._prepare()
        except BaseException as error:
            self._connection.close()
            if isinstance(error, duckdb.Error):
                raise why_not_opened(self.path, str(error)) from error
            raise

    def close(self) -> None:
        self._connection.close()

    def anew(self, make: Callable[[], Any]) -> Any:
        """What `make` gives, which makes the file anew while nobody uses it: who asks meanwhile
        waits, and the new file answers. It is opened again whatever comes of that; where it can't
        be, every question raises StoreDamagedError until it is made anew."""
        with self._gate.alone():
            self._connection.close()
            try:
                return make()
            finally:
                self._writes += 1
                self._open()

    def query(self, sql: str, *values: Any, **named: Any) -> pd.DataFrame:
        """The rows of a query as a table. values: of its question marks; named: of $names."""
        with self._cursor() as cursor:
            return cursor.execute(sql, named or values).df()

    def query_table(self, sql: str, **named: Any) -> pa.Table:
        """`query` as Arrow has it, which is quicker for texts and lists."""
        with self._cursor() as cursor:
            return cursor.sql(sql, params=named).to_arrow_table()

    def query_beside(self, table: pa.Table, sql: str, **named: Any) -> pd.DataFrame:
        """`query` that may also read a table from memory, by the name `given`."""
        with self._cursor() as cursor:
            cursor.register("given", table)
            try:
                return cursor.execute(sql, named).df()
            finally:
                cursor.unregister("given")

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One call's own. Raises StoreError, with the remedy, where the file fails."""
        try:
            with self._gate.inside(), self._connection.cursor() as cursor:
                yield cursor
        except duckdb.Error as error:
            if failed := of_the_file(self.path, error):
                raise failed from error
            raise

    def known(self, ask: Callable[..., Any], *values: Hashable) -> Any:
        """`ask(*values)`, asked once and again only after something was written: most of what a
        page asks for is what it asked for a click ago. ask: a method or function of this database
        alone. Who gets a table, a dict or a list may change it, but nothing inside, such as the
        lists in a table's cells; an array can't be changed."""
        question, writes = (ask, values), self._writes
        asked, answer = self._known.get(question, (None, None))
        if asked != writes:
            answer = ask(*values)
            # What is written meanwhile may be missing in it, and makes it unknown.
            self._known[question] = writes, answer
            with suppress(KeyError):  # another thread was as quick
                while len(self._known) > _KNOWN_ANSWERS:
                    self._known.popitem(last=False)
        with suppress(KeyError):
            self._known.move_to_end(question)
        return _own(answer)

    def _prepare(self) -> None:
        tables = set(self.query("SELECT table_name FROM duckdb_tables()")["table_name"])
        if not tables:
            with self.transaction() as cursor:
                cursor.execute(_SCHEMA)
                cursor.execute("INSERT INTO meta VALUES (?)", [SCHEMA_VERSION])
            return
        version = self._version() if "meta" in tables else 0
        if version > SCHEMA_VERSION:
            raise why_newer(self.path, version, SCHEMA_VERSION)
        version = self._upgraded(version)
        if version < SCHEMA_VERSION:
            raise StoreOutdatedError(
                f"{self.path} is not in this version's format. Make it anew from the run "
                "directories: python -m itda_core rebuild"
            )

    def _version(self) -> int:
        """Raises StoreError where the file does not say it."""
        try:
            [version] = self.query("SELECT version FROM meta")["version"]
            return int(version)
        except (duckdb.Error, ValueError, KeyError, TypeError) as error:
            raise why_damaged(self.path, error) from error

    def _upgraded(self, version: int) -> int:
        """The version that a file of an earlier one now is; the same where it is not what it says
        it is."""
        with suppress(duckdb.Error), self.transaction() as cursor:
            newest = version
            while newest in _UPGRADES:
                cursor.execute(_UPGRADES[newest])
                newest += 1
            cursor.execute("UPDATE meta SET version = ?", [newest])
            return newest
        return version

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor whose changes are kept together or not at all; one writer at a time."""
        with self._gate.inside(), self._writing, self._connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
            except BaseException:
                with suppress(duckdb.Error):  # a file that fails rolls back no more
                    cursor.execute("ROLLBACK")
                raise
            try:
                cursor.execute("COMMIT")
            finally:
                self._writes += 1


def _own(answer: Any) -> Any:
    """What is known, for one who may change what they got."""
    if isinstance(answer, pd.DataFrame):
        return answer.copy(deep=False)
    if isinstance(answer, np.ndarray):
        answer = answer.view()
        answer.flags.writeable = False
    return answer.copy() if isinstance(answer, dict | list) else answer


def check_not_taken(path: Path) -> None:
    """Raises StoreNotOursError where another process has the database, or a newer program wrote
    it. What else may be wrong with it is left to whoever opens it."""
    if not path.exists():
        return
    try:
        connect(path).close()
    except StoreNotOursError:
        raise
    except StoreError:
        return


def connect(path: Path | str, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Raises StoreError where the file can't be opened, or has more in it than tables."""
    if path != ":memory:":
        check_name(path)
        folder = Path(path).parent
        with disk_errors_as_sentences(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _check_is_file(Path(path))
    try:
        connection = duckdb.connect(str(path), read_only, config=_SETTINGS)
    except duckdb.Error as error:
        raise why_not_opened(path, str(error)) from error
    try:
        _check_only_tables(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_only_tables(connection: duckdb.DuckDBPyConnection, path: Path | str) -> None:
    """Raises StoreDamagedError where a file that somebody else made has programs in it."""
    try:
        found = connection.execute(_PROGRAMS).fetchone()
    except duckdb.Error as error:
        raise why_not_opened(path, str(error)) from error
    if found:
        kind, name = found
        raise why_damaged(
            path, ValueError(f"it has a {kind} {name!r:.60}, and the explorer makes tables alone")
        )


def check_name(path: Path | str) -> None:
    """Raises StoreOutOfReachError where DuckDB can't open a file of this name, be it there or
    not."""
    has_sign = any(sign in str(path) for sign in _SIGNS_OF_DUCKDB)
    if has_sign or any("\ud800" <= one <= "\udfff" for one in str(path)):  # bytes that are no text
        raise why_no_name(path)


def _check_is_file(path: Path) -> None:
    """Raises StoreDamagedError where something else has the database's name, or that of its log:
    DuckDB would wait for a pipe."""
    try:
        for there in filter(Path.exists, (path, path.with_name(f"{path.name}.wal"))):
            check_foreign(there)
    except ValueError as error:
        raise why_damaged(path, error) from error
    except OSError as error:
        raise why_not_opened(path, error.strerror or str(error)) from error
