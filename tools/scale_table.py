"""The computed tables of docs/scale.md: what models of each size take on each card.

    python -m tools.scale_table

Nothing is measured here; the assumptions stand in CARDS and below the table.
"""

from dataclasses import dataclass
from pathlib import Path

from itda_core.jobs.sweep_cost import SweepCost, sweep_cost
from itda_core.model.sizes import ModelParts

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "scale.md"
_BEGIN, _END = "<!-- computed -->", "<!-- end of what is computed -->"
_ITEM = 2
"""Bytes of a number in bfloat16"""
TOKENS = 65_536


@dataclass(frozen=True)
class Llama:
    """A model of Llama's kind, as its configuration says."""

    name: str
    d_model: int
    n_layers: int
    key_values: int
    """width of the keys, and of the values"""
    intermediate: int
    vocabulary: int
    is_tied: bool = False
    """whether the head is the embedding"""

    @property
    def parts(self) -> ModelParts:
        attention = 2 * self.d_model * (self.d_model + self.key_values)
        block = attention + 3 * self.d_model * self.intermediate + 2 * self.d_model
        embedding = self.vocabulary * self.d_model
        outside = embedding * (1 if self.is_tied else 2) + self.d_model
        return ModelParts((block,) * self.n_layers, outside, embedding)


MODELS = (
    Llama("SmolLM2 135M", 576, 30, 192, 1_536, 49_152, is_tied=True),
    Llama("Llama 3.2 1B", 2_048, 16, 512, 8_192, 128_256, is_tied=True),
    Llama("Llama 3.1 8B", 4_096, 32, 1_024, 14_336, 128_256),
    Llama("Llama 3.1 70B", 8_192, 80, 1_024, 28_672, 128_256),
    Llama("Llama 3.1 405B", 16_384, 126, 1_024, 53_248, 128_256),
)


@dataclass(frozen=True)
class Card:
    """What computes, and how fast it is taken to be."""

    name: str
    memory: float
    """bytes that a model may use"""
    forward: float
    """operations a second of a forward pass in bfloat16"""
    product: float
    """the same of a product in float32, by which atoms are chosen and tokens are encoded"""
    disk: float = 3e9
    """bytes a second"""


CARDS = (
    Card("no GPU, 2 cores, 16 GB", 16e9, 0.24e12, 0.12e12, 1e9),
    Card("8 GB", 8e9, 30e12, 12e12),
    Card("24 GB", 24e9, 120e12, 40e12),
    Card("80 GB", 80e9, 400e12, 50e12),
)
_ROOM = 0.85
"""Share of the memory that weights may have: the rest is for the forward pass and the atoms"""


def is_swept(model: Llama, card: Card) -> bool:
    """Whether the model is larger than what the card has for its weights."""
    return _ITEM * model.parts.total > _ROOM * card.memory


def cost(model: Llama, card: Card) -> SweepCost:
    """Of TOKENS tokens through all blocks."""
    return sweep_cost(
        model.parts, model.n_layers - 1, TOKENS, model.d_model, _ITEM, card.disk, card.forward
    )


def with_tables(document: str) -> str:
    """The document with the tables as they have to be."""
    before, _, rest = document.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}\n\n{_models()}\n\n{_cards()}\n\n{_END}{after or chr(10)}"


def _models() -> str:
    head = [
        "model",
        "numbers",
        "weights",
        "largest block",
        "embedding",
        "hidden states",
        "operations",
    ]
    rows = [
        [
            model.name,
            f"{model.parts.total:,}",
            _bytes(_ITEM * model.parts.total),
            _bytes(_ITEM * max(model.parts.blocks)),
            _bytes(_ITEM * model.parts.largest_outside),
            _bytes(cost(model, CARDS[0]).hidden),
            f"{cost(model, CARDS[0]).computing * CARDS[0].forward / 1e15:.2g} PFLOP",
        ]
        for model in MODELS
    ]
    return _table(head, rows)


def _cards() -> str:
    rows = [[model.name, *(_cell(model, card) for card in CARDS)] for model in MODELS]
    return _table(["model", *(card.name for card in CARDS)], rows)


def _cell(model: Llama, card: Card) -> str:
    """Whether it is loaded or swept, and how long."""
    found = cost(model, card)
    if not is_swept(model, card):
        return f"loaded: {_seconds(found.reading)} + {_seconds(found.computing)}"
    if found.held > _ROOM * card.memory:
        return f"does not fit: {_bytes(found.held)} at once"
    both = f"{_seconds(found.reading)} ∥ {_seconds(found.computing)}"
    return f"swept: {_seconds(found.seconds)} ({both})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bytes(count: float) -> str:
    """Of two or three digits: "810 GB", "6.4 GB", "71 MB"."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    return f"{count / unit:.{1 if count / unit < 100 else 0}f} {name}"


def _seconds(count: float) -> str:
    if count < 90:
        return f"{count:.2g} s"
    return f"{count / 60:.2g} min" if count < 5_400 else f"{count / 3600:.2g} h"


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
