"""Several model folders to one: their mean probability, in one graph.

In: model folders that draw lung and infection. Out: a folder that ``covseg predict --model`` takes. It has
no input filter and no thresholds of its own yet: fit and calibrate it as any model.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from covseg.errors import UsageError
from covseg.model_folder.export import add_graph
from covseg.model_folder.folder import ModelFolder, open_folder
from covseg.model_folder.write import prefixed, whole_folder, write_model
from covseg.settings.model import ModelConfig


def combine(members: list[ModelFolder], target: Path, model_id: str, mirror: bool = False) -> ModelConfig:
    """Write the mean of several models as a model folder of its own.

    Parameters
    ----------
    members : list of ModelFolder
        The input filter of the new model will read the first one's features.
    target : Path
        New or empty.
    mirror : bool
        Every member also reads the image mirrored: twice the cost.

    Raises
    ------
    UsageError
        When there is no member, a member does not draw lung and infection, or `target` holds something.

    Notes
    -----
    The grid is the finest member's; every member sees its own. Weights that are halves stay halves.
    """
    _check(members, target)
    configs = [member.config for member in members]
    size = max(config.size for config in configs)
    shared = {config.normalisation for config in configs}
    stages = [
        {
            "network": config.network,
            "network_args": config.network_args,
            "size": None if config.size == size else config.size,
            "standardise": len(shared) > 1 and config.normalisation == "standardise",
        }
        for config in configs
    ]
    states = [prefixed(load_file(member.weights), f"members.{index}.") for index, member in enumerate(members)]
    with whole_folder(target) as place:
        write_model(
            place,
            {name: value for state in states for name, value in state.items()},
            id=model_id,
            network="ensemble",
            network_args={"members": stages, "mirror": mirror},
            size=size,
            source_side=configs[0].source_side,
            normalisation="unit" if "unit" in shared else "standardise",
            flags=configs[0].flags,
            presence_source="mean of the members': "
            + "; ".join(dict.fromkeys(config.presence_source for config in configs)),
            training=_training(configs),
            licence=" ".join(dict.fromkeys(config.licence for config in configs)),
            citation="; ".join(dict.fromkeys(config.citation for config in configs)),
        )
        add_graph(place)
    return open_folder(target).config


def _check(members: list[ModelFolder], target: Path) -> None:
    if not members:
        raise UsageError("no model to combine: name one or more model folders")
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: name a new folder")
    for member in members:
        if member.config.source_side != members[0].config.source_side:
            raise UsageError(
                f"{member.path} learnt from images of side {member.config.source_side}, {members[0].path} of "
                f"{members[0].config.source_side}: one preparation serves all members, combine models of one side"
            )
        if member.config.labels != ("lung", "infection"):
            raise UsageError(f"{member.path} draws {member.config.labels}: wanted lung and infection")


def _training(configs: list[ModelConfig]) -> dict[str, object]:
    """Say what every member is and learnt from."""
    data = dict.fromkeys(str(config.training.get("data", "not recorded")) for config in configs)
    members = [{"id": config.id, "weights_sha256": config.weights_sha256, **config.training} for config in configs]
    return {"data": "; ".join(data), "members": members}
