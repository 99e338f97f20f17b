"""The atoms of a layer, chosen at one place from the parts that all machines have written."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from itda_core.activations.sources import Sources
from itda_core.cluster.kept_parts import KeptRows, PartRows
from itda_core.devices import to_device
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.builders import Atoms, Builder, CoverageBuilder, make_builder


@dataclass(frozen=True)
class Chosen:
    """The atoms of a layer, on the host."""

    atoms: Atoms
    rows: int
    """Activations that were looked at: with the threshold until the dictionary was full"""
    bad_rows: int
    notes: list[str]


def chosen(context: TrainingContext, layer: int) -> Chosen:
    """The atoms of a layer as a training on one machine chooses them, from the parts."""
    kept = KeptRows(context.plan, context.config, context.model.d_model)
    parts = part_rows(context, layer, kept, len(kept.rows))
    builder = make_builder(context, layer)
    try:
        if isinstance(builder, CoverageBuilder):
            rows, bad_rows = _sampled(builder, kept, parts)
        else:
            rows, bad_rows = _offered(context, builder, kept, parts)
        return Chosen(_atoms_on_host(builder.atoms()), rows, bad_rows, builder.notes)
    finally:
        builder.close()


def _sampled(builder: CoverageBuilder, kept: KeptRows, parts: PartRows) -> tuple[int, int]:
    """Give the builder its sample; how many rows the plan has, and how many can't be used."""
    wanted = np.searchsorted(kept.rows, builder.rows)
    bad_rows = 0
    for part, (start, end) in enumerate(itertools.pairwise(kept.starts)):
        first, last = np.searchsorted(wanted, [start, end])
        if last > first:
            rows = torch.from_numpy(wanted[first:last] - start)
            builder.take(int(first), parts.read(int(start), int(end - start))[rows])
        bad_rows += sum(parts.unusable(part))
    return int(kept.edges[-1]), bad_rows


def _offered(
    context: TrainingContext, builder: Builder, kept: KeptRows, parts: PartRows
) -> tuple[int, int]:
    """Offer the windows in their order until the builder is full and the explored rows are passed;
    how many rows that were, and how many of them can't be used."""
    prompts, positions = context.plan.first_rows(context.plan.total_rows)
    bad_rows, end = 0, 0
    unusable = [count for part in range(len(kept.parts)) for count in parts.unusable(part)]
    for window, (first, last) in enumerate(context.plan.windows):
        if builder.is_full and end >= context.explored_rows:
            break
        start, end = (int(edge) for edge in kept.edges[window : window + 2])
        places = np.stack([prompts[start:end] - first, positions[start:end]], axis=1)
        tokens = context.plan.tokens(first, last)
        sources = Sources(tokens, context.plan.prompts[first:last], places)
        x = to_device(parts.read(start, end - start), context.device)
        builder.offer(start, x, sources)
        bad_rows += unusable[window]
    return end, bad_rows


def part_rows(context: TrainingContext, layer: int, kept: KeptRows, length: int) -> PartRows:
    """The kept rows of a layer, the first `length` of them."""
    site, dtype = context.config.site, context.model.dtype
    return PartRows(parts_folder(context, kept), layer, site, dtype, kept.starts, length)


def parts_folder(context: TrainingContext, kept: KeptRows) -> Path:
    """Where the parts of a training lie."""
    return context.workspace.directory / f"parts-{kept.digest}"


def _atoms_on_host(atoms: Atoms) -> Atoms:
    return replace(atoms, atoms=atoms.atoms.cpu(), offset=atoms.offset.cpu())
