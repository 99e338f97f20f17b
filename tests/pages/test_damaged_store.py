"""Overview names what can't be used, and mends a damaged database itself."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from itda_core.errors import ItdaError, StoreDamagedError
from itda_core.runs.labels import labels_file
from itda_core.runs.run import list_runs
from itda_core.runs.watching import DigestWatch
from pages.components import explorer as explorers
from pages.components.explorer import explorer
from tests.support.app import REPOSITORY, AppTest, close_explorer, open_page


@pytest.fixture
def folder(own_data):
    """A copy of the data folder, with its database."""
    explorer()
    close_explorer()
    return own_data


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 2
    path.write_bytes(content)


def test_a_damaged_database_is_made_anew_by_a_button(folder):
    path = folder / "explorer.duckdb"
    path.write_bytes(b"no database at all" * 1_000)
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    app.switch_page("pages/overview.py")
    app.run()
    [error] = app.error
    assert "can't be opened as a database" in error.value
    app.button(key="rebuild").click().run()
    assert not app.error
    told = " ".join(info.value for info in app.info)
    assert "made anew, with 2 runs" in told
    assert "damaged" in told
    aside = path.with_name("explorer.duckdb.damaged-1")
    assert aside.read_bytes() == b"no database at all" * 1_000
    assert len(explorer().store.runs.table()) == 2


@pytest.mark.parametrize("name", ["why?", "\udcff\udcfe"])
def test_a_folder_in_which_no_database_can_lie_is_named(monkeypatch, tmp_path, name):
    monkeypatch.setenv("ITDA_DATA", str(tmp_path / name))
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    app.switch_page("pages/latents.py")
    app.run()
    [error] = app.error
    assert "Rename that folder, or set ITDA_DATA" in error.value


def test_a_database_that_fails_while_the_explorer_is_open_is_made_anew(folder, monkeypatch):
    here = explorer()

    index = here.store.index
    table = here.store.runs.table

    def fails():
        if here.store.index is index:  # until it is made anew
            raise StoreDamagedError("explorer.duckdb is damaged. Make it anew.")
        return table()

    monkeypatch.setattr(here.store.runs, "table", fails)
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    app.switch_page("pages/overview.py")
    app.run()
    app.button(key="rebuild").click().run()
    assert not app.error
    assert explorer() is here
    assert len(here.store.runs.table()) == 2


def test_two_sessions_make_it_anew_one_after_another(folder, monkeypatch):
    (folder / "explorer.duckdb").write_bytes(b"no database at all" * 1_000)
    both, met = threading.Barrier(2), []
    rebuild_all = explorers.rebuild_all

    def counted(*where):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
            met.append(True)
        return rebuild_all(*where)

    monkeypatch.setattr(explorers, "rebuild_all", counted)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(explorers.rebuild_database) for _ in range(2)]
        assert [one.result().runs for one in done] == [2, 2]
    assert met == []
    assert [path.name for path in folder.glob("*.damaged-*")] == ["explorer.duckdb.damaged-1"]
    assert len(explorer().store.runs.table()) == 2


def test_a_rebuild_that_fails_can_be_tried_again(folder, monkeypatch):
    here = explorer()

    def full(*_where):
        raise ItdaError("There is no space left on the disk.")

    def damaged():
        raise StoreDamagedError("explorer.duckdb is damaged.")

    with monkeypatch.context() as patch:
        patch.setattr(explorers, "rebuild_all", full)
        patch.setattr(here.store.database, "_open", damaged)
        with pytest.raises(StoreDamagedError):
            explorers.rebuild_database()
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    app.switch_page("pages/overview.py")
    app.run()
    assert "is closed" in app.error[0].value
    app.button(key="rebuild").click().run()
    assert not app.error
    assert len(here.store.runs.table()) == 2


def test_other_pages_name_the_remedy(folder):
    (folder / "explorer.duckdb").write_bytes(b"no database at all" * 1_000)
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
    app.switch_page("pages/latents.py")
    app.run()
    assert "Rebuild on the Overview page" in app.error[0].value
    app.switch_page("pages/overview.py").run()
    app.button(key="rebuild").click().run()  # so that the explorer can be closed


def test_what_the_background_finds_is_on_overview(folder):
    here = explorer()
    spoiled = list_runs(folder / "runs")[0].directory
    flip(spoiled / "codes.parquet")
    while here._watch.step():
        pass
    app = open_page("overview")
    assert any("codes.parquet is damaged" in one.value.replace("\\", "") for one in app.warning)


def test_a_run_is_read_again_only_when_its_files_have_changed(folder):
    watch = DigestWatch(folder / "runs")
    assert [watch.step(), watch.step(), watch.step()] == [True, True, False]
    assert watch.found == []
    path = list_runs(folder / "runs")[0].directory / "prompts.parquet"
    content = path.read_bytes()
    flip(path)
    assert [watch.step(), watch.step()] == [True, False]
    assert "prompts.parquet is damaged" in watch.found[0]
    path.write_bytes(content)
    assert watch.step()
    assert watch.found == []


def test_labels_that_were_written_back_are_told(folder):
    run = list_runs(folder / "runs")[0]
    row = run.dictionary().sources.iloc[0]
    line = {"run_id": run.run_id, "latent": 0, "prompt_id": row["prompt_id"]}
    line |= {"position": int(row["position"]), "label": "war", "changed": "2026-01-01"}
    file = labels_file(folder / "runs")
    file.write_text(json.dumps(line) + "\n")
    explorer()
    close_explorer()
    file.unlink()
    app = open_page("overview")
    told = " ".join(info.value.replace("\\", "") for info in app.info)
    assert "had lost 1 label that the database still had: written back" in told
    assert "war" in file.read_text()


def test_a_damaged_job_is_named(folder):
    job = folder / "jobs" / "00007"
    job.mkdir(parents=True)
    (job / "job.json").write_text("[" * 50_000)
    app = open_page("overview")
    assert any("00007/job.json is damaged" in one.value.replace("\\", "") for one in app.warning)
