"""Provenance as a tree: what a commit was made from, and what was made from it.  Reads commits only."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gitpipe.commit import CommitRef
from gitpipe.datarepos import DataRepos
from gitpipe.errors import NotFound
from gitpipe.pipelines import PipelineStore
from gitpipe.provenance import made_for, read_origin
from gitpipe.repo import HEADS, Commit, Repo
from gitpipe.views import CommitInfo, Lineage


class History:
    """Answers ``log --provenance``."""

    def __init__(self, repo: Repo, data: DataRepos, pipelines: PipelineStore) -> None:
        self.repo, self.data, self.pipelines = repo, data, pipelines

    def lineage(self, words: Sequence[str], descendants: bool = False) -> list[Lineage]:
        """What the named commit was made from, or what was made from it.

        Args:
            words: a repo: each of its commits, newest first; a repo with a commit: that one; none: the newest result
                of each pipeline.
            descendants: downward instead of upward; a repo without a commit then means its newest.

        Raises:
            NotFound: no such repo or commit.
        """
        if descendants:
            return self._descendants(words)
        known: dict[str, Lineage] = {}
        if not words:
            heads = self.repo.refs("refs/heads")
            names = self.pipelines.owners(self.pipelines.head())
            tips = [CommitRef(n, heads[HEADS + n]) for n in sorted(names) if HEADS + n in heads]
            return [self._up(ref, known) for ref in tips]
        place = self.data.locate(words, path=False)
        if place.commit is None:
            raise NotFound(f"{place.repo} has no commit yet")
        if not place.at_head:
            return [self._up(CommitRef(place.branch, place.commit), known)]
        chain = self.repo.log([place.commit], "--first-parent")
        return [self._up(CommitRef(place.branch, c.sha), known) for c in chain]

    def _up(self, ref: CommitRef, known: dict[str, Lineage]) -> Lineage:
        found = known.get(ref.sha)
        if found is None:
            commit = self.repo.commit(ref.sha)
            children = tuple(self._up(r, known) for r in direct_inputs(self.repo, commit, ref.branch))
            found = Lineage(self._info(ref.branch, commit), children)
            known[ref.sha] = found
        return found

    def _descendants(self, words: Sequence[str]) -> list[Lineage]:
        place = self.data.locate(words, path=False)
        if place.commit is None:
            raise NotFound(f"{place.repo} has no commit yet")
        return [self._down(place.branch, self.repo.commit(place.commit), self.users(place.commit))]

    def users(self, target: str) -> dict[str, list[tuple[str, Commit]]]:
        """Input commit -> (output branch, output commit) made from it, of all that have `target` above them."""
        names = self.pipelines.owners(self.pipelines.head())
        tips = [s for r, s in self.repo.refs("refs/heads").items() if r.removeprefix(HEADS) in names]
        outputs = {name: branch for branch, name in names.items()}
        users: dict[str, list[tuple[str, Commit]]] = {}
        for commit in self.repo.log(tips, "--first-parent"):
            origin = read_origin(commit.message)
            branch = outputs.get(origin.pipeline, "")
            if branch and any(target == r.sha for r in origin.provenance):
                for ref in direct_inputs(self.repo, commit, branch):
                    users.setdefault(ref.sha, []).append((branch, commit))
        return users

    def _down(self, branch: str, commit: Commit, users: dict[str, list[tuple[str, Commit]]]) -> Lineage:
        below = tuple(self._down(name, made, users) for name, made in users.get(commit.sha, ()))
        return Lineage(self._info(branch, commit), below)

    def _info(self, branch: str, commit: Commit) -> CommitInfo:
        return self.data.commit_info(branch, commit)


def direct_inputs(repo: Repo, commit: Commit, branch: str) -> list[CommitRef]:
    """The commits that an output commit of `branch` read itself; none for a commit that a person made."""
    if not made_for(branch, read_origin(commit.message)):
        return []
    entry = repo.entry(commit.tree, ".gitpipe/job.json")
    if entry is None:
        return []
    return [CommitRef(i["branch"], i["commit"]) for i in json.loads(repo.blob(entry.sha))["inputs"]]
