"""Whether what a run says of itself in several places is one thing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from itda_core.errors import RunError
from itda_core.hook_point import HookPoint
from itda_core.runs.run import Run

if TYPE_CHECKING:
    from itda_core.dictionary.dictionary import Dictionary


@dataclass(frozen=True)
class Said:
    """What the file of a dictionary says of it, beside its tensors."""

    hook_point: HookPoint
    kind: str
    """ "itda" or "sae" """
    l0: int
    pursuit: str
    model_digest: str
    """"" in a file of an earlier version"""

    @classmethod
    def of_header(cls, header: dict[str, Any]) -> "Said":
        """header: of a dictionary's file. Raises KeyError or TypeError where it lacks one."""
        kind, pursuit = header.get("kind", "itda"), header.get("pursuit", "matching")
        point = HookPoint(**header["hook_point"])
        return cls(point, kind, header["l0"], pursuit, header.get("model") or "")


def disagreements(run: Run, said: Said) -> Iterator[str]:
    """What a run's id, layer, settings and dictionary say differently, each a sentence: each would
    be shown somewhere for the others'."""
    point, about, config = said.hook_point, run.about, run.config
    pairs: dict[str, tuple[Any, Any]] = {
        "layer of the dictionary": (point.layer, run.layer),
        "site of the dictionary": (point.site, config.site),
        "model of the dictionary": (point.model, config.model.name),
        "run_id": (run.run_id, f"{about['training_id']}-L{run.layer:02d}"),
        "kind": (said.kind, run.kind),
    }
    if said.kind == run.kind == "itda":
        pairs["L0"] = (said.l0, config.max_terms)
        pairs["pursuit"] = (said.pursuit, config.pursuit)
    if said.model_digest and about.get("model_digest"):
        pairs["model_digest"] = (said.model_digest, about["model_digest"])
    for name, (found, told) in pairs.items():
        if found != told:
            yield f"its {name} is {found!r:.80}, where its config.json makes it {told!r:.80}."
    if not 0 <= run.layer < about["n_layers"]:
        yield f"its layer {run.layer} is none of the model's {about['n_layers']}."
    if run.kind == "itda" and run.layer not in config.layers:
        yield f"its layer {run.layer} is none of those that its settings name."


def check_agreement(run: Run, dictionary: "Dictionary") -> None:
    """Raises RunError, with what differs, where a run and its dictionary don't agree."""
    pairs = {
        "d_model of the dictionary": (dictionary.d_model, run.about["d_model"]),
        "number of atoms": (len(dictionary), run.metrics["atoms"]),
    }
    for name, (found, told) in pairs.items():
        if found != told:
            raise RunError(f"its {name} is {found!r}, where the run makes it {told!r}.")
    said = Said(
        dictionary.hook_point,
        dictionary.kind,
        dictionary.l0,
        dictionary.pursuit,
        dictionary.model_digest,
    )
    for difference in disagreements(run, said):
        raise RunError(difference)
