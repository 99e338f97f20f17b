"""How much of a model an evaluation runs, counted in blocks."""

from itda_core.settings import RESID_POST


def blocks_run(site: str, layer: int, n_layers: int, passes: int, is_swept: bool = False) -> int:
    """Blocks that a token goes through in several passes with something put in at a site of block
    `layer`: those after it. Where it is put in within the block, also that one, and those before
    it, which a model that is read block by block (`is_swept`) runs once for all passes."""
    if site == "resid_pre" and layer:
        layer, site = layer - 1, RESID_POST
    if site == RESID_POST:
        return passes * (n_layers - layer - 1)
    return layer + passes * (n_layers - layer) if is_swept else passes * n_layers
