"""Provenance down to the file: which datum made it, from which files, and what was made of those in turn.

Read from the datum indexes that travel with the output commits, so it holds in any clone, whoever ran the jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gitpipe import datumindex
from gitpipe.blobs.dvc import DvcStore
from gitpipe.commit import CommitRef, files_below
from gitpipe.datarepos import DataRepos
from gitpipe.datatree import read_listing
from gitpipe.errors import BadData, GitpipeError, NotFound
from gitpipe.history import History, Use
from gitpipe.journal import Journal
from gitpipe.places import Place
from gitpipe.provenance import made_for, read_origin
from gitpipe.repo import Repo
from gitpipe.trail import Trail
from gitpipe.views import DatumFile, FileDetails, FileLineage, FileMaking


class FileHistory:
    """Answers ``log --provenance REPO -- PATH``, the same downward, and ``inspect-file``."""

    def __init__(self, repo: Repo, blobs: DvcStore, data: DataRepos, history: History, journal: Journal) -> None:
        self.repo, self.blobs, self.data, self.history, self.journal = repo, blobs, data, history, journal
        self._found: dict[tuple[str, str], FileLineage] = {}

    def lineage(self, words: Sequence[str], descendants: bool = False) -> Iterator[FileLineage]:
        """What a file was made from, or what was made from it; a folder stands for each file in it.

        Args:
            words: a place with a path.  A repo without a commit means each commit that made or changed the file, newest
                first; downward its newest commit.

        Raises:
            NotFound: no such repo, commit or file.
            BadData: the datum index of a commit is neither here nor on a remote.
        """
        place = self.data.locate(words)
        if place.commit is None:
            raise NotFound(f"{place.repo} has no commit yet")
        if descendants:
            yield from self._descendants(place)
            return
        trail = Trail(self.repo, self.blobs, CommitRef(place.branch, place.commit))
        commits = [place.commit]
        if place.at_head:
            commits = [c.sha for c in self.repo.log([place.commit], "--first-parent")]
        before: list[FileLineage] | None = None  # of the commit that is newer by one
        shown = False
        for sha in commits:
            now = [self._up(CommitRef(place.branch, sha), path) for path in self._paths(place, sha)]
            # A file that stays as it is says nothing new; so each is shown at the oldest commit that has it so.
            for entry in before or []:
                if not any(_same(entry, other) for other in now):
                    shown = True
                    yield self._with_making(entry, trail)
            before = now
        for entry in before or []:
            shown = True
            yield self._with_making(entry, trail)
        if not shown:
            raise NotFound(f"{place.repo} has no file {place.path}: see `gitpipe list-file {place.repo}`")

    def inspect(self, words: Sequence[str]) -> FileDetails:
        """One file or folder in detail; of a file that a pipeline made also the datum, its input files and the log."""
        details = self.data.inspect_file(words)
        place = self.data.locate(words)
        if not details.md5 or place.open or place.commit is None:
            return details
        try:
            entry = self._up(CommitRef(place.branch, place.commit), place.path)
        except GitpipeError:  # what its commit says of it was lost; what the file is can be told all the same
            return details
        if not entry.datum:
            return details
        entry = self._with_making(entry, Trail(self.repo, self.blobs, CommitRef(place.branch, place.commit)))
        inputs = tuple(DatumFile(c.commit, c.path, self.blobs.size(c.md5), c.md5) for c in entry.children)
        return replace(details, making=FileMaking(entry.datum, entry.pipeline, inputs, entry.making))

    def _with_making(self, entry: FileLineage, trail: Trail) -> FileLineage:
        if not entry.datum:
            return entry
        return replace(entry, making=trail.making(entry.datum, self.journal))

    def _paths(self, place: Place, sha: str) -> list[str]:
        listing = read_listing(self.repo, self.blobs, sha)
        return [f"{place.path}/{path}".strip("/") for path in files_below(listing, place.path)]

    # -- upward ------------------------------------------------------------------------------------------------------

    def _up(self, ref: CommitRef, path: str) -> FileLineage:
        found = self._found.get((ref.sha, path))
        if found is None:
            found = self._found[ref.sha, path] = self._look(ref, path)
        return found

    def _look(self, ref: CommitRef, path: str) -> FileLineage:
        commit = self.repo.commit(ref.sha)
        origin = read_origin(commit.message)
        md5 = read_listing(self.repo, self.blobs, ref.sha).get(path, "")
        if not made_for(ref.branch, origin):
            return FileLineage(ref, path, md5, commit.subject)
        segments = self._segments(ref)
        line = datumindex.maker(self.blobs, segments, path)
        if line is None:
            return FileLineage(ref, path, md5, commit.subject)
        above = {each.branch: each for each in origin.provenance}
        datum, inputs = datumindex.inputs_of(line)
        children = tuple(self._up(above[branch], name) for _, branch, name, _ in inputs if branch in above)
        return FileLineage(ref, path, md5, commit.subject, datum, f"{origin.pipeline}@{origin.version}", children)

    def _segments(self, ref: CommitRef) -> dict[str, str]:
        segments = datumindex.segments(self.repo, self.blobs, ref.sha)
        missing = self.blobs.missing(segments.values())
        if missing and self.blobs.fetch(missing):
            raise BadData(f"the datum index of {ref.branch}@{ref.sha[:12]} is not here: `dvc fetch` on {ref.branch}")
        return segments

    # -- downward ----------------------------------------------------------------------------------------------------

    def _descendants(self, place: Place) -> Iterator[FileLineage]:
        assert place.commit is not None
        paths = self._paths(place, place.commit)
        if not paths:
            raise NotFound(f"{place.repo} has no file {place.path}: see `gitpipe list-file {place.repo}`")
        users = self.history.users(place.commit)
        for path in paths:
            yield self._down(CommitRef(place.branch, place.commit), path, users)

    def _down(self, ref: CommitRef, path: str, users: dict[str, list[Use]]) -> FileLineage:
        commit = self.repo.commit(ref.sha)
        md5 = read_listing(self.repo, self.blobs, ref.sha).get(path, "")
        below = []
        for use in users.get(ref.sha, ()):
            made = CommitRef(use.branch, use.commit.sha)
            segments = self._segments(made)
            # One commit may be the head of several branches, and the index names those that it was read from.
            found = {line for branch in use.read_as for line in datumindex.users(self.blobs, segments, branch, path)}
            for line in sorted(found):
                below += [self._down(made, file, users) for file, _, _ in datumindex.outputs_of(line)]
        below.sort(key=lambda child: (child.commit.branch, child.path))
        origin = read_origin(commit.message)
        mine = made_for(ref.branch, origin)
        made_by = datumindex.maker(self.blobs, self._segments(ref), path) if mine else None
        datum = datumindex.inputs_of(made_by)[0] if made_by else ""
        version = f"{origin.pipeline}@{origin.version}" if mine else ""
        return FileLineage(ref, path, md5, commit.subject, datum, version, tuple(below))


def _same(one: FileLineage, other: FileLineage) -> bool:
    """Whether two commits have the file from the same datum, of the same bytes."""
    return (one.path, one.md5, one.datum) == (other.path, other.md5, other.datum)
