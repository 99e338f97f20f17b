"""No kind of file is kept that no test damages: a new one fails here until one does.

The kinds are the names that stand in the code as text, with `*` where a number or name goes.
"""

import ast
import functools
import re

import pytest

from tests.support.app import REPOSITORY

RUN = "faults/test_inputs.py::test_a_damaged_file_of_a_run"
JOBS = "faults/test_inputs.py::test_jobs"
FOLDER = "activations/test_folder.py::test_an_index_that_can_not_be_is_told_with_its_field"
TABLES = "activations/test_folder.py::test_damaged_tables_are_told_with_file_and_row"
PARTS = "activations/test_folder.py::test_parts_that_end_too_soon_are_told"
SAELENS = "exchange/test_saelens.py::test_a_damaged_folder_is_a_sentence"
PUBLISHED = "exchange/test_published.py::test_a_file_that_lacks_or_is_cut_short_is_a_sentence"
ALONE = "faults/test_many_inputs.py::test_inputs_are_read_or_refused_in_a_sentence"
CHECKPOINT = (
    "training/test_damaged_checkpoints.py::"
    "test_a_damaged_checkpoint_is_dropped_and_the_one_before_is_used"
)
DIGESTS = (
    "runs/test_digests_of_runs.py::"
    "test_damaged_digests_are_named_and_cost_neither_the_run_nor_what_was_added"
)
DATABASE = "store/test_kept_labels.py::test_a_damaged_database_names_the_remedy_and_is_kept_aside"
PASS = "model/test_hidden_states.py::test_what_can_not_be_gone_on_from_is_passed_over"
DAMAGED_BY = {
    "*.f32": CHECKPOINT,
    "*.parquet": ALONE,
    "*.safetensors": CHECKPOINT,
    "*.txt": "runs/test_texts.py::test_a_file_that_was_changed_is_not_taken_for_the_text",
    "*.json": "model/test_proof.py::test_what_was_remembered_and_is_damaged_is_proved_anew",
    ".*/config.json": "store/test_damaged.py::test_any_value_in_any_field_is_read_or_named",
    "activation_scaler.json": SAELENS,
    "activations.json": FOLDER,
    "atom_indices.pt": PUBLISHED,
    "atoms.pt": PUBLISHED,
    "cfg.json": SAELENS,
    "claim.json": JOBS,
    "codes.parquet": RUN,
    "config.json": RUN,
    "dictionary.safetensors": RUN,
    "digests.json": DIGESTS,
    "evaluation.json": RUN,
    "explorer.duckdb": DATABASE,
    "hidden-*.json": PASS,
    "job.json": JOBS,
    "labels.jsonl": ALONE,
    "list.toml": ALONE,
    "log.txt": JOBS,
    "map.parquet": RUN,
    "metrics.json": RUN,
    "names.json": ALONE,
    "nearly.parquet": RUN,
    "offset.pt": PUBLISHED,
    "part-*.*.safetensors": PARTS,
    "part-*.tokens.parquet": TABLES,
    "probing.json": RUN,
    "progress.jsonl": RUN,
    "prompts.jsonl": PUBLISHED,
    "prompts.parquet": RUN,
    "sae_weights.safetensors": SAELENS,
    "scores.parquet": "runs/test_latent_scores.py::test_a_damaged_file_says_how_to_make_it_anew",
    "seconds.json": "cluster/test_worker.py::test_seconds_of_any_content_are_a_number",
    "sources.parquet": RUN,
    "state.json": CHECKPOINT,
    "taking-in.json": "faults/test_taking_in.py::"
    "test_a_damaged_note_keeps_nothing_out_and_is_gone_in_the_end",
    "tokens.parquet": TABLES,
}
"""By the test that damages it"""
NOT_KEPT = {
    "*-*.npy": "lies in a folder of its own while layers are compared",
    "*.model": "of a model, which others wrote: tests/model",
    "*.settings.json": "a download",
    "atom-*-*.safetensors": "a download",
    "autoencoders.json": "ships with the code",
    "checkpoint.tmp": "is dropped when it is found",
    "evaluations.json": "a download",
    "model.model": "a name in the package",
    "types.json": "ships with the code",
}
NAME = re.compile(
    r"(\.\*/)?[\w*][\w.*-]*\.(json|jsonl|parquet|safetensors|f32|txt|duckdb|toml|npy|pt|tmp|model)"
)


@functools.cache
def kinds():
    """The names of files that stand in the code."""
    files = [*(REPOSITORY / "itda_core").rglob("*.py"), *(REPOSITORY / "pages").rglob("*.py")]
    texts = {text for file in files for text in _texts(ast.parse(file.read_text("utf-8")))}
    return {text for text in texts if NAME.fullmatch(text)}


def _texts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "*" for part in node.values]
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_kind_of_file_is_damaged_by_a_test():
    unknown = kinds() - set(DAMAGED_BY) - set(NOT_KEPT)
    assert not unknown, f"have tests damage {sorted(unknown)}, and name them in DAMAGED_BY"
    gone = {*DAMAGED_BY, *NOT_KEPT} - kinds()
    assert not gone, f"{sorted(gone)} are kept no more"


@pytest.mark.parametrize("place", sorted(set(DAMAGED_BY.values())))
def test_the_tests_that_damage_them_are_there(place):
    file, _, name = place.partition("::")
    assert f"def {name}(" in (REPOSITORY / "tests" / file).read_text("utf-8")
