"""The datum index that travels with an output commit: which datum made which files, from which input files.

A DVC-tracked folder ``.gitpipe/datums`` of segments, JSON lines each: ``{"datum", "inputs", "outputs"}``, or
``{"datum", "gone": true}`` for one that vanished.  A later segment overrides an earlier one.  A commit adds one segment
for what it changed; segments are merged while the last is at least half as long as the one before, so that the cost
follows the change and not the number of datums.  Deterministic: equal parents and changes give equal bytes (I4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitpipe.blobs import BlobStore
from gitpipe.blobs.pointers import read_pointer, write_pointer
from gitpipe.commit import Listing
from gitpipe.datum import Datum
from gitpipe.errors import GitpipeError
from gitpipe.repo import BLOB, Entry, Repo

FOLDER = ".gitpipe/datums"
POINTER = ".gitpipe/datums.dvc"
IGNORE = ".gitpipe/.gitignore"

Outputs = Sequence[tuple[str, str, int]]
_OUTPUTS = ',"outputs":'
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def line_of(datum_id: str, datum: Datum, outputs: Outputs) -> str:
    """One line of the index, no newline: inputs as (name, branch, path, md5), outputs as (path, md5, size)."""
    inputs = [[i.name, i.commit.branch, path, md5] for i in datum.inputs for path, md5 in i.files]
    record = {"datum": datum_id, "inputs": inputs, "outputs": [list(o) for o in outputs]}
    return _encode(record)


def outputs_of(line: str) -> list[tuple[str, str, int]]:
    """The output files of one line: (path, md5, bytes)."""
    # Keys are sorted and a quote within a name is escaped: what follows the last such key is the outputs alone.
    start = line.rfind(_OUTPUTS)
    outputs = json.loads(line[start + len(_OUTPUTS) : -1]) if start >= 0 else json.loads(line)["outputs"]
    return [(path, md5, size) for path, md5, size in outputs]


def inputs_of(line: str) -> tuple[str, list[tuple[str, str, str, str]]]:
    """(datum id, input files) of one line: each file as (input's name, branch, path, md5)."""
    record: dict[str, Any] = json.loads(line)
    return str(record["datum"]), [(name, branch, path, md5) for name, branch, path, md5 in record["inputs"]]


def maker(blobs: BlobStore, listing: Mapping[str, str], path: str) -> str | None:
    """The line of the datum that made the output `path`, or None; newest segments first, most lines unparsed.

    Args:
        listing: the segments, whose blobs are all here.
    """
    for line in _standing_with(blobs, listing, f'["{_encode(path)[1:-1]}","'):
        if any(path == output for output, _, _ in outputs_of(line)):
            return line
    return None


def users(blobs: BlobStore, listing: Mapping[str, str], branch: str, path: str) -> Iterator[str]:
    """The lines of the datums that had `path` of `branch` as an input file."""
    for line in _standing_with(blobs, listing, f'","{branch}","{_encode(path)[1:-1]}","'):
        if any((branch, path) == (of, name) for _, of, name, _ in inputs_of(line)[1]):
            yield line


def _standing_with(blobs: BlobStore, listing: Mapping[str, str], text: str) -> Iterator[str]:
    """The lines that stand and have `text` in them."""
    newer: set[str] = set()
    for name in sorted(listing, reverse=True):
        found = dict(lines(blobs, listing[name]))
        yield from (line for datum, line in found.items() if text in line and datum not in newer and not _gone(line))
        newer |= found.keys()


def segments(repo: Repo, blobs: BlobStore, commit: str) -> Listing:
    """Segment name -> md5 of an output commit, in order; empty where it has no index.

    Raises:
        BadData: the listing of segments is neither here nor on a remote.
    """
    entry = repo.entry(commit, POINTER)
    if entry is None:
        return {}
    outs = read_pointer(repo.blob(entry.sha).decode("utf-8", "replace"), POINTER)
    if outs and not blobs.has(outs[0].md5):
        blobs.fetch([outs[0].md5])
    return blobs.read_listing(outs[0].md5) if outs else {}


def standing(repo: Repo, blobs: BlobStore, commit: str) -> tuple[Listing, dict[str, str]]:
    """The segments of an output commit and what stands after them.

    Where blobs of the index were lost (a ``dvc gc`` that knew of one branch only), both are empty: the next commit
    begins a new index, which says all that it has to say.
    """
    try:
        listing = segments(repo, blobs, commit)
        missing = blobs.missing(listing.values())
        if missing and blobs.fetch(missing):
            return {}, {}
        return listing, state(blobs, listing)
    except GitpipeError:  # lost, or the remote that has them is out of reach
        return {}, {}


def lines(blobs: BlobStore, md5: str) -> Iterator[tuple[str, str]]:
    """(datum id, line) of one segment."""
    for line in blobs.read(md5).decode().splitlines():
        yield _id(line), line


def state(blobs: BlobStore, listing: Mapping[str, str]) -> dict[str, str]:
    """Datum id -> line of all datums that stand after the last segment."""
    found: dict[str, str] = {}
    for name in sorted(listing):
        for datum, line in lines(blobs, listing[name]):
            if _gone(line):
                found.pop(datum, None)
            else:
                found[datum] = line
    return found


def extend(blobs: BlobStore, before: Mapping[str, str], added: Mapping[str, str], gone: Sequence[str]) -> Listing:
    """The segments after one more commit: `added` (id -> line) and `gone` ids, merged geometrically; blobs unsynced."""
    names = sorted(before)
    if not added and not gone:
        return {name: before[name] for name in names}
    new = dict(added)
    new.update({d: json.dumps({"datum": d, "gone": True}, separators=(",", ":"), sort_keys=True) for d in gone})
    kept = [before[name] for name in names]
    while kept:
        last = dict(lines(blobs, kept[-1]))
        if len(last) > 2 * len(new):
            break
        new = {**last, **new}
        kept.pop()
    if not kept:
        # At the bottom nothing is left that a vanished datum could override.
        new = {d: line for d, line in new.items() if not _gone(line)}
    text = "".join(f"{new[d]}\n" for d in sorted(new))
    if text:
        kept.append(blobs.put_bytes(text.encode()))
    return {f"{n:04}.jsonl": md5 for n, md5 in enumerate(kept)}


def entries(repo: Repo, blobs: BlobStore, listing: Listing) -> dict[str, Entry]:
    """The git entries that carry the index in an output commit's tree."""
    oid = blobs.put_listing(listing)
    size = sum(blobs.size(md5) or 0 for md5 in listing.values())
    pointer = write_pointer("datums", oid, size, len(listing))
    return {
        POINTER: Entry(BLOB, repo.write_blob(pointer)),
        IGNORE: Entry(BLOB, repo.write_blob(b"/datums\n")),
    }


def _id(line: str) -> str:
    # Keys are sorted, so "datum" stands first: no need to parse the whole line.
    if line.startswith('{"datum":"'):
        return line[10:74]
    record: dict[str, Any] = json.loads(line)
    return str(record["datum"])


def _gone(line: str) -> bool:
    return len(line) < 100 and '"gone":true' in line
