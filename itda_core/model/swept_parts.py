"""What a swept model has in memory together: a block and the next, and what lies outside them."""

from torch import nn

from itda_core.errors import ModelError
from itda_core.model.blocks import OTHER_SENSES
from itda_core.model.sizes import PartSize, most_together, too_little_for
from itda_core.model.sweep import Stage
from itda_core.model.weights import Weights


class SweptParts:
    """The parts of a text model: its blocks, its table of embeddings, its head, and the rest."""

    def __init__(self, weights: Weights, module: nn.Module, part: str, blocks: str):
        """module: the text model, at the path `part` of transformers' module; blocks: the path of
        its list of blocks."""
        self._weights = weights
        n_blocks = len(module.get_submodule(blocks))
        self.blocks = [_path(part, f"{blocks}.{number}") for number in range(n_blocks)]
        self.embedding_module = _table(module)
        self._embedding = _path_of(weights.module, self.embedding_module)
        self._head = _path_of(weights.module, _head(module))
        large = [path for path in (self._embedding, self._head) if path is not None]
        others = [path for path, _ in weights.module.named_modules() if OTHER_SENSES.search(path)]
        self.outside = weights.outside(part, [*self.blocks, *large, *others])
        """Names on disk of what stays in memory: norms, positions …"""
        if weights.share_blocks(self.blocks):
            raise ModelError("its blocks share weights, so that they can't be read one by one")

    def stage(self, block: int) -> Stage:
        """A block, with the table of embeddings where it is the first."""
        parts = [self.blocks[block]] + ([self._embedding] if block == 0 else [])
        return Stage(block, self._names(parts))

    def last_stage(self, first: int) -> Stage:
        """The head, with the last block where that is not before block `first`."""
        last = len(self.blocks) - 1
        parts = [self._head]
        if first <= last:
            parts.append(self.blocks[last])
        if last == 0 >= first:
            parts.append(self._embedding)
        return Stage(last if first <= last else None, self._names(parts))

    def _names(self, parts: list[str | None]) -> list[str]:
        names = [name for part in parts if part for name in self._weights.stored_names(part)]
        return list(dict.fromkeys(names))

    @property
    def peak_bytes(self) -> int:
        """Of memory for the weights that are there at once."""
        blocks = [self._size(self._weights.stored_names(block)) for block in self.blocks]
        tables = [self._size(self._names([part])) for part in (self._embedding, self._head)]
        return most_together(blocks, tables, self._weights.bytes_of(self.outside))

    def _size(self, names: list[str]) -> PartSize:
        return PartSize(self._weights.bytes_of(names), self._weights.stored_bytes(names))

    def check_room(self, name: str, memory: int) -> None:
        """Raises ModelError where memory has no room for what is there at once."""
        if self.peak_bytes > memory:
            raise ModelError(too_little_for(name, self.peak_bytes, memory))


def _table(module: nn.Module) -> nn.Module | None:
    """The table of embeddings; None where it is none that a vector can stand in for."""
    try:
        found = module.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    weight = getattr(found, "weight", None)
    return found if weight is not None and weight.ndim == 2 else None


def _head(module: nn.Module) -> nn.Module | None:
    try:
        return module.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return None


def _path_of(whole: nn.Module, module: nn.Module | None) -> str | None:
    return next((path for path, one in whole.named_modules() if one is module), None)


def _path(*parts: str) -> str:
    return ".".join(part for part in parts if part)
