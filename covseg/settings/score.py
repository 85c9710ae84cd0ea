"""What one bulk scoring is asked to do, and what decides its numbers.

`ScoreSettings` is the one list of settings: the flags of ``covseg score`` and the parameters of the flow `score` are
made from its fields. `ScoringConfig` is resolved once, before the first image; its digest stands in every row.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from covseg.errors import Reason
from covseg.settings.dicom import DicomSettings

SHARD_SIZE = 256  # images a shard, unless a run says otherwise
FilterMode = Literal["refuse", "flag", "off"]


class ScoreSettings(BaseModel):
    """Settings of one bulk scoring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1,
        description="Folder, s3:// gs:// or az://bucket/prefix, or dicomweb+https://host/dicom-web?Modality=DX,CR with "
        "the images.",
    )
    dest: str = Field(
        min_length=1,
        description="Folder, or s3:// gs:// or az://bucket/prefix for masks, tables, snapshots and report.",
    )
    model: str = Field(
        "default", min_length=1, description="'default', 'benchmark', a model folder, or [REGISTRY/]NAME@TAG."
    )
    include: str = Field("*", min_length=1, description="Only keys that match this glob; * also crosses slashes.")
    exclude: str = Field("", description="Not the keys that match this glob.")
    limit: int | None = Field(None, ge=1, description="Only the first N matching keys.")
    retry_refused: str = Field(
        "",
        description="List nothing; go through the images again that were refused for this reason, such as empty.",
    )
    input_filter: FilterMode = Field(
        "refuse",
        description="What is no upright frontal chest radiograph: refuse it, score and flag it, or do not ask.",
    )
    masks: Literal["none", "png", "packed"] = Field("png", description="Keep label maps: none, a PNG each, or packed.")
    overlay: Literal["none", "report"] = Field(
        "none", description="Keep overlays, JPEG of at most 1024 pixels a side: of the images that the report shows."
    )
    probability: bool = Field(False, description="Keep the infection probability as an 8-bit PNG per image.")
    dicom: str = Field("", description="Keep DICOM objects of each DICOM source: seg,sr,sc or some of them.")
    link_patient: bool = Field(False, description="Copy the source's patient and study into the DICOM objects.")
    columns: str = Field("", description="Columns from the DICOM header: StudyDate,PatientSex,patient_pseudonym,...")
    max_failed: float = Field(0.05, ge=0, le=1, description="Share of quarantined images above which exit is 3.")
    max_out_of_scope: float = Field(1.0, ge=0, le=1, description="Share of out-of-scope images above which exit is 3.")
    max_missing: float = Field(
        0.01, ge=0, le=1, description="Share of new images missing or changed at reading above which exit is 3."
    )
    hide_keys: bool = Field(False, description="Leave the source keys out of the published table.")
    title: str = Field("", description="Title of the report.")
    source_label: str = Field("", description="What the report calls the source, whose own name it never shows.")
    commits: str | None = Field(None, description="Where create-only records go, if DEST's store has no such writes.")
    backend: Literal["onnx", "torch", "cuda", "openvino", "auto"] = Field(
        "onnx",
        description="What runs the model; torch uses GPUs where there are any, cuda wants one; auto takes openvino in "
        "int8, else bfloat16, where the processor has it and the model folder a passed proof, else onnx.",
    )
    precision: Literal["float32", "bfloat16", "int8"] = Field(
        "float32", description="Of backend openvino or cuda; each but cuda's float32 wants a passed proof."
    )
    batch: int = Field(4, ge=1, le=256, description="Images a forward pass; 4 suits a CPU, 32 a GPU.")
    shard_size: int = Field(SHARD_SIZE, ge=1, le=10_000, description="Images a shard, the unit that is retried.")
    gpu_share: float = Field(1.0, gt=0, le=1, description="Of a GPU, for each model worker; .5 puts two on one.")
    workers: int | None = Field(None, ge=1, description="Decode workers, and model workers on CPU; default: the cores.")
    timeout_s: float = Field(1800, gt=0, description="Seconds without a finished shard after which the run ends.")

    @field_validator("retry_refused")
    @classmethod
    def _reason(cls, reason: str) -> str:
        if reason and reason not in set(Reason):
            raise ValueError(f"wanted a reason of a refusal: {', '.join(Reason)}")
        return reason

    def dicom_settings(self) -> DicomSettings:
        """Return what the settings about DICOM say together; `UsageError` where they cannot be."""
        return DicomSettings.parse(
            self.dicom, link_patient=self.link_patient, hide_keys=self.hide_keys, columns=self.columns
        )


class ScoringConfig(BaseModel):
    """What is computed for one image; resolved once, before the first image."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    model_id: str
    weights_sha256: str
    model_settings: dict[str, Any] = Field(
        alias="card", description="thresholds, limits and intervals of the model's JSON"
    )
    backend: str = Field(description="name, version, device kind and precision")
    batch: int = Field(description="images a forward pass")
    input_filter: FilterMode = Field(
        "refuse",
        exclude_if=lambda mode: mode == "refuse",
        description="what becomes of an image above the filter's limit; the default is not in the digest",
    )
    code_version: str = Field(description="of covseg")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
