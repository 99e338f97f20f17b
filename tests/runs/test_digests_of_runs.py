"""A bit that flips anywhere in a run, or beside it, is noticed by all that reads it."""

import json
import os
import random
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest

from itda_core import sealed
from itda_core.analysis.latent_map import MAP_FILE, map_latents, read_map, save_map
from itda_core.checkup import check_data, seal_all
from itda_core.errors import ExchangeError, RunError
from itda_core.exchange.export import export_files
from itda_core.runs.checks import by_content, by_digests, check_run, foreign_files, seal_run
from itda_core.runs.comparisons import comparisons_folder, read_comparisons, save_comparisons
from itda_core.runs.results import EVALUATION_FILE, read_evaluation, save_evaluation
from itda_core.runs.run import ALL_FILES, RUN_FILES, delete_run, list_runs, read_run, survey
from itda_core.runs.watching import DigestWatch
from itda_core.sealed import DIGESTS_FILE, faults, seal
from itda_core.store.database import Database
from itda_core.store.index import Index
from tests.support.edited_runs import edit_about
from tests.support.trained_runs import tiny_config, trained

RESULT = {
    "seconds": 1, "measured_on": {}, "tokens": 5, "massive_tokens": 0, "unused_share": 0.5,
    "by_l0": [{"l0": 1, "fvu": 0.5}], "density": {}, "errors": {},
}  # fmt: skip
FLIPS_A_FILE = int(os.environ.get("ITDA_FAULT_FLIPS", 6))


@pytest.fixture
def folder(runs_folder, tmp_path):
    """Runs, of which the first has an evaluation and a map."""
    folder = shutil.copytree(runs_folder, tmp_path / "data" / "runs")
    run = list_runs(folder)[0]
    save_evaluation(run, RESULT)
    save_map(run, map_latents(run.dictionary(), "svd"), "svd")
    return folder


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def flips(content, draw):
    """The first and the last byte, and some between."""
    places = [0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(FLIPS_A_FILE - 2))]
    return [(place, draw.randrange(8)) for place in places]


def test_a_run_has_digests_and_what_is_added_has_one_as_well(folder):
    run = list_runs(folder)[0]
    told = json.loads((run.directory / DIGESTS_FILE).read_text())
    expected = {*ALL_FILES, EVALUATION_FILE, MAP_FILE} - {DIGESTS_FILE}
    assert set(told["files"]) == expected
    assert check_run(run, deep=True) == []


def test_a_flipped_bit_in_any_file_of_a_run_is_noticed(folder):
    run, draw, count = list_runs(folder)[0], random.Random(22), 0
    for name in (*ALL_FILES, EVALUATION_FILE, MAP_FILE):
        path = run.directory / name
        content = path.read_bytes()
        for place, bit in flips(content, draw):
            flip(path, place, bit)
            found = by_digests(run.directory)
            assert [error.path.name for error in found] == [name], (name, place, bit)
            assert str(path) in str(found[0])
            path.write_bytes(content)
            count += 1
    assert count >= 40
    assert by_digests(run.directory) == []


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_run_with_a_flipped_bit_is_not_taken_in_and_is_named(folder, name):
    spoiled, *whole = list_runs(folder)
    flip(spoiled.directory / name, (spoiled.directory / name).stat().st_size // 2, 3)
    database = Database()
    with pytest.raises(RunError, match="is damaged") as raised:
        Index(database).import_new(folder)
    assert str(spoiled.directory) in str(raised.value)
    assert set(database.query("SELECT run_id FROM runs")["run_id"]) == {run.run_id for run in whole}
    database.close()


@pytest.mark.parametrize("name", ["nearly.parquet", "progress.jsonl", MAP_FILE, EVALUATION_FILE])
def test_a_run_is_whole_without_what_was_added_and_that_is_named(folder, name):
    run = list_runs(folder)[0]
    flip(run.directory / name, (run.directory / name).stat().st_size // 2, 0)
    database = Database()
    with pytest.raises(RunError, match=name):
        Index(database).import_new(folder)
    assert len(database.query("SELECT run_id FROM runs")) == len(list_runs(folder))
    database.close()


@pytest.mark.parametrize("spoil", [b"", b"{", b'{"version": 2}', b'{"version": 1}'])
def test_damaged_digests_are_named_and_cost_neither_the_run_nor_what_was_added(folder, spoil):
    run, *_ = list_runs(folder)
    before = read_evaluation(run)
    (run.directory / DIGESTS_FILE).write_bytes(spoil)
    listed, damaged = survey(folder)
    assert run.run_id in [one.run_id for one in listed]
    assert damaged == []
    assert read_evaluation(run) == before
    assert read_map(run) is not None
    [error] = by_digests(run.directory)
    assert "Move it away" in str(error)
    assert "delete" not in str(error)


def test_a_file_that_is_replaced_while_it_is_looked_at_is_not_damaged(folder, monkeypatch):
    run, *_ = list_runs(folder)
    read, is_replaced = sealed._read, []

    def replace_after(directory):
        kept = read(directory)
        if not is_replaced:
            is_replaced.append(True)
            save_evaluation(run, {**RESULT, "tokens": 1_234})
        return kept

    monkeypatch.setattr(sealed, "_read", replace_after)
    assert by_digests(run.directory) == []
    assert is_replaced


def test_a_folder_that_somebody_put_into_a_run_keeps_no_run_from_being_sealed(folder):
    run, *_ = list_runs(folder)
    (run.directory / "notes").mkdir()
    (run.directory / DIGESTS_FILE).unlink()
    assert seal_run(run.directory)
    assert not seal_run(run.directory)
    assert by_digests(run.directory) == []


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_file_that_somebody_put_into_a_run_is_no_damage_and_is_left(folder, is_sealed):
    run, *_ = list_runs(folder)
    if not is_sealed:
        (run.directory / DIGESTS_FILE).unlink()
    pd.DataFrame({"latent": [10**6]}).to_parquet(run.directory / "mine.parquet")
    (run.directory / "mine.json").write_text("{")
    for _ in range(2):
        assert check_run(run, deep=True) == []
        found = list(check_data(folder.parent, folder, deep=True))
        [told] = [one.found for one in found if one.check == "foreign"]
        assert all(one.ok for one in found if one.check in ("run", "foreign"))
        assert "mine.json, mine.parquet" in told
        assert str(run.directory) in told
        assert seal_run(run.directory) == (not is_sealed)
        is_sealed = True
        (run.directory / "mine.json").write_text("{}")  # and may change
    database = Database()
    assert run.run_id in Index(database).import_new(folder)
    database.close()


def test_a_file_of_a_newer_version_has_its_digest_and_can_be_damaged(folder):
    run, *_ = list_runs(folder)
    (run.directory / "newer.parquet").write_bytes(b"what a newer version keeps")
    seal(run.directory)
    assert foreign_files(run.directory) == []
    flip(run.directory / "newer.parquet", 5, 1)
    assert [error.path.name for error in by_digests(run.directory)] == ["newer.parquet"]


def test_a_changed_number_that_is_still_one_is_not_shown(folder):
    run = list_runs(folder)[0]
    path = run.directory / EVALUATION_FILE
    path.write_text(path.read_text().replace('"fvu": 0.5', '"fvu": 0.4'))
    with pytest.raises(RunError, match=r"is not what was written.*Evaluate it again"):
        read_evaluation(run)
    table = pd.read_parquet(run.directory / MAP_FILE)
    table.assign(x=-table["x"]).to_parquet(run.directory / MAP_FILE)
    with pytest.raises(RunError, match=r"Map it again"):
        read_map(run)
    path = run.directory / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({**metrics, "fvu": metrics["fvu"] / 2}))
    assert run.run_id not in [one.run_id for one in survey(folder)[0]]


def test_a_file_that_is_gone_is_noticed_where_the_run_is_whole_without_it(folder):
    run = list_runs(folder)[0]
    (run.directory / "nearly.parquet").unlink()
    [error] = by_digests(run.directory)
    assert "nearly.parquet is damaged (it is gone)" in str(error)
    assert "doctor --seal" in str(error)
    assert seal_run(run.directory)
    assert by_digests(run.directory) == []


def test_what_is_measured_anew_has_its_new_digest(folder):
    run = list_runs(folder)[0]
    for tokens in (6, 7):
        save_evaluation(run, {**RESULT, "tokens": tokens})
        assert read_evaluation(run)["tokens"] == tokens
        assert by_digests(run.directory) == []


def test_a_process_that_dies_between_a_digest_and_its_file_leaves_both_good(folder, monkeypatch):
    from itda_core import sealed

    run, write = list_runs(folder)[0], sealed.write_atomically
    for calls in range(3):  # before the digest, before the file, before it is settled
        left = [calls]

        def dies(path, content, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(path, content)

        monkeypatch.setattr(sealed, "write_atomically", dies)
        with pytest.raises(KeyboardInterrupt):
            save_evaluation(run, {**RESULT, "tokens": 10 + calls})
        monkeypatch.setattr(sealed, "write_atomically", write)
        assert by_digests(run.directory) == []
        assert read_evaluation(run)["tokens"] == (12 if calls == 2 else 5)
    save_evaluation(run, {**RESULT, "tokens": 20})
    assert by_digests(run.directory) == []


def test_a_run_of_before_is_read_and_gets_digests_when_it_is_sealed(folder):
    run = list_runs(folder)[0]
    (run.directory / DIGESTS_FILE).unlink()
    database = Database()
    assert run.run_id in Index(database).import_new(folder)
    database.close()
    save_evaluation(run, RESULT)  # begins no digests of one file alone
    assert not (run.directory / DIGESTS_FILE).exists()
    assert seal_run(run.directory)
    assert not seal_run(run.directory)
    flip(run.directory / "codes.parquet", 2_000, 1)
    assert "codes.parquet" in faults(run.directory)
    with pytest.raises(RunError, match=r"codes\.parquet is damaged"):
        seal_run(run.directory)
    assert "codes.parquet" in faults(run.directory)


def _scale_an_atom(directory):
    import safetensors.torch
    from safetensors import safe_open

    path = directory / "dictionary.safetensors"
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tensors["atoms"][7] *= 1.5
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def _other_source(directory):
    table = pd.read_parquet(directory / "sources.parquet")
    table.loc[3, "position"] += 1
    table.to_parquet(directory / "sources.parquet")


def _other_text(directory):
    table = pd.read_parquet(directory / "prompts.parquet")
    table.loc[2, "text"] = table.loc[2, "text"].replace("a", "e")
    table.to_parquet(directory / "prompts.parquet")


def _fewer_codes(directory):
    table = pd.read_parquet(directory / "codes.parquet")
    table[table["latent"] != table["latent"].max()].to_parquet(directory / "codes.parquet")


def _no_number(directory):
    table = pd.read_parquet(directory / "codes.parquet")
    table.loc[5, "coefficient"] = float("nan")
    table.to_parquet(directory / "codes.parquet")


def _changed(name, change):
    def spoil(directory):
        change(pd.read_parquet(directory / name)).to_parquet(directory / name)

    return spoil


def _codes_in_two_parts(directory):
    whole = pq.read_table(directory / "codes.parquet")
    with pq.ParquetWriter(directory / "codes.parquet", whole.schema) as writer:
        for _ in range(2):
            writer.write_table(whole)


def _later_half_of_codes_with_scores(directory):
    """All first steps are there, and every latent is still used."""
    table = pd.read_parquet(directory / "codes.parquet")
    uses = table.groupby("latent").size()
    metrics = json.loads((directory / "metrics.json").read_text())
    numbers = uses.reindex(range(metrics["atoms"]), fill_value=0)
    pd.DataFrame({"latent": numbers.index, "uses": numbers.to_numpy()}).to_parquet(
        directory / "scores.parquet"
    )
    is_kept = (table["step"] == 0) | ~table["latent"].duplicated()
    table[is_kept].to_parquet(directory / "codes.parquet")


def _no_spans(table):
    nothing = table["starts"].map(lambda starts: 0 * starts)
    return table.assign(starts=nothing, ends=nothing)


def _moved_spans(table):
    return table.assign(starts=table["starts"].map(lambda starts: (starts - 1).clip(0)))


def _other_count(directory):
    metrics = json.loads((directory / "metrics.json").read_text())
    (directory / "metrics.json").write_text(json.dumps({**metrics, "atoms": metrics["atoms"] - 1}))


def _says(**entries):
    """config.json with other entries, those of `config` among them under their own names."""

    def spoil(directory):
        path = directory / "config.json"
        about = json.loads(path.read_text())
        for name, value in entries.items():
            (about if name in about else about["config"])[name] = value
        path.write_text(json.dumps(about))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_says(model={"name": "smollm2-135m", "revision": None, "dtype": "float32"}), "its model"),
        (_says(site="mlp_out"), "its site"),
        (_says(l0=60), "where its config.json makes it 60"),
        (_says(pursuit="refit"), "its pursuit"),
        (_says(training_id="of-another"), "its run_id"),
        (_says(model_digest="of another"), "its model_digest"),
        (_says(n_layers=0), "none of the model's 0"),
        (_says(layers=[9]), "none of those that its settings name"),
        (_scale_an_atom, "the atom of latent 7 is not of length 1"),
        (_other_source, "its column position is not the one in dictionary.safetensors"),
        (_other_text, "is another one"),
        (_fewer_codes, "of the latents unused"),
        (_no_number, "coefficients that are no numbers"),
        (_changed("codes.parquet", lambda t: pd.concat([t, t[9:10]])), "a token's pursuit twice"),
        (_codes_in_two_parts, "is what so many tokens can have"),
        (
            _changed("codes.parquet", lambda t: t.assign(position=t["position"] + 99)),
            "not explored",
        ),
        (_changed("codes.parquet", lambda t: t.assign(position=t["position"] + 0.5)), "no whole"),
        (_changed("codes.parquet", lambda t: t.assign(coefficient="1")), "that are no numbers"),
        (_changed("codes.parquet", lambda t: t.assign(coefficient=4e38)), "that are no numbers"),
        (_changed("prompts.parquet", lambda t: pd.concat([t, t[:1]])), "it has a prompt twice"),
        (_changed("prompts.parquet", lambda t: t.assign(explored=None)), "whether it was explored"),
        (_changed("prompts.parquet", lambda t: t.assign(explored=False)), "not explored"),
        (_other_count, "atoms, and metrics.json says"),
        (_changed("codes.parquet", lambda t: t.sample(frac=0.5, random_state=0)), "were explored"),
        (_later_half_of_codes_with_scores, "scores.parquet tells of"),
        (_changed("prompts.parquet", _no_spans), "no token of its prompts has a character"),
        (_changed("prompts.parquet", _moved_spans), "stands elsewhere than its token"),
    ],
)
def test_without_digests_a_run_is_checked_by_what_it_says(folder, spoil, said):
    run = list_runs(folder)[0]
    (run.directory / DIGESTS_FILE).unlink()
    spoil(run.directory)
    run = read_run(run.directory)
    assert said in " ".join(map(str, by_content(run)))
    database = Database()
    with pytest.raises(RunError, match="is damaged"):
        Index(database).import_new(folder)
    assert run.run_id not in set(database.query("SELECT run_id FROM runs")["run_id"])
    database.close()
    with pytest.raises(RunError):
        seal_run(run.directory)


@pytest.mark.parametrize(
    "files",
    [[], None, "abc", {"config.json": 5}, {"config.json": {}}, {"../a": "ENTRY"},
     {"/dev/zero": "ENTRY"}, {"a" * 300: "ENTRY"}, {"a\0b": "ENTRY"}],
)  # fmt: skip
def test_digests_that_are_none_are_told_and_cost_no_other_run(folder, files):
    """Their own digest is right: somebody wrote them so."""
    first, second = list_runs(folder)[:2]
    entry = {"bytes": 5, "blake2b": "x"}
    if isinstance(files, dict):
        files = {name: entry if value == "ENTRY" else value for name, value in files.items()}
    (first.directory / DIGESTS_FILE).write_bytes(sealed._content({"files": files, "next": {}}))
    flip(second.directory / "codes.parquet", 500, 1)
    watch = DigestWatch(folder)
    assert [watch.step() for _ in range(2)] == [True, True]
    assert "digests.json" in " ".join(watch.found)
    assert "codes.parquet" in " ".join(watch.found)
    assert all(finding.ok is False for finding in seal_all(folder))


def test_pages_of_tables_have_checksums_that_are_read(folder):
    """Half of a table is numbers of the codes; without digests a flip there is found as well."""
    run, draw = list_runs(folder)[0], random.Random(1)
    (run.directory / DIGESTS_FILE).unlink()
    path = run.directory / "codes.parquet"
    content = path.read_bytes()
    for _ in range(20):
        flip(path, draw.randrange(len(content) // 10, len(content) // 2), draw.randrange(8))
        assert "codes.parquet" in [error.path.name for error in by_content(run)]
        path.write_bytes(content)


def test_an_export_holds_digests_of_its_files_alone_and_nothing_damaged(folder, tmp_path):
    run = list_runs(folder)[0]
    for name, content in export_files(run, "run").items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    copy = read_run(tmp_path / "out" / run.run_id)
    assert check_run(copy, deep=True) == []
    assert {path.name for path in copy.directory.iterdir()} == set(ALL_FILES)
    flip(run.directory / "prompts.parquet", 500, 2)
    with pytest.raises(RunError, match=r"prompts\.parquet is damaged"):
        export_files(run, "run")


def test_a_comparison_with_a_flipped_bit_is_named_and_left_out(tmp_path):
    rows = [
        {"measure": "m", "a": "x", "b": "y", "value": 0.25, "reason": "", "tokens": 9, "unit": "u"}
    ]
    path = save_comparisons(tmp_path, rows)
    assert read_comparisons(tmp_path)[0]["value"].tolist() == [0.25]
    content, draw = path.read_bytes(), random.Random(3)
    for place, bit in flips(content, draw):
        flip(path, place, bit)
        table, failed = read_comparisons(tmp_path)
        assert table.empty
        assert path.name in str(failed)
        path.write_bytes(content)


def test_damaged_digests_of_comparisons_cost_none_of_them(tmp_path):
    folder = comparisons_folder(tmp_path / "runs")
    rows = [
        {"measure": "m", "a": "x", "b": "y", "value": 0.25, "reason": "", "tokens": 9, "unit": "u"}
    ]
    save_comparisons(folder, rows)
    (folder / DIGESTS_FILE).write_bytes(b"{")
    assert read_comparisons(folder)[0]["value"].tolist() == [0.25]
    [told] = [one.found for one in check_data(tmp_path, tmp_path / "runs") if not one.ok]
    assert DIGESTS_FILE in told


def test_sealing_again_what_was_changed_on_purpose_is_possible(folder):
    run = list_runs(folder)[0]
    (run.directory / "progress.jsonl").write_text('{"stage": "done"}\n')
    assert by_digests(run.directory)
    seal(run.directory)
    assert by_digests(run.directory) == []


@pytest.mark.parametrize("kept", ["evaluation", "map"])
def test_what_is_measured_of_a_run_that_is_deleted_meanwhile_does_not_bring_its_folder_back(
    folder, kept
):
    run = list_runs(folder)[0]
    points = map_latents(run.dictionary(), "svd")
    delete_run(run.directory)
    with pytest.raises(RunError, match=f"{run.run_id} is gone: {kept}"):
        save_evaluation(run, RESULT) if kept == "evaluation" else save_map(run, points, "svd")
    assert run.directory.name not in {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kept", ["evaluation", "map"])
def test_what_is_measured_of_a_run_is_not_kept_with_another_that_took_its_place(folder, kept):
    run = list_runs(folder)[0]
    points = map_latents(run.dictionary(), "svd")
    edit_about(run.directory, created="2031-01-01T00:00:00+00:00")  # trained anew under its id
    before = {path.name for path in run.directory.iterdir()}
    with pytest.raises(RunError, match=f"{run.run_id} is another run by now"):
        save_evaluation(run, RESULT) if kept == "evaluation" else save_map(run, points, "svd")
    assert {path.name for path in run.directory.iterdir()} == before
    again = read_run(run.directory)
    save_evaluation(again, RESULT) if kept == "evaluation" else save_map(again, points, "svd")


def test_a_run_whose_l0_holds_on_average_is_whole(tiny_model_folder, tiny_corpus_file, tmp_path):
    changes = {"selection": "coverage", "budget": "mean", "layers": (1,), "max_atoms": 60}
    trained(tiny_config(tiny_model_folder, tiny_corpus_file, **changes), tmp_path)
    [run] = list_runs(tmp_path)
    assert pd.read_parquet(run.directory / "codes.parquet")["step"].max() >= run.config.l0
    assert check_run(run, deep=True) == []


@pytest.mark.parametrize("name", ["scores.parquet", "nearly.parquet", "progress.jsonl", MAP_FILE])
def test_a_pipe_in_the_place_of_what_a_run_is_whole_without_is_not_waited_for(folder, name):
    run = list_runs(folder)[0]
    (run.directory / DIGESTS_FILE).unlink()
    (run.directory / name).unlink(missing_ok=True)
    os.mkfifo(run.directory / name)
    assert f"{name} is a pipe and not a file" in " ".join(map(str, check_run(run)))
    database = Database()
    with pytest.raises(RunError, match=f"{name} is a pipe and not a file"):
        Index(database).import_new(folder)
    assert run.run_id in set(database.query("SELECT run_id FROM runs")["run_id"])
    database.close()
    if name in ALL_FILES:
        with pytest.raises(ExchangeError, match=f"{name} is a pipe and not a file"):
            export_files(run, "run")
