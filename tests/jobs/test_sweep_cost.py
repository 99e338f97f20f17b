"""What a sweep costs: the figures of published models, worked by hand."""

from pathlib import Path

import pytest

from itda_core.jobs.sweep_cost import DISK_SPEED, reading_speed, sweep_cost
from itda_core.model.sizes import ModelParts
from tools.scale_table import CARDS, DOCUMENT, MODELS, cost, is_swept, many_machines, with_tables

LARGEST = MODELS[-1]


def test_the_shapes_are_those_of_the_published_models():
    """Numbers as the models' cards on the hub say."""
    assert [model.parts.total for model in MODELS] == [
        134_515_008, 1_235_814_400, 8_030_261_248, 70_553_706_496, 405_853_388_800
    ]  # fmt: skip


def test_the_largest_model_on_a_card_of_24_gb():
    """65,536 tokens of 16,384 numbers of two bytes are 2.1 GB; 126 blocks of 3.19 billion numbers,
    two operations each, are 53 PFLOP, 7.3 minutes at 120 TFLOP/s; 803 GB of blocks and 4.2 of the
    embedding are 4.5 minutes at 3 GB/s."""
    [card] = [card for card in CARDS if card.name == "24 GB"]
    found = cost(LARGEST, card)
    assert found.hidden == 65_536 * 16_384 * 2
    assert found.read == 2 * (126 * 3_187_703_808 + 2_101_346_304)
    assert found.computing == pytest.approx(52.6e15 / 120e12, rel=0.01)
    assert found.reading == pytest.approx(4.5 * 60, rel=0.01)
    assert found.seconds == found.computing > found.reading
    assert found.held == 2 * (2 * 3_187_703_808 + 2_101_346_304)
    assert is_swept(LARGEST, card)


def test_only_blocks_up_to_the_last_layer_are_read():
    parts = ModelParts((10, 30, 20), 100, 50)
    found = sweep_cost(parts, 1, 7, 5, 4, 8.0, 16.0)
    assert (found.read, found.hidden, found.held) == (4 * (40 + 50), 4 * 7 * 5, 4 * (30 + 20 + 50))
    assert (found.reading, found.computing) == (4 * 90 / 8, 2 * 40 * 7 / 16)
    assert sweep_cost(parts, 0, 7, 5, 4, 8.0, 16.0).read == 4 * (10 + 50)


def test_what_is_read_ahead_is_there_as_on_the_disk():
    """The block of 30 in two bytes, the next of 20 and the embedding of 50 in four."""
    found = sweep_cost(ModelParts((10, 30, 20), 100, 50, on_disk=4.0), 1, 7, 5, 2, 8.0, 16.0)
    assert (found.read, found.held) == (4 * (40 + 50), 2 * 30 + 4 * 20 + 4 * 50)
    narrow = sweep_cost(ModelParts((10, 30, 20), 100, 50, on_disk=2.0), 1, 7, 5, 4, 8.0, 16.0)
    assert (narrow.read, narrow.held) == (2 * (40 + 50), 4 * (30 + 20 + 50))


def test_a_disk_is_measured_where_there_is_a_model_and_else_taken_for_granted(tmp_path):
    assert reading_speed(None) == (DISK_SPEED, False)
    assert reading_speed(tmp_path) == (DISK_SPEED, False)
    full = tmp_path / "model"
    full.mkdir()
    (full / "model.safetensors").write_bytes(bytes(20_000_000))
    speed, is_measured = reading_speed(full)
    assert is_measured
    assert speed > 1e6


def test_the_tables_of_the_document_are_those_that_the_code_gives():
    document = Path(DOCUMENT).read_text(encoding="utf-8")
    assert with_tables(document) == document


def test_what_many_machines_hold_is_so_by_hand():
    """100 million prompts of 128 tokens on 64 cards of 400 TFLOP/s in 8 machines; Llama 3.1 8B has
    32 blocks of 218,112,000 numbers and d_model 4,096, 70B is 8,192 wide."""
    rows = [line.strip("| ").split(" | ") for line in many_machines().splitlines()]
    found = {row[0]: row[1:] for row in rows}
    assert found["ids and spans of the plan"][1] == "269 GB"  # 12.8e9 · 21
    assert found["both again, for the choice"][1] == "329 GB"  # and 1e8 · 600
    assert found["activations kept, a layer"][1:] == ["2.1 GB", "4.3 GB"]  # 131,072 rows · 4 · d
    assert found["atoms, a layer"][1:] == ["33.6 MB", "67.1 MB"]  # 2,048 · 4 · d
    assert found["tokenising"][1] == "1.8 h"  # 12.8e9 / 2e6 s
    # 2 · 32 · 218,112,000 · 12.8e9 / (64 · 400e12) = 6,980 s
    assert found["forward pass"][1] == "1.9 h"
