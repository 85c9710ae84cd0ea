"""The address of a DICOMweb service: what is one, and which hosts may be asked.

In: a root as a person types it, and ``COVSEG_DICOMWEB_HOSTS``. Out: the root, or a UsageError. Nothing is connected.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from covseg.errors import UsageError

_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


def checked_root(root: str) -> str:
    """Return the root without a slash at its end.

    Raises
    ------
    UsageError
        For a root that is none, credentials in it, or a host that ``COVSEG_DICOMWEB_HOSTS`` does not list.

    Examples
    --------
    >>> checked_root("https://pacs.example/dicom-web/"), checked_root("http://127.0.0.1:8042/dicom-web")
    ('https://pacs.example/dicom-web', 'http://127.0.0.1:8042/dicom-web')
    """
    try:
        parts = urlsplit(root)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError("this DICOMweb address is no URL: wanted https://host/dicom-web") from None
    if "@" in parts.netloc:
        raise UsageError(
            "credentials in the address: they come from COVSEG_DICOMWEB_TOKEN, or COVSEG_DICOMWEB_USER and _PASSWORD"
        )
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(parts.netloc.rpartition(":")[0] or host):
        raise UsageError(f"{parts.scheme}://{host} is no DICOMweb address: wanted https://host/dicom-web")
    if parts.query or parts.fragment or re.search(r"[^\x21-\x7e]", root):
        raise UsageError("a DICOMweb root has no query, no fragment and no blanks: wanted https://host/dicom-web")
    if parts.scheme == "http" and not _loopback(host):
        raise UsageError(f"http://{host} sends images unencrypted: wanted https, or an address on loopback")
    listed = os.environ.get("COVSEG_DICOMWEB_HOSTS")
    if listed and host not in [name.strip() for name in listed.split(",")]:
        raise UsageError(f"host {host!r} is not among the allowed ones ({listed}): see COVSEG_DICOMWEB_HOSTS")
    return root.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
