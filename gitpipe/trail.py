"""Where a datum stood: which output commits of a pipeline hold it, and which one made it.

Read from the datum indexes of the commits; a segment that several commits share is read once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Set

from gitpipe import datumindex
from gitpipe.blobs import BlobStore
from gitpipe.commit import CommitRef, Listing
from gitpipe.errors import GitpipeError
from gitpipe.journal import Journal
from gitpipe.provenance import read_origin
from gitpipe.repo import Commit, Repo
from gitpipe.views import Making

SHORT = 12


class Trail:
    """The output commits of one pipeline, newest first, and the datums in their indexes."""

    def __init__(self, repo: Repo, blobs: BlobStore, head: str | None) -> None:
        """
        Args:
            head: the newest output commit that counts; None where there is none.
        """
        self.repo, self.blobs = repo, blobs
        self.commits: list[Commit] = list(repo.log([head], "--first-parent")) if head else []
        self._listings: dict[str, Listing] = {}

    def holders(self, digits: str) -> Iterator[tuple[Commit, dict[str, str]]]:
        """For each commit, newest first: id -> index line of the datums there whose ids begin with `digits`.

        Args:
            digits: hex digits.
        """
        wanted = re.compile(rb'^\{"datum":"(%s[0-9a-f]*)".*$' % digits.encode(), re.MULTILINE)
        known: dict[str, dict[str, str]] = {}
        for commit in self.commits:
            standing: dict[str, str] = {}
            for md5 in self._segments(commit):
                if md5 not in known:
                    known[md5] = {m[1].decode(): m[0].decode() for m in wanted.finditer(self._read(md5))}
                for datum, line in known[md5].items():
                    if '"outputs"' in line:
                        standing[datum] = line
                    else:
                        standing.pop(datum, None)
            yield commit, standing

    def maker(self, datum: str) -> Commit | None:
        """The oldest commit that holds a datum: those after it, down to the newest, took its files from there."""
        found = None
        for commit, standing in self.holders(datum):
            if datum in standing:
                found = commit
        return found

    def making(self, datum: str, branch: str, journal: Journal) -> Making | None:
        """Which output commit of `branch` and which job made a datum's files, and how to read what was said then."""
        commit = self.maker(datum)
        if commit is None:
            return None
        job = read_origin(commit.message).job
        # A job that failed and was run again is several, of one id.
        here = job and any(datum in journal.runs(row.seq) for row in journal.jobs("id = ?", [job]))
        log = f"gitpipe logs --job {job[:SHORT]} --datum {datum[:SHORT]}" if here else ""
        return Making(CommitRef(branch, commit.sha), job, log)

    def stood(self, wanted: Set[str], most: int) -> dict[str, Commit]:
        """Datum -> the newest commit whose index names it, of those of `wanted` that there are.

        Args:
            most: so many there can be; the search ends when they are found.
        """
        found: dict[str, Commit] = {}
        seen: set[str] = set()
        for commit in self.commits if most > 0 else ():
            for md5 in self._segments(commit):
                if md5 in seen:
                    continue
                seen.add(md5)
                for line in self._read(md5).decode().splitlines():
                    datum = line[10:74]  # as `datumindex.line_of` writes it
                    if datum in wanted and '"outputs"' in line:
                        found.setdefault(datum, commit)
            if len(found) >= most:
                break
        return found

    def ids(self, commit: str) -> set[str]:
        """The datums that an output commit holds; empty where its index was lost."""
        return set(datumindex.standing(self.repo, self.blobs, commit)[1])

    def _segments(self, commit: Commit) -> list[str]:
        """The md5s of a commit's segments in order; none where they were lost."""
        with contextlib.suppress(GitpipeError):
            entry = self.repo.entry(commit.tree, datumindex.POINTER)
            if entry is not None:
                if entry.sha not in self._listings:
                    self._listings[entry.sha] = datumindex.segments(self.repo, self.blobs, commit.sha)
                listing = self._listings[entry.sha]
                return [listing[name] for name in sorted(listing)]
        return []

    def _read(self, md5: str) -> bytes:
        """A segment; nothing where it is neither here nor on a remote."""
        with contextlib.suppress(GitpipeError):
            if self.blobs.has(md5) or not self.blobs.fetch([md5]):
                return self.blobs.read(md5)
        return b""
