"""The database of somebody else's data folder is tables alone: nothing in it works when it is
asked."""

from contextlib import closing

import duckdb
import pytest

from itda_core.errors import StoreDamagedError
from itda_core.store.database import connect
from itda_core.store.look import look
from itda_core.store.store import Store, rebuild_all

PROGRAMS = {
    "view": """ALTER TABLE prompts RENAME TO others; CREATE VIEW prompts AS
        SELECT 1 AS prompt, 'id' AS prompt_id, content AS text, '' AS title FROM read_text('{}')""",
    "function": "CREATE MACRO unicode(sign) AS 5",
    "table function": "CREATE MACRO duckdb_views() AS TABLE SELECT true AS internal",
    "trigger": """CREATE TRIGGER told AFTER INSERT ON runs FOR EACH STATEMENT
        INSERT INTO prompts SELECT 1, 'id', content, '' FROM read_text('{}')""",
    "type": "CREATE TYPE kinds AS ENUM ('itda')",
}


@pytest.mark.parametrize("made", PROGRAMS.values(), ids=PROGRAMS)
def test_one_with_programs_in_it_is_refused_and_made_anew(tmp_path, runs_folder, made):
    """Else questions would read files of this machine, or be answered by functions that are not
    DuckDB's."""
    path, secret = tmp_path / "explorer.duckdb", tmp_path / "secret.txt"
    secret.write_text("secret")
    Store(path).close()
    with duckdb.connect(str(path)) as database:
        database.execute(made.format(secret))
    for opened in (Store, look, connect):
        with pytest.raises(StoreDamagedError, match=r"makes tables alone.*rebuild"):
            opened(path)
    assert rebuild_all(path, runs_folder).kept_aside.exists()
    with closing(Store(path)) as store:
        assert "secret" not in set(store.database.query("SELECT text FROM prompts")["text"])


def test_no_question_fetches_an_extension(tmp_path):
    with closing(Store(tmp_path / "explorer.duckdb")) as store:
        asked = "SELECT value FROM duckdb_settings() WHERE name IN (?, ?)"
        names = "autoinstall_known_extensions", "autoload_known_extensions"
        assert list(store.database.query(asked, *names)["value"]) == ["false", "false"]
