"""Provenance as a tree: what a commit was made from, and what was made from it.  Reads commits only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gitpipe.commit import CommitRef, repo_of
from gitpipe.datarepos import DataRepos
from gitpipe.errors import NotFound
from gitpipe.pipelines import PipelineStore
from gitpipe.provenance import made_for, read_origin
from gitpipe.repo import HEADS, Commit, Repo
from gitpipe.views import CommitInfo, Lineage


@dataclass(frozen=True, slots=True)
class Use:
    """An output commit that was made from another commit.

    Attributes:
        branch, commit: the result.
        read_as: the branches that the other commit was read from: it may be the head of several.
    """

    branch: str
    commit: Commit
    read_as: tuple[str, ...]


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

    def users(self, target: str) -> dict[str, list[Use]]:
        """Input commit -> the results made from it, of all that have `target` above them; each result once.

        A pipeline that now writes another branch has results on the earlier one still, so every branch of its repo is
        looked at.  The one that it writes comes first: other branches may have been set to the same commits.
        """
        owned = self.pipelines.owners(self.pipelines.head())
        tips = {ref.removeprefix(HEADS): sha for ref, sha in self.repo.refs("refs/heads").items()}
        users: dict[str, list[Use]] = {}
        seen: set[str] = set()
        for branch in sorted(tips, key=lambda name: (name not in owned, name)):
            if repo_of(branch)[0] not in owned.values() or tips[branch] in seen:
                continue
            for commit in self.repo.log([tips[branch]], "--first-parent"):
                if commit.sha in seen:
                    break
                seen.add(commit.sha)
                origin = read_origin(commit.message)
                if not made_for(branch, origin) or all(target != ref.sha for ref in origin.provenance):
                    continue
                read: dict[str, list[str]] = {}
                for ref in direct_inputs(self.repo, commit, branch):
                    read.setdefault(ref.sha, []).append(ref.branch)
                for sha, names in read.items():
                    users.setdefault(sha, []).append(Use(branch, commit, tuple(names)))
        return users

    def _down(self, branch: str, commit: Commit, users: dict[str, list[Use]]) -> Lineage:
        below = tuple(self._down(use.branch, use.commit, users) for use in users.get(commit.sha, ()))
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
