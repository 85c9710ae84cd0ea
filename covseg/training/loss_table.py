"""The mask losses by name, and the ``[loss]`` table of a recipe: a weight for each, and their options.

To add a loss, write its function in `covseg.training.losses` and its entry here; its weight and its options are then
keys of every recipe. No torch is imported before a loss is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class LossTerm:
    """One loss of mask logits against masks.

    Parameters
    ----------
    place : str
        ``module:function``, imported when a run begins: (logits, truth, options by name), both ``(N, H, W)``, to one
        number. It has a useful or a zero gradient on empty masks.
    description : str
        One line, what ``covseg recipes`` says.
    options : mapping of str to float
        Its other arguments and what they are where a recipe is silent; there an option is called ``NAME_OPTION``.
    pos_weight : bool
        It takes the recipe's `pos_weight` for the infection.
    counted : bool
        It is a mean over the images that have a mask, and takes `count`, how many those are, where a batch is shared.
    """

    place: str
    description: str
    options: Mapping[str, float] = field(default_factory=dict)
    pos_weight: bool = False
    counted: bool = False


LOSSES: dict[str, LossTerm] = {
    "bce": LossTerm("covseg.training.losses:bce", "Weight of the mean binary cross-entropy.", pos_weight=True),
    "dice": LossTerm(
        "covseg.training.losses:positive_dice", "Weight of 1 - soft Dice, over images with a mask.", counted=True
    ),
    "focal": LossTerm(
        "covseg.training.losses:focal", "Weight of the cross-entropy with easy pixels turned down.", {"gamma": 2.0}
    ),
    "tversky": LossTerm(
        "covseg.training.losses:tversky", "Weight of 1 - Tversky index.", {"false_positive": 0.3, "false_negative": 0.7}
    ),
    "boundary": LossTerm(
        "covseg.training.losses:boundary", "Weight of the mean distance of drawn pixels to the true border."
    ),
}


def options(name: str) -> dict[str, str]:
    """Return a loss's options and the keys that a recipe has for them."""
    return {option: f"{name}_{option}" for option in LOSSES[name].options}


class LossConfig(BaseModel):
    """A weighted sum; every term is defined on images with empty masks. See covseg/training/loss_table.py.

    The fields are what is no single mask loss; the weights of `LOSSES` and their options are attributes too.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, NotNegative]

    pos_weight: float | Literal["data"] = Field(1.0, description="Of BCE; 'data': background over foreground pixels.")
    lung: float = Field(1.0, ge=0, description="Weight of the lung mask where both masks are learnt.")
    presence: float = Field(0.0, ge=0, description="Weight of the image-level BCE: any infection on the image.")
    classes: float = Field(0.0, ge=0, description="Weight of the cross-entropy over strata.")
    consistency: float = Field(
        0.0,
        ge=0,
        exclude_if=lambda weight: not weight,  # recipes keep the digests that their runs recorded
        description="Weight of how far two acquisitions of one image disagree; every step then sees each image twice.",
    )

    @classmethod
    def described(cls) -> dict[str, str]:
        """Return every key of the table, in the order of ``recipe.json``, and what it means."""
        fields = {name: field.description or "" for name, field in cls.model_fields.items()}
        weights = {name: term.description for name, term in LOSSES.items()}
        keys = {key: "" for name in LOSSES for key in options(name).values()}
        return weights | {"pos_weight": fields.pop("pos_weight")} | keys | fields

    @property
    def weights(self) -> dict[str, float]:
        """The mask losses that have a weight."""
        return {name: getattr(self, name) for name in LOSSES if getattr(self, name) > 0}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, table: Any) -> Any:
        """Refuse a key that is none, and fill in what the recipe is silent on."""
        if not isinstance(table, dict):
            return table
        for key in table:
            if key not in cls.described():
                raise ValidationError.from_exception_data(
                    cls.__name__, [{"type": "extra_forbidden", "loc": (key,), "input": table[key]}]
                )
        silent = dict.fromkeys(LOSSES, 0.0)
        for name, term in LOSSES.items():
            silent |= {key: term.options[option] for option, key in options(name).items()}
        return silent | table

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.weights:
            raise ValueError(f"no mask loss: give a weight to one of {', '.join(LOSSES)}")
        return self

    @model_serializer(mode="wrap")
    def _ordered(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        table = handler(self)
        return {key: table[key] for key in self.described() if key in table}
