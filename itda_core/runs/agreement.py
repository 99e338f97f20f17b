"""Whether what a run says of itself in several places is one thing."""

from typing import TYPE_CHECKING

from itda_core.errors import RunError
from itda_core.runs.run import Run

if TYPE_CHECKING:
    from itda_core.dictionary.dictionary import Dictionary


def check_agreement(run: Run, dictionary: "Dictionary") -> None:
    """Raises RunError, with what differs, where a run's id, layer, settings and dictionary do not
    agree: each would be shown somewhere for the others'."""
    point, about, config = dictionary.hook_point, run.about, run.config
    pairs = {
        "layer of the dictionary": (point.layer, run.layer),
        "site of the dictionary": (point.site, config.site),
        "model of the dictionary": (point.model, config.model.name),
        "d_model of the dictionary": (dictionary.d_model, about["d_model"]),
        "number of atoms": (len(dictionary), run.metrics["atoms"]),
        "run_id": (run.run_id, f"{about['training_id']}-L{run.layer:02d}"),
        "kind": (dictionary.kind, run.kind),
    }
    if dictionary.model_digest and about.get("model_digest"):
        pairs["model_digest"] = (dictionary.model_digest, about["model_digest"])
    for name, (found, said) in pairs.items():
        if found != said:
            raise RunError(
                f"its {name} is {found!r:.80}, where its config.json makes it {said!r:.80}."
            )
    if not 0 <= run.layer < about["n_layers"]:
        raise RunError(f"its layer {run.layer} is none of the model's {about['n_layers']}.")
    if run.kind == "itda" and run.layer not in config.layers:
        raise RunError(f"its layer {run.layer} is none of those that its settings name.")
