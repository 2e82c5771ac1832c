"""Blobs in a dict, for unit tests: the same contract as `gitpipe.blobs.dvc`, and nothing lasts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from gitpipe.blobs.listing import decode_listing, encode_listing, md5_hex
from gitpipe.commit import Listing
from gitpipe.errors import BadData


class MemoryStore:
    """A `BlobStore` in memory.  ``remote`` stands for a remote: `fetch` takes from it.

    Attributes:
        synced: the blobs that `sync` made durable, for tests of the order "blob before pointer".
    """

    def __init__(self, remote: MemoryStore | None = None) -> None:
        self.remote = remote
        self.synced: set[str] = set()
        self._blobs: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def has(self, md5: str) -> bool:
        return md5 in self._blobs

    def size(self, md5: str) -> int | None:
        data = self._blobs.get(md5)
        return None if data is None else len(data)

    def missing(self, md5s: Iterable[str]) -> list[str]:
        return [md5 for md5 in dict.fromkeys(md5s) if md5 not in self._blobs]

    def read(self, md5: str) -> bytes:
        try:
            return self._blobs[md5]
        except KeyError:
            raise BadData(f"blob {md5} is not in the cache; `dvc fetch` brings it") from None

    def put_bytes(self, data: bytes) -> str:
        md5 = md5_hex(data)
        with self._lock:
            self._blobs[md5] = data
        return md5

    def put_file(self, path: Path, *, move: bool = False) -> tuple[str, int]:
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise BadData(f"cannot read {path}: {exc.strerror}") from exc
        if move:
            path.unlink()
        return self.put_bytes(data), len(data)

    def put_listing(self, listing: Listing) -> str:
        oid, data = encode_listing(listing)
        with self._lock:
            self._blobs[oid] = data
        return oid

    def read_listing(self, oid: str) -> Listing:
        return decode_listing(oid, self.read(oid))

    def sync(self) -> None:
        with self._lock:
            self.synced.update(self._blobs)

    def adopt(self, md5s: Iterable[str]) -> None:
        for md5 in md5s:
            self.read(md5)

    def verify(self, md5: str) -> bool:
        return md5_hex(self.read(md5)) == md5.removesuffix(".dir")

    def link(self, md5: str, target: Path) -> None:
        data = self.read(md5)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        target.chmod(0o444)

    def place(self, md5: str, target: str) -> os.stat_result:
        path = Path(target)
        path.write_bytes(self.read(md5))
        return path.lstat()

    def links_files(self) -> bool:
        return False

    def md5_of_link(self, destination: str) -> str | None:
        return None

    def fetch(self, md5s: Iterable[str]) -> list[str]:
        for md5 in self.missing(md5s):
            if self.remote is not None and self.remote.has(md5):
                self._blobs[md5] = self.remote.read(md5)
        return self.missing(md5s)
