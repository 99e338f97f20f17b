"""The computed tables of docs/scale.md: what models of each size take on each card.

    python -m tools.scale_table

Nothing is measured here; the assumptions stand in CARDS and below the table.
"""

from dataclasses import dataclass
from pathlib import Path

from itda_core.activations.pool import sample_size
from itda_core.jobs.sweep_cost import SweepCost, sweep_cost
from itda_core.model.sizes import ModelParts

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "scale.md"
_BEGIN, _END = "<!-- computed -->", "<!-- end of what is computed -->"
_BEGIN_MANY = "<!-- computed for many machines -->"
_END_MANY = "<!-- end of what is computed for many machines -->"
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
    document = _with(document, _BEGIN, _END, f"{_models()}\n\n{_cards()}")
    return _with(document, _BEGIN_MANY, _END_MANY, many_machines())


def _with(document: str, begin: str, end: str, tables: str) -> str:
    before, _, rest = document.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{tables}\n\n{end}{after or chr(10)}"


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


PROMPTS, PROMPT_TOKENS = 100_000_000, 128
GPUS, MACHINES = 64, 8
_TEXT_BYTES = 600
"""A prompt's text: 4.7 characters a token"""
_PLAN_BYTES = 21
"""A token of the plan: its id, its span and whether it is special are 13, the rest is what Python
adds to each prompt"""
_SENT_BYTES = 13
"""The same without what Python adds"""
_NETWORK = 1.25e9
"""Bytes a second out of one machine: 10 Gbit/s"""
_TOKENIZED = 2e6
"""Tokens a second of a tokenizer on the machine that starts the training"""
_ATOMS, _L0, _EXPLORED = 2_048, 32, 65_536
_CODE_BYTES = 22
"""A term: latent and position of 4 bytes, step 2, coefficient 4, prompt 8, before it is packed"""


def many_machines() -> str:
    """Where each byte lies and how long each part takes, for PROMPTS prompts on GPUS cards."""
    models = [model for model in MODELS if model.name.endswith((" 8B", " 70B"))]
    places = [["what", "where", *(model.name for model in models)]]
    places += _same("texts", "start", PROMPTS * _TEXT_BYTES, models)
    places += _same("ids and spans of the plan", "start", _tokens() * _PLAN_BYTES, models)
    places += _same("both again, for the choice", "start, machine that chooses", _plan(), models)
    looked_up = _tokens() * _LOOKED_UP_BYTES
    places += _same("looking sources up", "machine that chooses", looked_up, models)
    kept = [f"{_bytes(_kept_rows() * 4 * model.d_model)}" for model in models]
    atoms = [f"{_bytes(_ATOMS * 4 * model.d_model)}" for model in models]
    places += [
        ["weights", "each GPU", *(_bytes(_ITEM * model.parts.total) for model in models)],
        ["activations kept, a layer", "shared folder", *kept],
        ["atoms, a layer", "shared folder, each GPU", *atoms],
    ]
    places += _same("codes, a layer", "shared folder", _EXPLORED * _L0 * _CODE_BYTES, models)
    told = PROMPTS * (_TEXT_BYTES + 8 * PROMPT_TOKENS)
    places += _same("texts and spans, a layer", "run directory", told, models)
    return f"{_table(places[0], places[1:])}\n\n{_times(models)}"


_LOOKED_UP_BYTES = 32
"""A token, while the sources of the atoms are looked up: its prompt and position, and on the way
where its prompt starts and its number, 8 bytes each"""


def _tokens() -> int:
    return PROMPTS * PROMPT_TOKENS


def _plan() -> int:
    """Bytes of the whole plan with its texts."""
    return PROMPTS * _TEXT_BYTES + _tokens() * _PLAN_BYTES


def _kept_rows() -> int:
    """Explored rows and those of the sample, which may be the same ones."""
    return _EXPLORED + sample_size(_ATOMS)


def _same(what: str, where: str, count: int, models: list[Llama]) -> list[list[str]]:
    """A row that does not depend on the model."""
    return [[what, where, *[_bytes(count)] * len(models)]]


def _times(models: list[Llama]) -> str:
    """How long each part takes, by itself."""
    card = CARDS[-1]
    rows = [
        _same_time("tokenising", "start", _tokens() / _TOKENIZED, models),
        _same_time("plan to the choice", "network", _plan() / _NETWORK, models),
        _same_time("tokens to the workers", "network", _tokens() * _SENT_BYTES / _NETWORK, models),
        ["weights", "disk of each machine", *(_seconds(_weights_read(m, card)) for m in models)],
        ["forward pass", "all GPUs", *(_seconds(_forward(m, card)) for m in models)],
        ["activations kept", "network", *(_seconds(_kept_sent(m)) for m in models)],
        ["atoms to all machines", "network", *(_seconds(_atoms_sent(m)) for m in models)],
    ]
    return _table(["what takes", "of what", *(model.name for model in models)], rows)


def _same_time(what: str, where: str, seconds: float, models: list[Llama]) -> list[str]:
    return [what, where, *[_seconds(seconds)] * len(models)]


def _weights_read(model: Llama, card: Card) -> float:
    """Each machine reads them once for its cards; a swept model's are read as often, a worker."""
    return _ITEM * model.parts.total / card.disk


def _forward(model: Llama, card: Card) -> float:
    return 2 * sum(model.parts.blocks) * _tokens() / (GPUS * card.forward)


def _kept_sent(model: Llama) -> float:
    """All that is kept of a layer, into the shared folder through one machine's network."""
    return _kept_rows() * 4 * model.d_model / _NETWORK


def _atoms_sent(model: Llama) -> float:
    return MACHINES * _ATOMS * 4 * model.d_model / _NETWORK


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
