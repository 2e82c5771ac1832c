"""What an output commit holds, as the next job of its pipeline takes it over: datum index, files, bytes."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from gitpipe import datumindex
from gitpipe.blobs import BlobStore
from gitpipe.blobs.pointers import read_pointer
from gitpipe.commit import Listing
from gitpipe.datatree import POINTER, data_key, read_listing
from gitpipe.errors import GitpipeError
from gitpipe.provenance import IDENTITY, read_origin
from gitpipe.repo import Repo


@dataclass
class Standing:
    """The state of an output branch.

    Attributes:
        segments: the datum index, name -> md5.
        lines: datum id -> index line, of every datum that stands.
        whole: `files` is what the lines' datums made, nothing more and nothing less, and all of it is here.
        files: the listing, where `whole`.
        size: the bytes of `files`.
    """

    segments: Listing = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    files: Listing = field(default_factory=dict)
    size: int = 0

    def without(self, kept: Container[str]) -> tuple[Listing, int]:
        """(listing, bytes) of what the datums in `kept` made."""
        files, size = dict(self.files), self.size
        for datum, line in self.lines.items():
            if datum not in kept:
                for path, _, count in datumindex.outputs_of(line):
                    if files.pop(path, None) is not None:
                        size -= count
        return files, size


def read_standing(repo: Repo, blobs: BlobStore, commit: str | None, pipeline: str) -> Standing:
    """The `Standing` of an output commit; an empty one where there is none.

    A commit that a person made or changed is never `whole`: its files need not be what its index says.
    """
    if commit is None:
        return Standing()
    segments, lines = datumindex.standing(repo, blobs, commit)
    found = Standing(segments, lines)
    made = repo.commit(commit)
    if not lines or made.committer != IDENTITY or read_origin(made.message).pipeline != pipeline:
        return found
    try:
        key = data_key(repo, commit)
        outs = read_pointer(repo.blob(key.pointer).decode("utf-8", "replace"), POINTER) if key.pointer else []
        files = read_listing(repo, blobs, commit)
        lost = blobs.missing(files.values())
        if len(outs) != 1 or outs[0].size is None or key.folder or (lost and blobs.fetch(lost)):
            return found
    except GitpipeError:
        return found  # lost: what the datums made is looked for one by one
    found.whole, found.files, found.size = True, files, outs[0].size
    return found
