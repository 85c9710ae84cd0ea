"""What Google Cloud Storage or Azure, or the way to them, answered, as our error tree; never a secret, never a URL."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError

from covseg.errors import StorageDenied, StorageFull, StorageUnreachable, UsageError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_BUCKET = ("ContainerNotFound", "NoSuchBucket", "specified container does not exist", "ContainerBeingDeleted")
_CREDENTIALS = ("token request", "MissingAccount", "credential error", "service account file")
_TAKEN = ("BlobAlreadyExists", "ConditionNotMet", "PreconditionFailed")


class Unanswered(StorageUnreachable):
    """No answer, or none that says anything: to be tried again while there is time."""


@contextlib.contextmanager
def object_errors(url: str, deadline_s: float) -> Iterator[None]:
    """Turn the client's errors into the tree's; a missing key is a FileNotFoundError, a taken one a FileExistsError.

    Their texts hold request URLs, and so a signature that stands in one: nothing of them but status and code goes on.
    """
    try:
        yield
    except (ValueError, InvalidPathError):
        raise UsageError(
            f"{url} holds a key that its client cannot name (an empty part, '.', '..', a control character): rename it"
        ) from None
    except (BaseError, FileNotFoundError) as error:
        raise _translated(error, url, deadline_s) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFull("no space left in the scratch folder: free some, or set TMPDIR, then run again") from None
        raise


def _translated(error: Exception, url: str, deadline_s: float) -> Exception:
    text = str(error)
    status, code = (found[1] if (found := pattern.search(text)) else "" for pattern in (_STATUS, _CODE))
    if any(word in text for word in _NO_BUCKET):
        return StorageUnreachable(f"no such bucket: {url}; check the name, or make it")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(code or "404")
    if isinstance(error, AlreadyExistsError) and code in _TAKEN:
        return FileExistsError(code)
    if any(word in text for word in _CREDENTIALS):
        return StorageDenied(
            f"no usable credentials for {url}: set them as its cloud's tools expect (environment, role)"
        )
    if code == "BlobArchived":
        return StorageDenied(f"an object of {url} lies in the archive tier ({code}): restore it, then run again")
    if "Quota" in code or "LimitExceeded" in code or status == "507":
        return StorageFull(f"{url} is full ({code or status}): free some room or raise the quota, then run again")
    if status in ("401", "403"):
        reason = code or status
        return StorageDenied(
            f"{url} refused our credentials or our right to do this ({reason}): renew or check them, then run again"
        )
    if status:
        return Unanswered(f"{url} answered {status} {code} to every try: wait, then run the same command again")
    return Unanswered(f"no answer from {url} within {deadline_s:g} s: check endpoint and network, then run again")
