"""The held-out activations of a training."""

import functools

import torch

from itda_core.activations.plan import Plan, make_plan
from itda_core.errors import CorpusError
from itda_core.model.swept import SweptModel
from itda_core.runs.rows import RowFile
from itda_core.runs.training_context import TrainingContext

HELD_OUT_TOKENS = 4_096


def held_out_plan(context: TrainingContext) -> Plan | None:
    """What is read of the held-out prompts; None where none of them has two tokens."""
    try:
        prompts = context.corpus.held_out()
        return make_plan(context.model, prompts, context.config, HELD_OUT_TOKENS)
    except CorpusError:
        return None


def held_out_rows(context: TrainingContext, plan: Plan, layer: int) -> RowFile:
    """The file in which a training that reads block by block keeps those of a layer."""
    width = context.model.d_model
    return context.workspace.rows(f"held-out-{layer}", plan.total_rows, width)


class HeldOutActivations:
    """Those of all layers: captured once, or kept while the model was read block by block."""

    def __init__(self, context: TrainingContext):
        self._context = context

    def of(self, layer: int) -> torch.Tensor:
        """[n_tokens, d_model] float32 on the host; none where no held-out prompt has two tokens."""
        context = self._context
        if self._plan is None:
            return torch.empty((0, context.model.d_model), dtype=torch.float32, device="cpu")
        if isinstance(context.model, SweptModel):
            rows = held_out_rows(context, self._plan, layer)
            try:
                if rows.written == len(rows):
                    return rows.read(0, len(rows))
            finally:
                rows.close()
        return self._captured[layer]

    @functools.cached_property
    def _plan(self) -> Plan | None:
        return held_out_plan(self._context)

    @functools.cached_property
    def _captured(self) -> dict[int, torch.Tensor]:
        """By layer, on the host, which has room for those of all."""
        config, plan = self._context.config, self._plan
        tokens = plan.tokens(0, len(plan.prompts))
        model = self._context.model
        return dict(model.capture(tokens, config.layers, config.skip_first, to="cpu"))
