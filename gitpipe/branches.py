"""Branches of data repos: create, move, list, delete them, and wait for what comes.

Branch ``staging`` of repo ``training`` is the git branch ``training@staging``; ``master`` is ``training`` itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

from gitpipe.commit import DEFAULT_BRANCH, check_name, git_branch, repo_of
from gitpipe.datarepos import DataRepos
from gitpipe.datatree import data_key, write_tree
from gitpipe.errors import BadName, NotFound, Refused, UsageError
from gitpipe.graph import order
from gitpipe.inputs import Trigger
from gitpipe.pipelines import follows
from gitpipe.repo import HEADS, RefUpdate, Repo
from gitpipe.views import BranchInfo, CommitInfo

POLL_SECONDS = 0.1
# What git allows in a branch's name (git-check-ref-format(1)), less what would be taken for something else here.
BRANCH = re.compile(r"(?!.*\.\.)(?!.*\.lock\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?\Z")


class Branches:
    """The branches of one repository's data repos."""

    def __init__(self, repo: Repo, data: DataRepos) -> None:
        self.repo, self.data = repo, data

    def create(
        self, words: Sequence[str], head: str | None = None, trigger: Trigger | None = None, forget: bool = False
    ) -> str:
        """Make a branch, empty or at `head`; one that is there already moves to `head`.  Its head's sha.

        Args:
            words: ``REPO BRANCH`` or ``REPO@BRANCH``.
            head: a branch or commit of the same repo.
            trigger: what moves it from now on.
            forget: nothing moves it from now on.

        Raises:
            Refused: it is there and neither `head` nor `trigger` is given, it is a pipeline's output, or the trigger
                would go round in a circle.
            NotFound: no such repo or head.
        """
        name, branch = _words(words, "create-branch")
        if self.data.is_owned(git_branch(name, branch)):
            raise Refused(f"{name}@{branch} is the output of a pipeline: it moves with each job")
        if not self.data.is_output(name):
            self.data.check_repo(self.data.locate([name], path=False).repo)
        ref = HEADS + git_branch(name, branch)
        old = self.repo.ref(ref)
        if trigger is not None:
            self._check_trigger(name, branch, trigger)
        if head is None:
            if old is not None and (trigger is not None or forget):
                self._set_trigger(name, branch, trigger)
                self.data.nudge()
                return old
            if old is not None:
                raise Refused(f"branch {branch} of {name} exists already: --head COMMIT moves it")
            self.data.refuse_output([name], "give its new branch a commit with --head")
            new = self._empty(name, branch)
        else:
            place = self.data.locate([name, head.removeprefix(f"{name}@")], path=False)
            if place.open or place.commit is None:
                raise Refused(f"{head} is not finished yet: `gitpipe finish-commit {name} {head}` first")
            new = place.commit
        reason = f"gitpipe: create-branch {name}@{branch}"
        if trigger is not None or forget:
            self._set_trigger(name, branch, trigger, [RefUpdate(ref, new, None)] if old is None else [])
            old = old or new
        if new == old:
            self.data.nudge()
            return new
        if old is None:
            if not self.repo.update_refs([RefUpdate(ref, new, None)], reason):
                raise Refused(
                    f"git cannot make the branch {ref.removeprefix(HEADS)}: somebody was faster, or see `git branch`"
                )
        elif not self.data.checkouts.move_branch(ref, new, old, reason, strict=True):
            raise Refused(f"branch {branch} of {name} was moved by somebody else just now: run the command again")
        self.data.nudge()
        return new

    def trigger(self, watched: str, size: str, commits: int, cron_spec: str, all: bool) -> Trigger:
        """A trigger as the command line has it.

        Raises:
            BadSpec, BadName: no condition, or one that makes no sense, or `watched` cannot be a branch.
        """
        if not BRANCH.match(watched):
            raise BadName(f"trigger branch {watched!r}: name a branch of the same repo, without the repo's name")
        return Trigger(watched, size, commits, cron_spec, all)

    def _check_trigger(self, name: str, branch: str, trigger: Trigger) -> None:
        """Whether a branch may get a trigger.

        Raises:
            Refused: the input of a pipeline has one for it, or it would follow itself.
            BadSpec: a pipeline would read its own output through it.
        """
        full = git_branch(name, branch)
        pipelines = self.data.pipelines
        everything = pipelines.triggers(pipelines.head())
        owner = everything.get(full, (trigger, ""))[1]
        if owner:
            raise Refused(f"{full} is moved by the trigger of an input of pipeline {owner}: change that in its spec")
        moved = follows({**{b: t for b, (t, _) in everything.items()}, full: trigger})
        seen, at = {full}, moved[full]
        while at in moved and at not in seen:
            seen.add(at)
            at = moved[at]
        if at in seen:
            raise Refused(f"{full} would follow itself by its trigger: watch a branch that does not follow it")
        order({n: p.spec for n, p in pipelines.all(pipelines.head()).items()}, moved)

    def _set_trigger(self, name: str, branch: str, trigger: Trigger | None, also: Sequence[RefUpdate] = ()) -> None:
        """Record a branch's trigger (None: that it has none) on ``__spec__``, where clones find it."""
        pipelines = self.data.pipelines
        full, head = git_branch(name, branch), pipelines.head()
        if pipelines.set_triggers(head).get(full) == trigger and not also:
            return
        subject = f"trigger {full}: {trigger.describe() if trigger else 'none'}"
        config = None if head else pipelines.branch_config()
        pipelines.put(
            {}, {}, subject, self.repo.user(), dvc_config=config, expect=head, triggers={full: trigger}, also=also
        )

    def _empty(self, name: str, branch: str) -> str:
        tree = write_tree(self.repo, self.data.blobs, {}, config=self.data.pipelines.branch_config())
        commit = self.repo.write_commit(tree, [], f"create-branch {name}@{branch}", self.repo.user())
        self.data.blobs.sync()
        self.repo.sync()
        return commit

    def list(self, name: str) -> list[BranchInfo]:
        """The branches of a repo, ``master`` first.

        Raises:
            NotFound: no such repo.
        """
        check_name("repo", name)
        found = self._heads(name)
        if not found:
            self.data.locate([name], path=False)
        self.data.check_repo(name)
        triggers = self.data.pipelines.triggers(self.data.pipelines.head())
        infos = [
            BranchInfo(name, repo_of(b)[1], sha, b, triggers[b][0].describe() if b in triggers else "")
            for b, sha in found.items()
        ]
        return sorted(infos, key=lambda info: (info.branch != DEFAULT_BRANCH, info.branch))

    def _heads(self, name: str) -> dict[str, str]:
        heads = {ref.removeprefix(HEADS): sha for ref, sha in self.repo.refs("refs/heads").items()}
        return {branch: sha for branch, sha in heads.items() if repo_of(branch)[0] == name}

    def delete(self, words: Sequence[str], force: bool = False) -> None:
        """Delete a branch; its commits stay where something was made from them (I8).

        Raises:
            Refused: it is ``master``, a pipeline reads it, or it is checked out.
            NotFound: no such branch.
        """
        name, branch = _words(words, "delete-branch")
        if self.data.is_owned(git_branch(name, branch)):
            raise Refused(f"{name}@{branch} is the output of a pipeline: `gitpipe delete-pipeline {name}`")
        if branch == DEFAULT_BRANCH and not self.data.is_output(name):
            raise Refused(f"master is the repo {name} itself: `gitpipe delete-repo {name}`")
        ref = HEADS + git_branch(name, branch)
        old = self.repo.ref(ref)
        if old is None:
            raise NotFound(f"{name} has no branch {branch!r}: see `gitpipe list-branch {name}`")
        readers = self.data.readers(name, branch)
        if readers and not force:
            raise Refused(f"{name}@{branch} is read by pipeline {', '.join(readers)}: delete that first, or use -f")
        for tree in self.repo.worktrees():
            if tree.ref == ref:
                raise Refused(f"{name}@{branch} is checked out in {tree.top}: switch to another branch there first")
        gone = [RefUpdate(ref, None, old), *self.data.drop_open(git_branch(name, branch))]
        if git_branch(name, branch) in self.data.pipelines.set_triggers(self.data.pipelines.head()):
            self._set_trigger(name, branch, None, gone)
        elif not self.repo.update_refs(gone, f"gitpipe: delete-branch {name}@{branch}"):
            raise Refused(f"branch {branch} of {name} was moved by somebody else just now: run the command again")
        self.data.nudge()

    def subscribe(self, words: Sequence[str], *, since: str | None = None, new: bool = False) -> Iterator[CommitInfo]:
        """The commits of a branch, oldest first, and then each as it comes; never ends by itself.

        Args:
            since: only those after this commit of the branch.
            new: only those from now on.

        Raises:
            NotFound: no such repo or commit; a pipeline without output yet is waited for.
        """
        name, branch = _words(
            words if len(words) > 1 or "@" in words[0] else [words[0], DEFAULT_BRANCH], "subscribe-commit"
        )
        full = git_branch(name, branch)
        if self.repo.ref(HEADS + full) is None and not self.data.is_owned(full):
            self.data.locate([name, branch], path=False)
        last = self.repo.ref(HEADS + full) if new else None
        if since is not None:
            last = self.data.locate([name, since], path=False).commit
        while True:
            head = self.repo.ref(HEADS + full)
            if head is not None and head != last:
                yield from self._after(full, head, last)
                last = head
            time.sleep(POLL_SECONDS)

    def _after(self, branch: str, head: str, last: str | None) -> Iterator[CommitInfo]:
        chain = self.repo.first_parents(head, last) if last else None
        if chain is None:  # the first look, or the branch was set to another line of history: all of that, or its head
            chain = [self.repo.commit(head)] if last else list(self.repo.log([head], "--first-parent"))[::-1]
        for commit in chain:
            if data_key(self.repo, commit.tree):
                yield self.data.commit_info(branch, commit)


def _words(words: Sequence[str], verb: str) -> tuple[str, str]:
    """``REPO BRANCH`` or ``REPO@BRANCH`` as (repo, branch), both of them possible names."""
    given = [part for word in words for part in (word.split("@", 1) if word == words[0] else [word])]
    if len(given) != 2:
        raise UsageError(f"{verb}: name a repo and a branch, e.g. `{verb} training staging` or `training@staging`")
    name, branch = given
    check_name("repo", name)
    if not BRANCH.match(branch) or branch == "HEAD":
        raise BadName(
            f"branch name {branch!r}: use letters, digits, '_', '-' and '.', and begin with none of the latter"
        )
    return name, branch
