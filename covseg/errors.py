"""The whole error tree, and the closed sets of reasons, states and stages that a refusal names.

    CovsegError                   exit  what it stops
    |-- RadiographRefused          -    one image; becomes a refusal row, never ends a run
    |-- InternalFailure            1    the flow: an error that nobody foresaw, with its own words left out
    |-- NotPublished               1    the snapshot: its sum does not close, or nothing in it can be trusted
    |-- TrainingFailed             1    the training: loss or gradient not finite; the last state is kept
    |-- UsageError                 2    the command: a flag, a path, a config value
    |   |-- ModelRefused           2    a model folder that cannot be trusted or understood
    |   |-- SplitAbsent            2    a labelled set that has other splits than the one asked for
    |   `-- SetRefused             2    a labelled set that is not whole; names an image
    |       `-- BadMask            2    one truth mask; its image is left out and counted
    |-- NotAccepted                3    nothing: it is published, with nothing scored or more refusals than allowed
    |   `-- ImagesLost             3    the snapshot: too many planned images are missing or changed
    |-- EnvironmentFailed          4    the run: storage, network, machine or cluster gave way
    |   |-- ModelWorkerLost        4    one shard's attempt, which is retried
    |   |-- StorageUnreachable     4
    |   |-- StorageDenied          4
    |   `-- StorageFull            4
    `-- Stopped                  130    the training, on request; its state is saved

A message says what was found, what was wanted and what to do; it names a key or an id, never a
patient field. Every error can be pickled, and `CovsegError.with_message` gives it other words; so a
subclass may take any arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self, TypeVar


class Stage(StrEnum):
    """Where in the pipeline an image was refused; the table's column ``stage``."""

    FETCH = "fetch"
    READ = "read"
    PREPROCESS = "preprocess"
    SEGMENT = "segment"
    INPUT_FILTER = "input_filter"
    POSTPROCESS = "postprocess"
    SEVERITY = "severity"
    ENCODE = "encode"
    WORKER = "worker"


class Status(StrEnum):
    """Terminal state of one planned input."""

    SCORED = "scored"
    OUT_OF_SCOPE = "out_of_scope"
    QUARANTINED = "quarantined"
    CHANGED = "changed"
    MISSING = "missing"


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
    ACCESS_DENIED = "access_denied"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    NONFINITE_LOGITS = "nonfinite_logits"
    WORKER_KILLED = "worker_killed"
    CHANGED = "changed"
    MISSING = "missing"

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

    def with_message(self, message: str) -> Self:
        """Return an error of the same class and attributes that says `message`."""
        return _rebuild(type(self), message, vars(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), vars(self))


_Kind = TypeVar("_Kind", bound=CovsegError)


def _rebuild(kind: type[_Kind], message: str, attributes: dict[str, object]) -> _Kind:
    """Make an error without calling its ``__init__``, whose arguments may be others than its message."""
    error = kind.__new__(kind, message)
    vars(error).update(attributes)
    return error


class RadiographRefused(CovsegError):
    """One image gets no mask.

    Parameters
    ----------
    reason : Reason
        From the closed set.
    stage : Stage
        The stage that refused.
    detail : str
        What was found and what was wanted; no patient field.
    """

    def __init__(self, reason: Reason, stage: Stage, detail: str) -> None:
        super().__init__(f"{reason.value} ({stage}): {detail}")
        self.reason, self.stage, self.detail = reason, stage, detail


def unforeseen(error: Exception, stage: Stage) -> RadiographRefused:
    """Return the refusal of an image on which a step failed as nobody foresaw: it must not hold up all the others.

    The error's own words may quote the image; its class is enough, the rest is chained.
    """
    reason = Reason.TOO_LARGE if isinstance(error, MemoryError) else Reason.CORRUPT
    refusal = RadiographRefused(reason, stage, f"{stage} failed: {type(error).__name__}")
    refusal.__cause__ = error
    return refusal


def without_names(error: Exception) -> CovsegError:
    """Return what of an error may leave the machines that see the images: its class, and words that name none."""
    match error:
        case SetRefused():
            return UsageError("the labelled set is not whole: covseg data check ROOT names the image")
        case ImagesLost():
            return NotAccepted(
                f"{sum(error.folders.values())} planned images were missing or changed when they were read, more than "
                "max_missing; nothing is published: covseg score names their folders"
            )
        case CovsegError():
            return error.with_message(str(error))
    return InternalFailure(f"internal error: {type(error).__name__}; run the command with --debug to see it")


def named(kind: str, message: str) -> CovsegError:
    """Return the error of a class of this file, by its name, as another process told of it."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, CovsegError):
        return _rebuild(found, message, {})
    return InternalFailure(message)


class InternalFailure(CovsegError):
    """An error that nobody foresaw; its own message may hold a source key and is left out."""


class NotPublished(CovsegError):
    """A snapshot stays unpublished: shards are missing, the sum does not close, or the model answered nonsense."""


class TrainingFailed(CovsegError):
    """The loss or its gradient is not finite; the last saved state is kept."""


class UsageError(CovsegError):
    """The command cannot start with these flags, paths or settings."""

    exit_code = 2


class ModelRefused(UsageError):
    """A model folder is incomplete, damaged or of another architecture."""


class SplitAbsent(UsageError):
    """A labelled set does not have this split."""


class SetRefused(UsageError):
    """A labelled set is not whole; the message may name an image."""


class BadMask(SetRefused):
    """A truth mask that cannot be believed.

    Parameters
    ----------
    reason : str
        ``missing_infection_mask``, ``mask_unreadable``, ``mask_size`` or ``mask_not_binary``.
    detail : str
        With the file's name.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class NotAccepted(CovsegError):
    """Published, but nothing was scored, or more images were quarantined or out of scope than allowed."""

    exit_code = 3


class ImagesLost(NotAccepted):
    """Planned images were missing or changed when they were read; their shards are not committed.

    Parameters
    ----------
    folders : mapping of str to int
        How many, by the folder of their keys.
    """

    def __init__(self, message: str, folders: Mapping[str, int]) -> None:
        super().__init__(message)
        self.folders = dict(folders)


class EnvironmentFailed(CovsegError):
    """Storage, network, machine or cluster gave way."""

    exit_code = 4


class ModelWorkerLost(EnvironmentFailed):
    """The model worker died under a batch."""


class StorageUnreachable(EnvironmentFailed):
    """No answer from the store in time, or no such bucket."""


class StorageDenied(EnvironmentFailed):
    """The store refused our credentials or our right to do this."""


class StorageFull(EnvironmentFailed):
    """The store has no room left."""


class Stopped(CovsegError):
    """The training was asked to stop; its state is saved."""

    exit_code = 130
