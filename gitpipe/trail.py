"""Where a datum stood: which output commits of a pipeline hold it, and which one, and which job, made it.

Read from the datum indexes of the commits; a segment that several commits share is read once.  A pipeline that was told
to write another branch took over what it had made: the commits on the earlier branch belong to the trail, too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Set

from gitpipe import datumindex
from gitpipe.blobs import BlobStore
from gitpipe.commit import CommitRef, Listing, repo_of
from gitpipe.errors import GitpipeError
from gitpipe.journal import JobRow, JobState, Journal
from gitpipe.provenance import KEEP, KEPT_JOB, made_for, read_origin
from gitpipe.repo import HEADS, Commit, Repo
from gitpipe.views import Making

SHORT = 12


class Trail:
    """The output commits of one pipeline, newest first, and the datums in their indexes."""

    def __init__(self, repo: Repo, blobs: BlobStore, head: CommitRef | None, *, below: bool = False) -> None:
        """
        Args:
            head: the newest output commit that counts, and its branch; None where there is none.
            below: leave `head` itself out.
        """
        self.repo, self.blobs = repo, blobs
        self.commits: list[Commit] = list(repo.log([head.sha], "--first-parent")) if head else []
        self._branches = {commit.sha: head.branch for commit in self.commits} if head else {}
        own = len(self.commits)
        if head:
            self._add_other_branches(head.branch)
        self.branched = len(self.commits) > own
        if below:
            self.commits = [commit for commit in self.commits if head is None or commit.sha != head.sha]
        self._listings: dict[str, Listing] = {}

    def _add_other_branches(self, branch: str) -> None:
        """Put in what the pipeline wrote to other branches of its repo before; nothing where no keep-ref tells when."""
        name = repo_of(branch)[0]
        others: list[Commit] = []
        for ref, tip in self.repo.refs(HEADS + name, f"{HEADS}{name}@*").items():
            other = ref.removeprefix(HEADS)
            if repo_of(other)[0] != name or tip in self._branches:
                continue
            for commit in self.repo.log([tip], "--first-parent"):
                if commit.sha in self._branches:
                    break
                self._branches[commit.sha] = other
                if made_for(other, read_origin(commit.message)):
                    others.append(commit)
        kept = self.repo.ref(KEEP + name) if others else None
        if kept is None:
            return
        subjects = [commit.subject for commit in self.repo.log([kept], "--first-parent")]
        order = {subject: place for place, subject in enumerate(reversed(subjects))}
        place, places = -1, {}
        for commit in reversed(self.commits):  # what a person committed has no place but that of what it stands on
            place = max(place, order.get(KEPT_JOB.format(name, read_origin(commit.message).job), -1))
            places[commit.sha] = place
        for commit in others:
            mine = order.get(KEPT_JOB.format(name, read_origin(commit.message).job), place)
            if mine < place:
                self.commits.append(commit)
                places[commit.sha] = mine
        self.commits.sort(key=lambda commit: -places[commit.sha])

    def ref(self, commit: Commit) -> CommitRef:
        """One of the commits with the branch that it is on."""
        return CommitRef(self._branches[commit.sha], commit.sha)

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

    def making(self, datum: str, journal: Journal) -> Making | None:
        """Which output commit and which job made a datum's files, and how to read what was said then."""
        commit = self.maker(datum)
        if commit is None:
            return None
        job = read_origin(commit.message).job
        by = finished_by(journal, commit.sha, [datum]).get(datum)
        log = f"gitpipe logs --job {by.id[:SHORT]} --datum {datum[:SHORT]}" if by else ""
        return Making(self.ref(commit), job, log, by.id if by and by.id != job else "")

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


def finished_by(journal: Journal, output: str, datums: Iterable[str]) -> dict[str, JobRow]:
    """Datum -> the job that ran it, of datums that the output commit was the first to hold.

    That is the job which made the commit, or an earlier one, which published nothing and left them to it.  What this
    machine has no record of is not in it.
    """
    published = journal.jobs("output = ?", [output], "ORDER BY seq LIMIT 1")
    if not published:
        return {}
    rows: dict[int, JobRow | None] = {}
    found = {}
    for datum, seq in journal.known_before(published[0], datums).items():
        if seq is not None:
            if seq not in rows:
                rows[seq] = journal.job(seq)
            if row := rows[seq]:
                found[datum] = row
    return found


def attempt(by: JobRow, job: str) -> str:
    """Who finished a datum for the job with the id `job`, worded."""
    who = "an earlier attempt of this job" if by.id == job else f"job {by.id[:SHORT]}"
    how = {
        JobState.FAILED: "which failed",
        JobState.KILLED: "which was stopped",
        JobState.SUCCESS: "whose output commit this branch does not stand on",
    }
    return f"finished by {who}, {how.get(by.state, 'which did not end')}"
