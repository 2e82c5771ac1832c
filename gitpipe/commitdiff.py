"""What differs between two commits: their files, and what they were made from.  Answers ``diff``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gitpipe import differences
from gitpipe.blobs.dvc import DvcStore
from gitpipe.commit import DEFAULT_BRANCH, NAME, SPEC_BRANCH, CommitRef, Listing, files_below, repo_of
from gitpipe.datarepos import DataRepos
from gitpipe.datatree import data_key, read_listing
from gitpipe.differences import Made, closure_of, read_made
from gitpipe.errors import GitpipeError, NotFound, UsageError
from gitpipe.journal import Journal
from gitpipe.places import HEX, SUFFIX, clean_path
from gitpipe.provenance import read_origin
from gitpipe.record import Records
from gitpipe.repo import HEADS, Repo
from gitpipe.views import CommitDiff, EnvironmentChange, ProvenanceChange

EXPECTED = "expected one or two of REPO@COMMIT, REPO [COMMIT], a SHA or a job's id, then -- PATH"

FAR = 100
"""Commits that are looked at for one whose datums were not all skipped."""


class CommitDiffs:
    """Compares commits of one repository, of whatever repos in it."""

    def __init__(self, repo: Repo, blobs: DvcStore, journal: Journal, data: DataRepos) -> None:
        self.repo, self.blobs, self.journal, self.data = repo, blobs, journal, data
        self.records = Records(repo)

    def diff(self, words: Sequence[str], paths: Sequence[str] = (), *, provenance: bool = False) -> CommitDiff:
        """What the second commit has otherwise than the first; of one commit alone, what it changed.

        Args:
            words: one or two commits: ``infer@master``, ``infer master~1``, ``infer``, a SHA, a job's id.
            paths: only these files and folders.
            provenance: also which inputs and pipelines differ.

        Raises:
            NotFound: no such commit, or none with data in it.
            UsageError: there are more words than two commits.
        """
        found: list[CommitRef] = []
        rest = list(words)
        while rest:
            ref, taken = self._commit(rest)
            found.append(ref)
            del rest[:taken]
        if len(found) not in (1, 2):
            raise UsageError(f"{' '.join(map(repr, words))} is not one commit, nor two: {EXPECTED}")
        new = found[-1]
        old: CommitRef | None = found[0]
        if len(found) == 1:
            parents = self.repo.commit(new.sha).parents
            old = CommitRef(new.branch, parents[0]) if parents else None
        within = [clean_path(path) for path in paths]
        before, after = self._files(old, within), self._files(new, within)
        if not any(ref and data_key(self.repo, ref.sha) for ref in (old, new)):
            raise NotFound(f"{new.branch}@{new.sha[:12]} holds no data: `git diff` compares other commits")
        for path in within:
            if path and not files_below(before, path) and not files_below(after, path):
                raise NotFound(f"neither commit has a file {path}: see `gitpipe list-file {new.branch}`")
        changed = differences.files(self.blobs, before, after)
        return CommitDiff(old, new, tuple(changed), self._provenance(old, new) if provenance else None)

    # -- which commits -----------------------------------------------------------------------------------------------

    def _commit(self, words: Sequence[str]) -> tuple[CommitRef, int]:
        """The commit that stands first in `words`, and how many of them name it."""
        first = words[0]
        suffixed = SUFFIX.match(first)
        if "@" in first or self._is_repo(first):
            if "@" not in first and len(words) > 1:
                try:
                    return self._located([first, words[1]]), 2
                except GitpipeError:
                    if not self._is_commit(words[1]):  # then it was meant as one of this repo
                        raise
            return self._located([first]), 1
        if suffixed and self._is_repo(suffixed[1]):  # as git writes it
            return self._located([suffixed[1], DEFAULT_BRANCH + suffixed[2]]), 1
        sha = self.repo.resolve(first) if HEX.match(suffixed[1] if suffixed else first) else None
        if sha is not None:
            return CommitRef(self._branch_of(sha), sha), 1
        if HEX.match(first):
            jobs = self.journal.jobs("id >= ? AND id < ? AND output IS NOT NULL", [first, first + "g"])
            outputs = {job.output for job in jobs if job.output}
            if len(outputs) == 1:
                sha = outputs.pop()
                return CommitRef(self._branch_of(sha), sha), 1
        raise NotFound(f"no repo or commit {first!r}: see `gitpipe list-repo`, `gitpipe list-commit REPO`")

    def _is_commit(self, word: str) -> bool:
        try:
            return bool(self._commit([word]))
        except GitpipeError:
            return False

    def _is_repo(self, word: str) -> bool:
        if NAME.match(word) is None:
            return False
        return any(repo_of(ref.removeprefix(HEADS))[0] == word for ref in self.repo.refs("refs/heads"))

    def _located(self, words: Sequence[str]) -> CommitRef:
        place = self.data.locate(words, path=False)
        if place.commit is None:
            raise NotFound(f"{place.repo} has no commit yet")
        return CommitRef(place.branch, place.commit)

    def _branch_of(self, sha: str) -> str:
        """The branch that a commit belongs to, or "" where there is none any more."""
        commit = self.repo.commit(sha)
        made = read_made(self.repo, commit, read_origin(commit.message).pipeline)
        if made is not None:
            return made.ref.branch
        heads = self.repo.git("for-each-ref", "--format=%(refname)", f"--contains={sha}", "refs/heads").split()
        return next((ref.removeprefix(HEADS) for ref in heads if ref != HEADS + SPEC_BRANCH), "")

    # -- what differs ------------------------------------------------------------------------------------------------

    def _files(self, ref: CommitRef | None, within: Sequence[str]) -> Listing:
        found = read_listing(self.repo, self.blobs, ref.sha) if ref else {}
        if not within or "" in within:
            return found
        return {
            path: md5 for path, md5 in found.items() if any(path == top or path.startswith(f"{top}/") for top in within)
        }

    def _provenance(self, old: CommitRef | None, new: CommitRef) -> ProvenanceChange:
        before, after = self._made(old), self._made(new)
        moves = differences.moves(self.repo, closure_of(before), closure_of(after))
        then, now = self._parts(before), self._parts(after)
        pipelines = [{name: made.pipeline for name, made in parts.items()} for parts in (then, now)]
        names = sorted(then.keys() | now.keys())
        versions = [differences.version(self.repo, *(each.get(name) for each in pipelines)) for name in names]
        return ProvenanceChange(
            tuple(moves), tuple(each for each in versions if each), self._environments(then, now, before, after)
        )

    def _environments(
        self, then: Mapping[str, Made], now: Mapping[str, Made], before: Made | None, after: Made | None
    ) -> tuple[EnvironmentChange, ...] | None:
        """What the runs of the pipelines differ in; None where it is not known of the two commits themselves."""
        found: list[EnvironmentChange] = []
        for name in sorted(then.keys() & now.keys()):
            if then[name].commit.sha == now[name].commit.sha:
                continue
            old, new = (self._ran_in(parts[name]) for parts in (then, now))
            if old and new:
                found += differences.environments(name, old, new)
            elif before and after and name in (before.pipeline.name, after.pipeline.name):
                return None
        return tuple(found) if before and after and before.pipeline.name == after.pipeline.name else None

    def _ran_in(self, made: Made) -> list[dict[str, Any]]:
        """What the datums ran in that made a commit's files: of the newest run that was not all skipped."""
        sha = made.commit.sha
        for _ in range(FAR):
            for run in reversed(self.records.read(sha)):
                if run["ran_in"]:
                    places: list[dict[str, Any]] = run["ran_in"]
                    return places
            parents = self.repo.commit(sha).parents
            if not parents:
                break
            sha = parents[0]
        return []

    def _made(self, ref: CommitRef | None) -> Made | None:
        return read_made(self.repo, self.repo.commit(ref.sha), ref.branch) if ref else None

    def _parts(self, made: Made | None) -> dict[str, Made]:
        """The output commits of all pipelines that had a part in a commit, by the pipeline's name."""
        if made is None:
            return {}
        found = {made.pipeline.name: made}
        for ref in made.origin.provenance:
            above = self._made(ref)
            if above:
                found[above.pipeline.name] = above
        return found
