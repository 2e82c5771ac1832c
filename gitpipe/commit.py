"""Values that everything else speaks in: names, commits, listings.  Knows nothing of git.

A *repo* is a git branch whose files lie under ``data/``.  A *listing* says which files a commit holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gitpipe.errors import BadData, BadName

Listing: TypeAlias = dict[str, str]
"""Relative POSIX path below ``data/`` -> md5 (32 lower-case hex digits); sorted by path."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
MD5 = re.compile(r"[0-9a-f]{32}\Z")
MD5S = re.compile(r"[0-9a-f]*\Z")
UNSAFE = re.compile(r"(?:\A|[/\0])(?:\.{0,2}|\.git)(?:[/\0]|\Z)", re.IGNORECASE)
"""In paths with NUL between them: an empty part, ``.``, ``..`` or ``.git``."""
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
SPEC_BRANCH = "__spec__"
DEFAULT_BRANCH = "master"


@dataclass(frozen=True, slots=True, order=True)
class CommitRef:
    """One commit of one git branch, as it stands in a ``Provenance:`` trailer: ``branch@sha``."""

    branch: str
    sha: str

    def __str__(self) -> str:
        return f"{self.branch}@{self.sha}"

    @classmethod
    def parse(cls, text: str) -> CommitRef:
        """``training@staging@<sha>`` -> branch ``training@staging``.

        Raises:
            BadData: where the text does not end in ``@<40 or 64 hex>``.
        """
        branch, _, sha = text.strip().rpartition("@")
        if not branch or not SHA.match(sha):
            raise BadData(f"not a commit reference: {text.strip()!r} (expected branch@<sha>)")
        return cls(branch, sha)


def check_name(kind: str, name: str) -> str:
    """Return `name` if it may name a repo, pipeline or input, else raise BadName."""
    if not NAME.match(name):
        raise BadName(f"{kind} name {name!r}: use letters, digits, '_' and '-', and do not begin with '-'")
    return name


def git_branch(repo: str, branch: str = DEFAULT_BRANCH) -> str:
    """The git branch that holds branch `branch` of repo `repo` (``training@staging``; ``master`` is the bare name)."""
    return repo if branch == DEFAULT_BRANCH else f"{repo}@{branch}"


def repo_of(branch: str) -> tuple[str, str]:
    """The inverse of `git_branch`: ``training@staging`` -> ``("training", "staging")``."""
    repo, _, rest = branch.partition("@")
    return repo, rest or DEFAULT_BRANCH


def check_path(path: str) -> str:
    """Return `path` (relative, POSIX) if it is safe to create below a folder.

    Real ``dvc checkout`` wrote ``.git/hooks/…`` from a crafted ``relpath``, so every listing goes through here first.

    Raises:
        BadData: an absolute path, an empty part, ``.``, ``..``, NUL, or ``.git`` in any case.
    """
    if not path or path.startswith("/") or "\0" in path:
        raise BadData(f"unsafe path in a listing: {path!r}")
    for part in path.split("/"):
        if part in ("", ".", "..") or part.lower() == ".git":
            raise BadData(f"unsafe path in a listing: {path!r}")
    return path


def check_listing(listing: Mapping[str, str]) -> Listing:
    """Return `listing` sorted by path, every path and md5 checked; a file that is also a folder is refused.

    Raises:
        BadData: naming the first bad entry.
    """
    out: Listing = {path: listing[path] for path in sorted(listing)}
    if not _looks_safe(out):
        for path, md5 in out.items():
            if not isinstance(md5, str) or not MD5.match(md5):
                raise BadData(f"bad md5 for {path!r} in a listing: {md5!r}")
            check_path(path)
    clash = folder_clash(out)
    if clash:
        raise BadData(f"{clash!r} is both a file and a folder in a listing")
    return out


def _looks_safe(listing: Listing) -> bool:
    """Whether nothing in `listing` calls for a closer look: all entries at once, as there may be 100,000 of them."""
    if not listing:
        return True
    try:
        paths, md5s = "\0".join(listing), "".join(listing.values())
    except TypeError:
        return False
    return (
        set(map(len, listing.values())) == {32}
        and MD5S.match(md5s) is not None
        and paths.count("\0") == len(listing) - 1
        and UNSAFE.search(paths) is None
    )


def files_below(listing: Mapping[str, str], path: str) -> Listing:
    """The files at `path` ("" is all), by their path below it; a single file has the path ""; nothing there is {}."""
    if path in listing:
        return {"": listing[path]}
    inside = f"{path}/" if path else ""
    return {name[len(inside) :]: md5 for name, md5 in listing.items() if name.startswith(inside)}


def folder_clash(listing: Mapping[str, str]) -> str | None:
    """A path that is a file in `listing` and also a folder of another file there, or None."""
    for path in listing:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in listing:
                return parent
            parent = parent.rpartition("/")[0]
    return None
