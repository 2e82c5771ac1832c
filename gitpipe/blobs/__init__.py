"""Where the bytes of data files live: content-addressed blobs, named by md5 as DVC names them.

`BlobStore` is the one interface; `gitpipe.blobs.dvc` is a DVC cache on disk, `gitpipe.blobs.memory` serves unit
tests.  Knows nothing of git.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from gitpipe.commit import Listing


class BlobStore(Protocol):
    """Content-addressed storage of whole files."""

    def has(self, md5: str) -> bool:
        """Whether the blob is here (``<32 hex>`` or ``<32 hex>.dir``)."""

    def size(self, md5: str) -> int | None:
        """Bytes, or None where the blob is not here."""

    def missing(self, md5s: Iterable[str]) -> list[str]:
        """Those of `md5s` that are not here, in order, each once."""

    def read(self, md5: str) -> bytes:
        """The whole blob; BadData (with what to do) where it is missing."""

    def put_bytes(self, data: bytes) -> str:
        """Store `data`; its md5.  Not durable before `sync`."""

    def put_file(self, path: Path, *, move: bool = False) -> tuple[str, int]:
        """Store the file at `path`; (md5, bytes).  With ``move`` it may be taken itself.  Durable after `sync`."""

    def put_listing(self, listing: Listing) -> str:
        """Store a listing as DVC's ``.dir`` object; its ``<md5>.dir``.  Not durable before `sync`."""

    def read_listing(self, oid: str) -> Listing:
        """The listing of a ``<md5>.dir`` object, checked (`gitpipe.commit.check_listing`)."""

    def sync(self) -> None:
        """Make all that was put durable (one ``syncfs``), then protect it (mode 0444): I7, blob before pointer."""

    def link(self, md5: str, target: Path) -> None:
        """Make `target` a read-only file with the blob's bytes: a hard link where possible, else a copy."""

    def fetch(self, md5s: Iterable[str]) -> list[str]:
        """Try to bring missing blobs from the configured remotes; the ones still missing."""
