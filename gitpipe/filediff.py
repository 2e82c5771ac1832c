"""What differs between the files of two places: names and hashes from the listings, lines from ``git diff``.

Only files that differ are looked into, as copies with the names that they have in the repo.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gitpipe import differences
from gitpipe.blobs.dvc import DvcStore
from gitpipe.commit import Listing, files_below
from gitpipe.datarepos import DataRepos
from gitpipe.datatree import read_listing
from gitpipe.errors import BadData, NotFound
from gitpipe.places import Place
from gitpipe.repo import Repo
from gitpipe.scratch import scratch_folder
from gitpipe.views import FileChange

ONE_SIDE = re.compile(r"^((?:\x1b\[[0-9;]*m)*diff --git )[ab]/(.*) [ab]/\2(?=(?:\x1b\[[0-9;]*m)*$)", re.MULTILINE)


class FileDiff:
    """Answers ``diff-file``."""

    def __init__(self, repo: Repo, blobs: DvcStore, data: DataRepos, scratch: Path) -> None:
        """
        Args:
            scratch: a folder for copies, on the file system of the cache if that can be.
        """
        self.repo, self.blobs, self.data, self.scratch = repo, blobs, data, scratch

    def changes(self, new: Sequence[str], old: Sequence[str] = ()) -> list[FileChange]:
        """The files that differ, by path.

        Args:
            new: a place (``training master iris.csv``).
            old: another one; none means the same path in the commit before.

        Raises:
            NotFound: no such repo or commit, or no file at either place.
        """
        here, after = self._at(new)
        if old:
            there, before = self._at(old)
        else:
            there, before = here, self._parent(here)
        ours, theirs = files_below(after, here.path), files_below(before, there.path)
        if not ours and not theirs and (here.path or there.path):
            raise NotFound(f"{here.repo} has no file {here.path or '/'}: see `gitpipe list-file {here.repo}`")
        if "" in ours or "" in theirs:  # one file; a folder on the other side has none of that name
            ours, theirs = ({k: v for k, v in side.items() if k == ""} for side in (ours, theirs))
        base = there.path if "" in theirs and not ours else here.path  # the name of the one file, if only that is there
        changed = differences.files(self.blobs, theirs, ours)
        return [replace(change, path=f"{base}/{change.path}".strip("/")) for change in changed]

    def text(self, changes: Sequence[FileChange], *, colour: bool = False) -> str:
        """`changes` line by line, as ``git diff`` writes it.

        Raises:
            BadData: a blob is neither here nor on a remote.
        """
        text = self._git(changes, f"--color={'always' if colour else 'never'}")
        # Without an index git names the side where a file is on both sides of its first line.
        return ONE_SIDE.sub(r"\1a/\2 b/\2", text)

    def counts(self, changes: Sequence[FileChange]) -> list[tuple[str, int | None, int | None]]:
        """(path, lines added, lines deleted) of each change; None where it is no text.

        Raises:
            BadData: a blob is neither here nor on a remote.
        """
        fields = iter(self._git(changes, "--numstat", "-z").split("\0"))
        found = []
        for numbers in fields:
            if not numbers:
                break
            added, deleted, _ = numbers.split("\t")
            old, new = next(fields), next(fields)
            path = (old if new == "/dev/null" else new).partition("/")[2]
            found.append((path, int(added) if added != "-" else None, int(deleted) if deleted != "-" else None))
        return found

    def _git(self, changes: Sequence[FileChange], *options: str) -> str:
        if not changes:
            return ""
        wanted = [md5 for change in changes for md5 in (change.old, change.new) if md5]
        missing = self.blobs.missing(wanted)
        if missing and (missing := self.blobs.fetch(missing)):
            path = next(c.path for c in changes if missing[0] in (c.old, c.new))
            raise BadData(f"{path} is neither here nor on a remote: `dvc pull` on its branch, or put it again")
        with scratch_folder(self.scratch, "diff-") as folder:
            for side in ("a", "b"):
                (folder / side).mkdir()
            for change in changes:
                self._place(change.old, folder / "a" / change.path)
                self._place(change.new, folder / "b" / change.path)
            return self.repo.git(
                *("-c", "core.quotePath=false", "diff", "--no-index", "--no-prefix", "--no-renames", "--no-ext-diff"),
                *(*options, "a", "b"),
                cwd=folder,
                accept=(0, 1),
            )

    def _place(self, md5: str, path: Path) -> None:
        if not md5:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.hardlink_to(self.blobs.path_of(md5))
        except OSError:  # another file system
            path.write_bytes(self.blobs.read(md5))

    def _at(self, words: Sequence[str]) -> tuple[Place, Listing]:
        place = self.data.locate(words)
        return place, read_listing(self.repo, self.blobs, place.commit) if place.commit else {}

    def _parent(self, place: Place) -> Listing:
        parents = self.repo.commit(place.commit).parents if place.commit else ()
        return read_listing(self.repo, self.blobs, parents[0]) if parents else {}
