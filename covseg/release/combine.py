"""Several model folders to one: their mean probability, in one graph.

In: model folders that draw lung and infection. Out: a folder that ``covseg predict --model`` takes. It has
no gate and no thresholds of its own yet: fit and calibrate it as any model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from covseg.errors import UsageError
from covseg.model_folder.folder import ModelFolder
from covseg.model_folder.write import prefixed, write_model
from covseg.settings.model import ModelCard


def combine(members: list[ModelFolder], target: Path, model_id: str, mirror: bool = False) -> ModelCard:
    """Write the mean of several models as a model folder of its own.

    Parameters
    ----------
    members : list of ModelFolder
        The gate of the new model will read the first one's features.
    target : Path
        New or empty.
    model_id : str
    mirror : bool
        Every member also reads the film mirrored: twice the cost.

    Raises
    ------
    UsageError
        When there is no member, a member does not draw lung and infection, or `target` holds something.

    Notes
    -----
    The grid is the finest member's; every member sees its own. Weights that are halves stay halves.
    """
    _check(members, target)
    cards = [member.card for member in members]
    size = max(card.size for card in cards)
    shared = {card.normalisation for card in cards}
    stages = [
        {
            "network": card.network,
            "network_args": card.network_args,
            "size": None if card.size == size else card.size,
            "standardise": len(shared) > 1 and card.normalisation == "standardise",
        }
        for card in cards
    ]
    states = [prefixed(load_file(member.weights), f"members.{index}.") for index, member in enumerate(members)]
    return write_model(
        target,
        {name: value for state in states for name, value in state.items()},
        id=model_id,
        network="ensemble",
        network_args={"members": stages, "mirror": mirror},
        size=size,
        normalisation="unit" if "unit" in shared else "standardise",
        flags=cards[0].flags,
        presence_source="mean of the members': " + "; ".join(dict.fromkeys(one.presence_source for one in cards)),
        training=_training(members),
        licence=" ".join(dict.fromkeys(one.licence for one in cards)),
        citation="; ".join(dict.fromkeys(one.citation for one in cards)),
    )


def _check(members: list[ModelFolder], target: Path) -> None:
    if not members:
        raise UsageError("no model to combine: name one or more model folders")
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: name a new folder")
    for member in members:
        if member.card.labels != ("lung", "infection"):
            raise UsageError(f"{member.path} draws {member.card.labels}: wanted lung and infection")


def _training(members: list[ModelFolder]) -> dict[str, Any]:
    """Say what every member is and learnt from."""
    data = dict.fromkeys(str(one.card.training.get("data", "not recorded")) for one in members)
    told = [{"id": one.card.id, "weights_sha256": one.card.weights_sha256, **one.card.training} for one in members]
    return {"data": "; ".join(data), "members": told}
