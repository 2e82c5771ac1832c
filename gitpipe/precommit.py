"""What the hooks of ``.pre-commit-hooks.yaml`` run, for people who manage their git hooks with pre-commit.

``gitpipe pre-commit track|check|guard|run|push``.  pre-commit shows what a hook prints only where it fails, puts
changes that are not staged aside while hooks run, and tells them its stage by environment variables alone.  Where
gitpipe's own git hook for the same event is in place, `run` and `push` leave the work to that one.
"""
# Most commits give most hooks nothing to do: each imports what it needs once there is something.

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gitpipe.errors import GitpipeError, Refused, UsageError
from gitpipe.pipelines import PipelineStore
from gitpipe.repo import HEADS, Repo, Worktree

if TYPE_CHECKING:
    from gitpipe.project import Project

MAX_SIZE = "--max-size"
PUSH = "gitpipe.push"  # git config: `false` switches the push of blobs off
Index = Mapping[str, str]


def main(args: Sequence[str]) -> int:
    """Run one of the hooks and return its exit status: 0 all well, 1 something to read, 2 typed wrongly."""
    name, *rest = args or [""]
    hook = HOOKS.get(name)
    if hook is None:
        print(f"gitpipe: pre-commit {name}: expected one of {', '.join(HOOKS)}", file=sys.stderr)
        return UsageError.exit_code
    if os.environ.get("GITPIPE") == "0":
        return 0
    index = _index()  # before anything forgets what git said
    try:
        lines = hook(Repo(Path.cwd()), rest, index)
    except GitpipeError as error:
        print(f"gitpipe: {error}", file=sys.stderr)
        return error.exit_code
    for line in lines:
        print(line)
    return 1 if lines else 0


def _index() -> Index:
    """The index that git is about to commit, where it is not the usual one (``git commit -a``, ``git commit FILE``)."""
    named = os.environ.get("GIT_INDEX_FILE")
    return {"GIT_INDEX_FILE": str(Path(named).absolute())} if named else {}


# -- before a commit -------------------------------------------------------------------------------------------------


def check(repo: Repo, args: Sequence[str], index: Index) -> list[str]:
    """Whether the spec files among `args` are right."""
    from gitpipe.speccheck import check_specs

    return check_specs(repo, PipelineStore(repo), args, index)


def guard(repo: Repo, args: Sequence[str], index: Index) -> list[str]:
    """What should not be committed; at the stage commit-msg, what should not stand in the message."""
    from gitpipe import guards

    limit, paths = guards.MAX_SIZE, []
    for arg in args:
        if arg.startswith(f"{MAX_SIZE}="):
            limit = guards.parse_size(arg.removeprefix(f"{MAX_SIZE}="))
        elif arg.startswith("--"):
            raise UsageError(f"gitpipe-guard does not know {arg}: it takes {MAX_SIZE}=10MB")
        else:
            paths.append(arg)
    # What gitpipe's own hooks judge in the same commit is not to be said twice.  git tells hooks of their index: where
    # it did not, `pre-commit run` was typed.  And for a merge that makes a commit by itself git runs no pre-commit.
    ours = bool(index) and not any(name.startswith("GITHEAD_") for name in os.environ)
    # Of the two stages only commit-msg hands over one file that git does not track.
    if len(paths) == 1 and not repo.git("ls-files", "--", f":(literal){paths[0]}", env=index, accept=(0, 128)):
        judged = ours and _has_own_hook(repo, "commit-msg")
        return [] if judged else guards.forged_trailers(repo, guards.read_message(Path(paths[0])))
    judged = ours and _has_own_hook(repo, "pre-commit")
    lines = [] if judged else guards.output_branch(repo, PipelineStore(repo)) or _left_behind(repo)
    since = os.environ.get("PRE_COMMIT_FROM_REF"), os.environ.get("PRE_COMMIT_TO_REF")
    between = (since[0], since[1]) if since[0] and since[1] else None
    changes = [change for change in guards.staged(repo, index, between) if change.path in set(paths)]
    return lines + guards.unfit_for_git(repo, changes, index, limit)


def _left_behind(repo: Repo) -> list[str]:
    """Stop a commit that would take back what the branch gained while a killed command left this tree behind."""
    from gitpipe.checkout import MOVING

    tree = _tree(repo)
    if tree is None or not (tree.git_dir / MOVING).is_file():
        return []
    project = _project(repo)
    if project:
        project.checkouts.check_commit(tree.top)
    return []


def track(repo: Repo, args: Sequence[str], index: Index) -> list[str]:
    """Add ``data/`` of a data repo where it changed and nobody added it; the commit is to be made again then.

    A ``data.dvc`` that is staged was chosen by a person, perhaps with part of the changes, and stays as it is.
    """
    tree = _tree(repo)
    # `git commit FILE` names what it wants, and its index is not the one that the next commit starts from.
    if tree is None or Path(index.get("GIT_INDEX_FILE", "")).name.startswith("next-index"):
        return []
    from gitpipe import workdata
    from gitpipe.datatree import DATA, POINTER

    oid = _untouched_pointer(repo, tree, index)
    stamp = workdata.read_stamp(tree.git_dir)
    # Without a stamp, or with another branch's, nobody knows what is missing from data/: `gitpipe add` says more.
    if not oid or stamp is None or HEADS + stamp.branch != tree.ref or not (tree.top / DATA).is_dir():
        return []
    project = _project(repo)
    if project is None or not workdata.changed(tree.top, tree.git_dir, project.blobs, oid=oid):
        return []
    if _put_aside(POINTER):
        # Written now, it would not fit what pre-commit is going to restore, which then restores nothing at all.
        raise Refused(f"{POINTER} is changed and not staged: `git add {POINTER}`, or `gitpipe add {DATA}`, and again")
    os.environ.update(index)  # `git commit -a` has locked the usual one
    lines = project.checkouts.add([str(tree.top / DATA)], tree.top)
    return [f"{line} again" if line.endswith("next: git commit") else line for line in lines]


def _untouched_pointer(repo: Repo, tree: Worktree, index: Index) -> str:
    """The listing of ``data.dvc`` where that is staged as HEAD has it; "" where it is not, or there is none."""
    from gitpipe.blobs.pointers import read_pointer
    from gitpipe.datatree import POINTER, data_key

    words = repo.git("ls-files", "--stage", "--", POINTER, env=index).split()
    entry = repo.entry(tree.head, POINTER) if tree.head and tree.head.strip("0") else None
    if len(words) != 4 or entry is None or words[1] != entry.sha or tree.ref is None:
        return ""
    store = PipelineStore(repo)
    if data_key(repo, tree.head or "").folder or tree.ref.removeprefix(HEADS) in store.owners(store.head()):
        return ""
    outs = read_pointer(repo.blob(entry.sha), POINTER)
    return outs[0].md5 if outs and outs[0].isdir else ""


def _put_aside(path: str) -> bool:
    """Whether the pre-commit that runs us keeps changes of `path`, not staged, in a patch until the hooks are done."""
    home = os.environ.get("PRE_COMMIT_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pre-commit"
    )
    # It names the patch by the time and its process, which is our parent.
    patches = Path(home).glob(f"patch*-{os.getppid()}")
    return any(f"diff --git a/{path} b/{path}\n".encode() in patch.read_bytes() for patch in patches)


# -- after a commit, and before a push -------------------------------------------------------------------------------


def run(repo: Repo, args: Sequence[str], index: Index) -> list[str]:
    """Wake the runner, and bring ``data/`` to the commit; what was kept aside, or is missing."""
    tree, event = _tree(repo), _event()
    project = _project(repo) if tree and event and not _has_own_hook(repo, event) else None
    if tree is None or project is None:
        return []
    # Amidst a rebase the branch does not move yet; post-rewrite follows.
    if event == "post-commit" and any((tree.git_dir / name).is_dir() for name in ("rebase-merge", "rebase-apply")):
        return []
    if event != "post-checkout":
        project.nudge()
    return project.checkouts.refresh(tree.top) if event == "post-checkout" or _data_is_behind(tree) else []


def _event() -> str:
    """The stage, by what pre-commit sets for it; "" for a checkout of single files."""
    kind = os.environ.get("PRE_COMMIT_CHECKOUT_TYPE")
    if kind is not None:
        return "post-checkout" if kind == "1" else ""
    if "PRE_COMMIT_REWRITE_COMMAND" in os.environ:
        return "post-rewrite"
    return "post-merge" if "PRE_COMMIT_IS_SQUASH_MERGE" in os.environ else "post-commit"


def _data_is_behind(tree: Worktree) -> bool:
    from gitpipe import workdata

    stamp = workdata.read_stamp(tree.git_dir)
    return stamp is not None and stamp.commit != tree.head


def push(repo: Repo, args: Sequence[str], index: Index) -> list[str]:
    """Bring the blobs that the pushed commits name to the DVC remote.

    pre-commit passes on only the first of the refs that are pushed: what the other branches have and the remote's
    have not goes along.  Too much there harms nobody; a commit without its files would.
    """
    project = _project(repo) if not _has_own_hook(repo, "pre-push") else None
    if project is None or repo.config(PUSH).get(PUSH) == ["false"]:
        return []
    from gitpipe.uploads import PushedRef

    said = {key: os.environ.get(f"PRE_COMMIT_{key}", "") for key in ("FROM_REF", "TO_REF", "LOCAL_BRANCH")}
    remote = os.environ.get("PRE_COMMIT_REMOTE_NAME", "")
    first = repo.resolve(said["TO_REF"] or said["LOCAL_BRANCH"] or "HEAD")
    refs = [PushedRef(first, repo.resolve(said["FROM_REF"]) or "")] if first else []
    if repo.refs(f"refs/remotes/{remote}"):  # not for an address that was typed, of which nothing is known
        refs += [PushedRef(sha, name=name) for name, sha in repo.refs("refs/heads").items()]
    if _put_aside(".dvc/config") and not project.blobs.push_remote():
        raise Refused(".dvc/config has changes that pre-commit keeps from its hooks: commit them, and push again")
    project.push_blobs(refs, remote)
    return []


def _project(repo: Repo) -> Project | None:
    """The project; None where `gitpipe init` was never run, where a hook has nothing to say."""
    from gitpipe.project import Project

    project = Project(repo)
    return project if project.settings.python else None


def _has_own_hook(repo: Repo, name: str) -> bool:
    """Whether the git hook of that name is gitpipe's, or calls gitpipe's."""
    from gitpipe import hookplace

    return hookplace.installed(repo, name)


def _tree(repo: Repo) -> Worktree | None:
    """The working tree that git runs us in."""
    top = repo.top
    return next((tree for tree in repo.worktrees() if top and tree.top.resolve() == top.resolve()), None)


HOOKS: dict[str, Callable[[Repo, Sequence[str], Index], list[str]]] = {
    "track": track,
    "check": check,
    "guard": guard,
    "run": run,
    "push": push,
}
