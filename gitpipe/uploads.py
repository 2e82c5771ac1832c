"""Blobs go before commits: which DVC-tracked files pushed commits name, and bringing these to the DVC remote.

Knows git and the blob cache; not which hook asks.  What the other side already has of the history is taken to have its
blobs too, as git-lfs takes it, so that the cost follows what is pushed and not the length of the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gitpipe.blobs.dvc import DvcStore
from gitpipe.blobs.listing import DIR
from gitpipe.blobs.pointers import Out, read_pointer
from gitpipe.errors import BadData
from gitpipe.repo import Repo

# Where gitpipe reads data from.  What else DVC tracks in a repository is for DVC to push (`dvc install`).
POINTERS = (":(top)data.dvc", ":(top,glob)data/**/*.dvc", ":(top,glob).gitpipe/*.dvc")


@dataclass(frozen=True, slots=True)
class PushedRef:
    """One ref that is about to be pushed.

    Attributes:
        sha: the commit that it is to point to; all zeros, or "", where it is deleted.
        old: the commit that the other side has there, as git says so; all zeros, or "", where the ref is new.
        name: how messages call it (``refs/heads/training``).
    """

    sha: str
    old: str = ""
    name: str = ""


def push_blobs(repo: Repo, blobs: DvcStore, refs: Sequence[PushedRef], remote: str = "") -> int:
    """Bring all that the pushed commits track with DVC to the DVC remote; how many blobs that lacked.

    Args:
        remote: git's name of the remote; commits that its remote-tracking branches hold are left out.

    Raises:
        GitpipeError: the DVC remote could not be reached, or a blob is neither here nor there; the push is to fail.
    """
    if not blobs.push_remote():
        return 0
    wanted: dict[str, None] = {}
    legacy: set[str] = set()
    for pointer, where in _pointers(repo, refs, remote).items():
        for out in _outs(repo, pointer, where):
            wanted.update(dict.fromkeys(_whole(blobs, out)))
            if out.legacy:
                legacy.update(_whole(blobs, out))
    try:
        return blobs.push(wanted, legacy)
    except BadData as error:
        raise BadData(f"{error}: push from where it is, or take it out of the history") from error


def _pointers(repo: Repo, refs: Sequence[PushedRef], remote: str) -> dict[str, str]:
    """The pointers that the pushed commits brought in: git's id of the text -> path."""
    new = [ref.sha for ref in refs if ref.sha.strip("0")]
    if not new:
        return {}
    old = _here(repo, [ref.old for ref in refs if ref.old.strip("0")])
    known = [*old, *([f"--remotes={remote}"] if remote else [])]
    shown = ("--raw", "-z", "--format=", "--no-abbrev", "--no-renames", "--root", "--diff-merges=separate")
    listed = repo.git("log", *shown, "--full-history", *new, *(["--not", *known] if known else []), "--", *POINTERS)
    return dict(_raw(listed))


def _raw(listed: str) -> Iterator[tuple[str, str]]:
    """(new object, path) of each file in ``git log --raw -z`` that is there afterwards."""
    words = iter(listed.split("\0"))
    for word in words:
        if word.lstrip("\n").startswith(":"):
            _, mode, _, sha, _ = word.lstrip("\n").split(" ")
            path = next(words, "")
            if mode.startswith("100") and sha.strip("0"):
                yield sha, path


def _here(repo: Repo, shas: Sequence[str]) -> list[str]:
    """Those that are in this repository: of what somebody else pushed meanwhile git knows the name only."""
    if not shas:
        return []
    stdin = "".join(f"{sha}\n" for sha in shas).encode()
    said = repo.git("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=stdin)
    return [line.split()[0] for line in said.splitlines() if line.endswith((" commit", " tag"))]


def _outs(repo: Repo, sha: str, path: str) -> list[Out]:
    """What one pointer tracks.  A malformed one is no reason to keep a commit back that git itself would push."""
    try:
        return read_pointer(repo.blob(sha), path)
    except BadData:
        return []


def _whole(blobs: DvcStore, out: Out) -> list[str]:
    """The blob of `out`, and those that it lists if it is a folder.

    A listing that is not here can only be on the remote; what it lists went there before it.
    """
    if not out.md5.endswith(DIR) or not blobs.has(out.md5):
        return [out.md5]
    return [out.md5, *blobs.read_listing(out.md5).values()]
