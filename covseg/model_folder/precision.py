"""Which precisions of a model may be used: a proof for each, in the model folder, of what it loses against float32.

In: a model folder. Out: its proofs, or the refusal of a precision that has none, or another model's, or a bad one.
`covseg.release.prove` makes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from covseg.errors import ModelRefused
from covseg.model_folder.folder import ModelFolder
from covseg.settings.faults import first_fault
from covseg.settings.model import Thresholds
from covseg.storage import LocalStore

PROOFS, INT8 = "precisions.json", "int8.safetensors"
Precision = Literal["float32", "bfloat16", "int8"]
DICE_LOSS, SPECIFICITY_LOSS = 0.002, 0.01  # at most, of the images as they are


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Loss(_Record):
    """A mean of both runtimes and their paired difference, this one minus the reference, with its 95 % interval."""

    reference: float
    value: float
    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        """``.7094, -0.0001 [-0.0016, +0.0015]``."""
        return f"{self.value:.4f}, {self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


class Agreement(_Record):
    """How a precision answers on one set of images, beside ONNX Runtime in float32.

    Attributes
    ----------
    condition : str
        ``as it is``, or the name of a shift.
    n, n_infected, n_clear : int
        Images; those of COVID-19 with a true infection; those without one.
    mask_dice, mask_dice_least : float
        Dice of both runtimes' infection masks, 1 where both are empty: the mean, and the least.
    refused_otherwise : int
        Images that one of them refuses.
    dice, specificity : Loss
        Infection Dice with the truth on COVID-19 images, a refused image counts 0; share of the images without
        infection whose mask is empty.
    """

    condition: str
    n: int
    n_infected: int
    n_clear: int
    mask_dice: float
    mask_dice_least: float
    refused_otherwise: int
    dice: Loss
    specificity: Loss

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.condition:<10} n {self.n:>4}  mask Dice {self.mask_dice:.4f} (least {self.mask_dice_least:.3f})  "
            f"Dice {self.dice}  specificity {self.specificity}  refused otherwise {self.refused_otherwise}"
        )


class Proof(_Record):
    """What a precision of one model loses; `agreements` begin with the images as they are."""

    precision: Precision
    runtime: str = Field(description="that it was measured with")
    edits: int = Field(description="of the graph; see covseg.model_folder.openvino_graph")
    weights_sha256: str
    graph_sha256: str
    thresholds: Thresholds
    file_sha256: str | None = Field(None, description=f"of {INT8}, for int8")
    data: str
    agreements: tuple[Agreement, ...] = Field(min_length=1)

    @property
    def passed(self) -> bool:
        """Whether Dice and specificity of the images as they are stay within the limits."""
        plain = self.agreements[0]
        return plain.dice.difference >= -DICE_LOSS and plain.specificity.difference >= -SPECIFICITY_LOSS

    def lines(self) -> list[str]:
        """Say it on a screen: a line a condition, and the verdict."""
        head = f"{self.precision} ({self.runtime}) on {self.data}, beside onnx float32:"
        verdict = "passed" if self.passed else f"refused: wanted at least -{DICE_LOSS} and -{SPECIFICITY_LOSS}"
        return [head, *(f"    {one.line()}" for one in self.agreements), f"    {verdict}"]


class Proofs(_Record):
    """The content of ``precisions.json``."""

    proofs: tuple[Proof, ...]


def read_proofs(path: Path) -> tuple[Proof, ...]:
    """Return the proofs in a model folder; none where it has no `PROOFS`.

    Raises
    ------
    ModelRefused
        When the file cannot be believed.
    """
    if not (path / PROOFS).is_file():
        return ()
    try:
        return Proofs.model_validate_json((path / PROOFS).read_bytes()).proofs
    except ValidationError as error:
        raise ModelRefused(f"{path / PROOFS}: {first_fault(error)}; prove the precisions again") from error


def write_proofs(path: Path, proofs: tuple[Proof, ...]) -> None:
    """Write proofs in place of those of the same precisions."""
    known = {proof.precision: proof for proof in (*read_proofs(path), *proofs)}
    document = Proofs(proofs=tuple(known[name] for name in sorted(known)))
    LocalStore(path).write(PROOFS, (document.model_dump_json(indent=1) + "\n").encode())


def check_proof(folder: ModelFolder, precision: Precision, edits: int | None) -> None:
    """Refuse a precision that was not proved for these weights, this graph and these thresholds, or lost too much.

    `edits` are those of the graph that will run; None for a runtime that takes no edited graph, as PyTorch does.

    Raises
    ------
    ModelRefused
        Before the first image.
    """
    advice = f"covseg models prove {folder.path} --data ROOT measures it; --backend onnx needs no proof"
    proof = next((one for one in read_proofs(folder.path) if one.precision == precision), None)
    if proof is None:
        raise ModelRefused(f"{folder.path} has no proof of precision {precision} in its {PROOFS}: {advice}")
    config = folder.config
    now = (config.weights_sha256, config.graph_sha256, config.thresholds, proof.edits if edits is None else edits)
    if (proof.weights_sha256, proof.graph_sha256, proof.thresholds, proof.edits) != now:
        raise ModelRefused(f"the proof of precision {precision} in {folder.path} is of another model: {advice}")
    if not proof.passed:
        plain = proof.agreements[0]
        raise ModelRefused(
            f"precision {precision} of {config.id} loses too much: COVID-19 Dice {plain.dice.difference:+.4f}, "
            f"specificity {plain.specificity.difference:+.4f} on {proof.data}; wanted at least -{DICE_LOSS} and "
            f"-{SPECIFICITY_LOSS}; take another precision, or --backend onnx"
        )
    if precision == "int8":
        read_int8(folder.path, proof)


def read_int8(path: Path, proof: Proof) -> bytes:
    """Return the quantised model, if it is the one that was proved."""
    if not (path / INT8).is_file():
        raise ModelRefused(f"no {INT8} in {path}, though its {PROOFS} names one; pull the model again")
    data = (path / INT8).read_bytes()
    if hashlib.sha256(data).hexdigest() != proof.file_sha256:
        raise ModelRefused(f"{path / INT8} is not the one that was proved; pull the model again, or prove it anew")
    return data
