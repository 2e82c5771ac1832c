"""A listing as DVC's ``.dir`` object, and back.  Knows the format and nothing about where objects lie.

The object is ``json.dumps(entries, sort_keys=True)`` with entries ``{"md5", "relpath"}`` sorted by relpath; its name
is the md5 of these bytes plus ``.dir``.
"""

from __future__ import annotations

import hashlib
import json

from gitpipe.commit import Listing, check_listing
from gitpipe.errors import BadData

DIR = ".dir"


def md5_hex(data: bytes) -> str:
    """The md5 of `data`, 32 lower-case hex digits (content addressing, not security)."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def encode_listing(listing: Listing) -> tuple[str, bytes]:
    """(``<md5>.dir``, bytes) of `listing`, byte for byte what DVC writes.

    Raises:
        BadData: an unsafe path or a malformed md5.
    """
    checked = check_listing(listing)
    data = json.dumps([{"md5": md5, "relpath": path} for path, md5 in checked.items()]).encode()
    return md5_hex(data) + DIR, data


def decode_listing(oid: str, data: bytes) -> Listing:
    """The listing in the ``.dir`` object `oid`, checked.

    Raises:
        BadData: bytes that do not hash to `oid`, are no listing, name a path twice, or name an unsafe path.
    """
    if md5_hex(data) + DIR != oid:
        raise BadData(
            f"listing {oid} is damaged: its bytes have another md5; delete it from the cache and fetch it again"
        )
    try:
        entries = json.loads(data)
        if not isinstance(entries, list):
            raise TypeError
        listing = {entry["relpath"]: entry["md5"] for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadData(f"listing {oid} is malformed: expected a JSON list of md5 and relpath") from None
    if len(listing) != len(entries):
        raise BadData(f"listing {oid} names a path twice")
    if not all(isinstance(path, str) for path in listing):
        raise BadData(f"listing {oid} is malformed: a relpath is not text")
    return check_listing(listing)
