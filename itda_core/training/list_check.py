"""What is wrong with the trainings of a list by their models, seen before the first one starts."""

from collections.abc import Sequence

from itda_core.errors import ItdaError
from itda_core.model.context import check_layers
from itda_core.model.model_info import check_is_there, model_shape
from itda_core.model.pretrained import without_part
from itda_core.training.standing import Standing
from itda_core.training.training_list import ListedTraining


def fail_early(
    standing: Standing, trainings: Sequence[ListedTraining], is_here: bool = True
) -> list[ListedTraining]:
    """Those that may be trained; the others have failed, and say so at once. Nothing is loaded and
    the network is not asked: of a model that is not here yet nothing is known. is_here: whether
    this machine trains, so that folders have to be on it."""
    good = []
    for one in trainings:
        try:
            _check(one, is_here)
            good.append(one)
        except ItdaError as error:
            standing.fails(one.number, str(error), is_told=True)
    return good


def _check(one: ListedTraining, is_here: bool) -> None:
    """Raises ItdaError where the model or one of its layers is not there."""
    model = one.config.model
    if one.config.activations:  # checked as the list was read
        return
    if is_here:
        check_is_there(model)
    # An encoder's layers are not those that the configuration of the whole names first.
    shape = model_shape(model) if without_part(model.name) == model.name else None
    if shape is not None:
        check_layers(one.config.layers, shape.n_layers, model.name)
