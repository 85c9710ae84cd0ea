"""The error tree, and the closed set of reasons for which an image gets no mask.

    CovsegError                  exit  what it stops
    |-- RadiographRefused         -    one image; becomes a refusal row, never ends a run
    |-- UsageError                2    the command: a flag, a path, a config value
    |   `-- ModelRefused          2    a model folder that cannot be trusted or understood
    |-- NotPublished              1    the snapshot: its sum does not close, or nothing in it can be trusted
    |-- TrainingFailed            1    the training: loss or gradient not finite; the last state is kept
    |-- EnvironmentFailed         4    the run: the ground gave way
    |   |-- StorageUnreachable    4
    |   |-- StorageDenied         4
    |   `-- StorageFull           4
    `-- Stopped                 130    the training, on request; its state is saved

A message says what was found, what was wanted and what to do; it names a key or an id, never a
patient field.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Terminal state of one planned input."""

    SCORED = "scored"
    OUT_OF_SCOPE = "out_of_scope"
    QUARANTINED = "quarantined"
    CHANGED = "changed"
    MISSING = "missing"
    FAILED_TRANSIENT = "failed_transient"


class Reason(StrEnum):
    """Why an input got no mask."""

    NOT_AN_IMAGE = "not_an_image"
    NOT_RADIOGRAPH = "not_radiograph"
    NOT_FRONTAL_CHEST = "not_frontal_chest"
    MULTI_FRAME = "multi_frame"
    EMPTY = "empty"
    UNREADABLE_FORMAT = "unreadable_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    MISSING_DECODER = "missing_decoder"
    UNSUPPORTED_MODE = "unsupported_mode"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    NO_CONTRAST = "no_contrast"
    BURNED_IN_ANNOTATION = "burned_in_annotation"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    NONFINITE_LOGITS = "nonfinite_logits"
    WORKER_KILLED = "worker_killed"
    CHANGED = "changed"
    MISSING = "missing"
    FAILED_TRANSIENT = "failed_transient"

    @property
    def status(self) -> Status:
        """The status that this reason implies."""
        if self in _OUT_OF_SCOPE:
            return Status.OUT_OF_SCOPE
        return Status(self.value) if self.value in set(Status) else Status.QUARANTINED


_OUT_OF_SCOPE = {Reason.NOT_AN_IMAGE, Reason.NOT_RADIOGRAPH, Reason.NOT_FRONTAL_CHEST, Reason.MULTI_FRAME}


class CovsegError(Exception):
    """Root of every error that covseg raises on purpose."""

    exit_code = 1


class RadiographRefused(CovsegError):
    """One image gets no mask.

    Parameters
    ----------
    reason : Reason
        From the closed set.
    stage : str
        The stage that refused: fetch, read, prepare, segment, input filter, measure, encode.
    detail : str
        What was found and what was wanted; no patient field.
    """

    def __init__(self, reason: Reason, stage: str, detail: str) -> None:
        super().__init__(f"{reason.value} ({stage}): {detail}")
        self.reason, self.stage, self.detail = reason, stage, detail


def unforeseen(error: Exception, stage: str) -> RadiographRefused:
    """Return the refusal of an image on which a step failed as nobody foresaw: it must not hold up all the others.

    The error's own words may quote the image; its class is enough, the rest is chained.
    """
    reason = Reason.TOO_LARGE if isinstance(error, MemoryError) else Reason.CORRUPT
    refusal = RadiographRefused(reason, stage, f"{stage} failed: {type(error).__name__}")
    refusal.__cause__ = error
    return refusal


class UsageError(CovsegError):
    """The command cannot start as it was asked."""

    exit_code = 2


class SetRefused(UsageError):
    """A labelled set is not whole; the message may name an image."""


class ModelRefused(UsageError):
    """A model folder is incomplete, damaged or of another architecture."""


class NotPublished(CovsegError):
    """A snapshot stays unpublished: shards are missing, the sum does not close, or the model answered nonsense."""


class EnvironmentFailed(CovsegError):
    """The ground gave way: storage, network or disk."""

    exit_code = 4


class StorageUnreachable(EnvironmentFailed):
    """No answer from the store in time, or no such bucket."""


class StorageDenied(EnvironmentFailed):
    """The store refused our credentials or our right to do this."""


class StorageFull(EnvironmentFailed):
    """The store has no room left."""


class TrainingFailed(CovsegError):
    """The loss or its gradient is not finite; the last saved state is kept."""


class Stopped(CovsegError):
    """The training was asked to stop; its state is saved."""

    exit_code = 130
