"""What adds up within a block: the stream before it, and what attention and MLP add to it."""

from collections.abc import Iterator, Mapping

import torch

from itda_core.settings import RESID_POST

PARTS = ("attn_out", "resid_mid", "mlp_out")
"""Sites that these sums tell of"""


def sums(at: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, str]]:
    """Each sum that has to hold: its name, its value, what it has to be and the name of that.

    at: by site, what stands there in a block, [n_tokens, d_model]; without `resid_mid` attention
    and MLP stand side by side.
    """
    stream = at["resid_pre"] + at["attn_out"]
    what = "resid_pre + attn_out"
    if "resid_mid" in at:
        yield what, stream, at["resid_mid"], "resid_mid"
        what, stream = "resid_mid", at["resid_mid"]
    yield f"{what} + mlp_out", stream + at["mlp_out"], at[RESID_POST], RESID_POST


def difference(found: torch.Tensor, expected: torch.Tensor, rows: float = 1.0) -> float:
    """The largest ‖found − expected‖ / ‖expected‖ of a row; `rows`: of this share of them."""
    found, expected = found.float().cpu(), expected.float().cpu()
    norms = expected.norm(dim=-1).clamp(min=1e-6)
    return float(((found - expected).norm(dim=-1) / norms).flatten().quantile(rows))
