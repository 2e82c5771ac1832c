"""Working trees and branches together: no file of one repo lands in another, nothing uncommitted is overwritten (I6).

Branches move here, together with the clean working trees that stand on them; ``data/`` is brought to what a branch
holds; ``gitpipe add`` turns ``data/`` into a pointer in the index.  What happens inside ``data/``: `gitpipe.workdata`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gitpipe import datumindex, workdata
from gitpipe.blobs.config import DvcConfig, format_config, read_config, read_file
from gitpipe.blobs.dvc import DvcStore
from gitpipe.blobs.pointers import DVC_GITIGNORE, DVCIGNORE, GITIGNORE, read_pointer, write_pointer
from gitpipe.commit import SPEC_BRANCH, Listing, check_name, repo_of
from gitpipe.datatree import DATA, POINTER, data_key, read_listing
from gitpipe.errors import BadData, BadName, GitpipeError, Refused, UsageError
from gitpipe.faults import point
from gitpipe.kept import all_kept, kept_sets
from gitpipe.repo import HEADS, RefUpdate, Repo, Worktree
from gitpipe.scan import printable

if TYPE_CHECKING:
    from gitpipe.pipelines import PipelineStore

BLOB_MARK = "gitpipe-data"
MOVING = "gitpipe-moving"  # in the git dir of a working tree: the commits between which its branch is moved
FEW = 10  # so many names stand in one message
LEFT_BEHIND = 3  # so many commits back the output of a pipeline is looked for in the index of a working tree


def blob_store(repo: Repo, cache: str, top: Path | None, remote: str = "") -> DvcStore:
    """The one blob cache of all working trees: below the common git dir, where `git clean` does not reach, or `cache`,
    where DVC was told when `init` ran.  What the ``.dvc/config`` of a branch says of it does not count: data branches
    have others than main, and it may have come by fetch (I12).

    Args:
        cache: git config ``gitpipe.cache``, or "".
        top: the working tree whose DVC configuration says how files are linked, and which remotes there are; None
            for the main one, as the runner works from the git dir.
        remote: git config ``gitpipe.remote``, a remote beside those: URL, or folder as seen from the git dir; or "".
    """
    top = top or next((tree.top for tree in repo.worktrees()), None)
    config = read_config(top / ".dvc") if top else DvcConfig()
    folder = Path(cache) if cache else repo.common / "dvc" / "cache"
    return DvcStore(
        folder, cache_types=config.cache_types, shared=config.shared, fetch_root=top, remote=remote_url(repo, remote)
    )


def remote_url(repo: Repo, remote: str) -> str:
    """The value of git config ``gitpipe.remote`` as DVC wants it."""
    return os.path.normpath(repo.common / Path(remote).expanduser()) if remote and "://" not in remote else remote


@contextlib.contextmanager
def _moving(trees: Sequence[Worktree], *, wait: bool = True) -> Iterator[None]:
    """One at a time moves the branch of a working tree, or brings the tree after it; a kill ends that, too.

    Raises:
        Refused: somebody else does, and `wait` is not wanted.
    """
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    with contextlib.ExitStack() as stack:
        for tree in sorted(trees, key=lambda tree: tree.git_dir):
            try:
                fcntl.flock(stack.enter_context((tree.git_dir / MOVING).open("a")), how)
            except BlockingIOError as error:
                raise Refused(f"{tree.top} is on its way to where its branch is: try again") from error
            except PermissionError:
                pass  # another user's working tree: that user's gitpipe will see to it
        yield


def _write_note(tree: Worktree, text: str) -> None:
    with contextlib.suppress(PermissionError):
        (tree.git_dir / MOVING).write_text(text)


def read_note(tree: Worktree) -> tuple[str, str]:
    """The commits between which the branch of a working tree is being moved, or was when that was killed; or ""."""
    try:
        old, new = (tree.git_dir / MOVING).read_text().split()
    except (OSError, ValueError):
        return "", ""
    return old, new


class Checkouts:
    """The working trees of one repository."""

    def __init__(self, repo: Repo, blobs: DvcStore, pipelines: PipelineStore) -> None:
        self.repo, self.blobs, self.pipelines = repo, blobs, pipelines

    # -- branches that move ------------------------------------------------------------------------------------------

    def move_branch(
        self, ref: str, new: str, old: str, reason: str, *, strict: bool, also: Sequence[RefUpdate] = ()
    ) -> bool:
        """Move a branch, and the working trees on it; False where it was not on `old` any more.

        Args:
            strict: a dirty working tree on it is a refusal instead of being left behind.

        Raises:
            Refused: naming the dirty working tree.
        """
        trees = self._on(ref)
        for tree in trees if strict else ():
            self._catch_up(tree)
        with _moving(trees):
            if trees and self.repo.ref(ref) != old:
                return False  # the trees are with it where it is now, and are not dirty for that
            for tree in trees if strict else ():
                why = self._dirty(tree, old)
                if why:
                    raise Refused(
                        f"{ref.removeprefix(HEADS)} is checked out in {tree.top}, where {why}: commit it first"
                    )
            for tree in trees:
                _write_note(tree, f"{old} {new}\n")
            if trees:
                self.repo.sync()  # the notes are there before the branch moves, whatever happens to the machine (I7)
            point("before-ref")
            if not self.repo.update_refs([RefUpdate(ref, new, old), *also], reason):
                for tree in trees:
                    _write_note(tree, "")
                return False
            point("after-ref")
            for tree in trees:
                # What came up since is for `status` to name.
                with contextlib.suppress(Refused):
                    if not self._obstacle(tree, old, new)[0]:
                        self._follow(tree, old, new)
        return True

    def catch_up(self, ref: str) -> None:
        """Bring the working trees on `ref` to where it is now; those that cannot be are named by `behind`."""
        for tree in self._on(ref):
            with contextlib.suppress(GitpipeError):
                self._catch_up(tree, wait=False)

    def catch_up_all(self) -> None:
        """`catch_up` for every branch that is checked out somewhere."""
        for tree in self.repo.worktrees():
            with contextlib.suppress(GitpipeError):
                self._catch_up(tree, wait=False)

    def behind(self) -> list[str]:
        """The working trees that are not where their branch is, and what to do, for ``status``; a line each."""
        lines = []
        for tree in self.repo.worktrees():
            try:
                lines += self._stands_behind(tree)
            except GitpipeError:
                if tree.top.is_dir():
                    raise  # else somebody has removed it meanwhile
        return lines

    def _stands_behind(self, tree: Worktree) -> list[str]:
        old = self._left_at(tree)
        stamp = workdata.read_stamp(tree.git_dir)
        if old and tree.head:
            return [self._behind(tree, old, self._obstacle(tree, old, tree.head))]
        if stamp and tree.ref == HEADS + stamp.branch and self._of_another_commit(tree, stamp):
            return [
                f"{tree.top / DATA} holds the files of another commit than {stamp.branch} is on: "
                f"`git switch {stamp.branch}` brings its own there, and keeps what you changed"
            ]
        return []

    def check_commit(self, top: Path) -> None:
        """Before a commit by hand in the working tree `top`.

        Raises:
            Refused: the index is that of an earlier commit, as its branch moved without it: the commit would undo that.
        """
        with _moving([self._tree(top)]):
            tree = self._tree(top)
            old = self._left_at(tree)
            if old and tree.head:
                raise Refused(self._behind(tree, old, self._obstacle(tree, old, tree.head)))
            _write_note(tree, "")  # of a move that came to nothing

    def _behind(self, tree: Worktree, old: str, obstacle: tuple[list[str], bool]) -> str:
        branch = (tree.ref or "").removeprefix(HEADS)
        paths, tracked = obstacle
        more = f" and {len(paths) - 1} more are" if len(paths) > 1 else " is"
        why = f", as {printable(paths[0])}{more} changed in it" if paths else ""
        names = " ".join(map(shlex.quote, paths)) if len(paths) <= FEW else "PATH..."
        undo = f"`git checkout {old[:12]} -- {names}` undoes that, then " if tracked else ""
        return f"{tree.top} is behind {branch}{why}: {undo}`git switch {branch}` there brings it along"

    def _catch_up(self, tree: Worktree, *, aside: bool = False, wait: bool = True) -> list[str]:
        """Bring a working tree to its branch, if that moved without it; what was done, a line each.

        Args:
            aside: changed files of ``data/`` that are in the way are kept aside, as somebody is there to read it.
            wait: for somebody else who is at it (who may have been stopped by Ctrl-Z, which no runner should wait for).

        Raises:
            Refused: what is changed there is in the way, or git is at work there.
        """
        if self._left_at(tree) is None:
            return []
        with _moving([tree], wait=wait):
            tree = self._tree(tree.top)
            old = self._left_at(tree)
            if old is None or tree.head is None:
                return []  # whoever was moving it has come to the end
            paths, tracked = self._obstacle(tree, old, tree.head)
            if paths and (tracked or not aside):
                raise Refused(self._behind(tree, old, (paths, tracked)))
            lines = self._follow(tree, old, tree.head)
        if old == tree.head:
            return lines
        branch = (tree.ref or "").removeprefix(HEADS)
        return [f"{branch} moved while this working tree did not: brought it along", *lines]

    def _left_at(self, tree: Worktree) -> str | None:
        """The commit that a working tree is on in truth, where its branch moved without it; None where it did not.

        Whoever moves a data repo's branch leaves a note first.  The output of a pipeline moves by itself, and nobody
        commits there, so its tree is on the commit which the index is nearest to.  (HEAD itself: only ``data/`` is
        behind.)  One without a stamp was checked out with the hooks off, or before `init`.
        """
        if tree.ref is None or tree.head is None or not self._born(tree):
            return None
        old, new = read_note(tree)
        if new == tree.head and self._exists(old):
            return old
        stamp = workdata.read_stamp(tree.git_dir)
        branch = tree.ref.removeprefix(HEADS)
        if stamp and (stamp.commit == tree.head or stamp.branch != branch):
            return None
        if branch not in self.pipelines.owners(self.pipelines.head()):
            return None
        nearest, least = None, -1
        for commit in [tree.head, *self._before(tree.head), *([stamp.commit] if stamp else [])]:
            if least == 0 or not self._exists(commit):
                continue
            count = len(self._names("diff-index", "--cached", commit, tree=tree))
            if nearest is None or count < least:
                nearest, least = commit, count
        return nearest

    def _before(self, commit: str) -> list[str]:
        """The last few commits before `commit`, the nearest first."""
        found: list[str] = []
        while len(found) < LEFT_BEHIND and (parents := self.repo.commit(commit).parents):
            commit = parents[0]
            found.append(commit)
        return found

    def _obstacle(self, tree: Worktree, old: str, new: str) -> tuple[list[str], bool]:
        """The files that are changed in a working tree and by the way from `old` to `new`, as ``git merge`` finds them.

        Returns:
            Their paths, sorted, and whether git tracks them (else they are those of ``data/``).
        """
        self.repo.git("update-index", "-q", "--refresh", cwd=tree.top, accept=(0, 1, 128))
        changed = self._names("diff-index", old, tree=tree) & self._names("diff-index", new, tree=tree)
        both = sorted(changed & self._names("diff-tree", "-r", old, new, tree=tree))
        if both:
            return both, True
        branch = (tree.ref or "").removeprefix(HEADS)
        way: list[str] = []
        with contextlib.suppress(BadData):  # whoever brings data/ will say so
            listing = read_listing(self.repo, self.blobs, new)
            way = workdata.in_the_way(tree.top, tree.git_dir, self.blobs, branch, listing)
        return [f"{DATA}/{path}" for path in way], False

    def _names(self, *command: str, tree: Worktree) -> set[str]:
        verb, *rest = command
        return set(self.repo.git(verb, "--name-only", "-z", *rest, "--", cwd=tree.top).split("\0")) - {""}

    def _on(self, ref: str) -> list[Worktree]:
        return [tree for tree in self.repo.worktrees() if tree.ref == ref]

    def _exists(self, commit: str) -> bool:
        try:
            self.repo.commit(commit)
        except GitpipeError:
            return False
        return True

    def _dirty(self, tree: Worktree, commit: str) -> str:
        if not self.repo.tracked_clean(tree, commit):
            return "there are uncommitted changes"
        changed = workdata.changed(tree.top, tree.git_dir, self.blobs)
        return f"data/{changed[0]} is changed and not committed" if changed else ""

    def _follow(self, tree: Worktree, old: str, new: str) -> list[str]:
        """Bring index, tracked files and ``data/`` from `old` to `new` with what is changed there; lines to print.

        Raises:
            Refused: git is at work there, or an untracked file is in the way.
        """
        try:
            if not self.repo.tracked_clean(tree, new):
                self.repo.move_worktree(tree, old, new)
        except GitpipeError as error:
            raise Refused(f"{tree.top} cannot follow its branch: {error}; then `git switch` to that branch") from error
        lines = self._bring(tree, new)
        _write_note(tree, "")
        return lines

    # -- data/ of a working tree -------------------------------------------------------------------------------------

    def refresh(self, top: Path) -> list[str]:
        """Make ``data/`` of a working tree what its HEAD holds; lines that tell what was kept aside or is missing."""
        tree = self._tree(top)
        self.write_local_config(tree)
        try:
            lines = self._catch_up(tree, aside=True)
        except Refused as error:
            return [str(error)]
        return lines + self._bring(tree, tree.head if self._born(tree) else None)

    def tracks_data(self, commit: str) -> bool:
        """Whether git itself tracks files below ``data/`` there: then they are git's, and gitpipe keeps off."""
        return data_key(self.repo, commit).folder is not None

    def _bring(self, tree: Worktree, commit: str | None) -> list[str]:
        branch = self._branch(tree) or f"(detached {commit})"
        stamp = workdata.read_stamp(tree.git_dir)
        if commit is not None and self.tracks_data(commit):
            lines = self._leave(tree, commit, data_key(self.repo, commit).pointer, stamp, branch) if stamp else []
            tracked = self.repo.git("ls-files", "-z", "--", f"{DATA}/", cwd=tree.top).split("\0")
            gone = workdata.clear(
                tree.top, tree.git_dir, self.blobs, {path.removeprefix(f"{DATA}/") for path in tracked}
            )
            self._mark(tree, "")
            return lines + gone.lines()
        listing = read_listing(self.repo, self.blobs, commit) if commit else {}
        pointer = data_key(self.repo, commit).pointer if commit else None
        if pointer is None and not (tree.top / DATA).exists() and stamp is None:
            return []  # a branch without data in a tree that never had any: nothing to make, nothing to note
        self._take_renamed(tree)
        lines = self._leave(tree, commit, pointer, stamp, branch) if stamp else []
        outs = read_pointer(self.repo.blob(pointer), POINTER) if pointer else []
        # The pointer names the listing already; only older ways to track files need one to be made.
        oid = outs[0].md5 if len(outs) == 1 and outs[0].isdir and outs[0].path == DATA else ""
        oid = oid or self.blobs.put_listing(listing)
        brought = workdata.bring(tree.top, tree.git_dir, self.blobs, branch, commit or "", listing, oid)
        self._bring_index(tree, commit)
        self._mark(tree, pointer or "")
        return lines + brought.lines()

    def _branch(self, tree: Worktree) -> str:
        """The branch that ``data/`` belongs to: amidst a rebase the one that is rebased; "" where HEAD is detached."""
        if tree.ref:
            return tree.ref.removeprefix(HEADS)
        for folder in ("rebase-merge", "rebase-apply"):
            with contextlib.suppress(OSError):
                name = (tree.git_dir / folder / "head-name").read_text("utf-8", "surrogateescape").strip()
                return name.removeprefix(HEADS) if name.startswith(HEADS) else ""
        # `rebase --apply` that only has to go forward: a checkout, which runs a hook, and no word of the rest.
        stamp = workdata.read_stamp(tree.git_dir)
        said = self.repo.reflog_says("HEAD", tree.head or "", cwd=tree.top) or ""
        started = " (start): checkout " in said and stamp and self.repo.ref(HEADS + stamp.branch)
        return stamp.branch if stamp and started else ""

    def _leave(
        self, tree: Worktree, commit: str | None, pointer: str | None, stamp: workdata.Stamp, branch: str
    ) -> list[str]:
        """What was added and not committed counts as changed, and no ``data.dvc`` of another branch is carried along.

        Git takes a staged ``data.dvc`` to any branch whose own is the same, such as that of another empty repo.
        """
        if stamp.branch != branch and (
            stamp.branch in self._former_names(tree) or self._just_made(tree, stamp, commit)
        ):
            stamp = replace(stamp, branch=branch)
            workdata.write_stamp(tree.git_dir, stamp)
        if not self._committed(tree, stamp, commit):
            base = self.blobs.put_listing(self._listing_or_none(stamp.commit))
            workdata.write_stamp(tree.git_dir, replace(stamp, oid=base))
        if stamp.branch == branch or commit is None:
            return []
        if not self.repo.git("status", "--porcelain", "-z", "--", POINTER, cwd=tree.top):
            return []
        self.repo.git("reset", "-q", "--", POINTER, cwd=tree.top)
        if pointer:
            self.repo.git("checkout", "-q", "HEAD", "--", POINTER, cwd=tree.top)
        else:
            (tree.top / POINTER).unlink(missing_ok=True)
        return [f"{POINTER} as added on {stamp.branch} was not taken along: `gitpipe add data` again when back there"]

    def _committed(self, tree: Worktree, stamp: workdata.Stamp, commit: str | None) -> bool:
        """Whether the listing of `stamp` is that of some commit, or else was only added."""
        likely = [stamp.commit, commit or "", self.repo.ref(HEADS + stamp.branch) or ""]
        if any(self._oid(sha) == stamp.oid for sha in likely if sha):
            return True
        # HEAD's own log too: the branch may have another name since, or be gone.
        logs = self.repo.reflog(HEADS + stamp.branch, 50) + self.repo.reflog("HEAD", 50, cwd=tree.top)
        return any(self._oid(sha) == stamp.oid for sha in dict.fromkeys(logs))

    def _oid(self, commit: str) -> str | None:
        """The listing that ``data.dvc`` of a commit names; the empty one's where there is none."""
        if not self._exists(commit):
            return None
        pointer = data_key(self.repo, commit).pointer
        outs = read_pointer(self.repo.blob(pointer), POINTER) if pointer else []
        return outs[0].md5 if outs else self.blobs.put_listing({})

    def _listing_or_none(self, commit: str) -> Listing:
        return read_listing(self.repo, self.blobs, commit) if commit and self._exists(commit) else {}

    def _former_names(self, tree: Worktree) -> set[str]:
        """What the branch of a working tree was called before (``git branch -m`` runs no hook), and no other is now."""
        if tree.ref is None:
            return set()
        names = {tree.ref}
        for message in self.repo.reflog_messages(tree.ref):  # the newest first
            before, _, after = message.removeprefix("Branch: renamed ").partition(" to ")
            if message.startswith("Branch: renamed ") and after in names:
                names.add(before)
        return {name.removeprefix(HEADS) for name in names if not self.repo.ref(name)}

    def _just_made(self, tree: Worktree, stamp: workdata.Stamp, commit: str | None) -> bool:
        """Whether the branch of a working tree was made of what was checked out there, and is on it for the first time.

        What is changed goes along then, as people who type ``git switch -c`` after they have changed something expect.
        """
        if tree.ref is None or commit is None:
            return False
        if self.repo.ref(HEADS + stamp.branch) != commit and stamp.branch != f"(detached {commit})":
            return False
        if self.repo.reflog_messages(tree.ref) != ["branch: Created from HEAD"]:
            return False
        arrival = f" to {tree.ref.removeprefix(HEADS)}"
        came = [said for said in self.repo.reflog_messages("HEAD", cwd=tree.top) if said.endswith(arrival)]
        return len(came) == 1

    def _take_renamed(self, tree: Worktree) -> None:
        """What is kept aside for a branch that was renamed is kept aside for it under its new name."""
        sets = [kept for kept in kept_sets(tree.git_dir) if tree.ref and not self.repo.ref(HEADS + kept.branch)]
        former = self._former_names(tree) if sets else set()
        for kept in sets:
            if kept.branch in former:
                replace(kept, branch=(tree.ref or "").removeprefix(HEADS)).write()

    def kept_aside(self) -> list[str]:
        """The files that lie aside and did not come back yet, of all working trees, for ``status``; a line each set."""
        on = {tree.git_dir.name if tree.git_dir != self.repo.common else "": tree.ref for tree in self.repo.worktrees()}
        lines = []
        for kept in all_kept(self.repo.common):
            paths, ref = kept.lying(), HEADS + kept.branch
            if not paths:
                continue
            more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            lines.append(
                f"{DATA}/{printable(paths[0])}{more} of {kept.branch} is kept aside in "
                f"{printable(str(kept.folder / 'files'))}: "
                + (
                    f"`git switch {kept.branch}` brings it back where it still fits"
                    if self.repo.ref(ref) and on.get(kept.tree) != ref
                    else "copy it back if you want it, and delete that folder"
                )
            )
        return lines

    def _bring_index(self, tree: Worktree, commit: str | None) -> None:
        """An output branch's datum index is DVC-tracked too: with its files there, ``dvc status`` is content."""
        folder = tree.top / datumindex.FOLDER
        listing = datumindex.segments(self.repo, self.blobs, commit) if commit else {}
        for old in folder.iterdir() if folder.is_dir() else ():
            if old.name not in listing:
                old.unlink()
        if not listing:
            if folder.is_dir():
                folder.rmdir()
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name, md5 in listing.items():
            target = folder / name
            if self.blobs.has(md5) and (not target.exists() or target.read_bytes() != self.blobs.read(md5)):
                target.unlink(missing_ok=True)
                target.write_bytes(self.blobs.read(md5))

    def _mark(self, tree: Worktree, pointer: str) -> None:
        """What ``data/`` stands for, a ``data.dvc`` and HEAD: the hooks compare it before they start Python."""
        head = (tree.git_dir / "HEAD").read_text(encoding="utf-8", errors="surrogateescape").strip()
        where = head if head.startswith("ref: ") else "detached"  # there HEAD moves with each step of a rebase
        text = f"{pointer}\n{where}\n"
        (tree.git_dir / BLOB_MARK).write_text(text, encoding="utf-8", errors="surrogateescape")

    def write_local_config(self, tree: Worktree) -> None:
        """Point DVC in a working tree to the one cache of all of them."""
        folder = tree.top / ".dvc"
        if not folder.is_dir():
            return
        if read_config(folder).cache_dir == self.blobs.cache:
            return
        local = folder / "config.local"
        sections = read_file(local)
        sections.setdefault("cache", {})["dir"] = str(self.blobs.cache)
        local.write_text(format_config(sections))

    # -- gitpipe add -------------------------------------------------------------------------------------------------

    def add(self, paths: Sequence[str], cwd: Path, *, force: bool = False) -> list[str]:
        """Track ``data/`` (or paths below it) of the working tree at `cwd`, and stage what git has to commit.

        Raises:
            Refused: this branch is no data repo, is a pipeline's output, or ``data/`` belongs to another branch.
        """
        tree = self._here(cwd)
        branch = self._branch(tree)
        self._check_add(tree, branch, force)
        lines = self._catch_up(tree, aside=True)
        self._adopt(tree, branch)
        self._take_renamed(tree)
        stamp = workdata.read_stamp(tree.git_dir)
        if tree.ref is None and stamp and stamp.commit != tree.head:
            lines += self._bring(tree, tree.head)  # where a rebase has come to; no hook tells of its steps
        self.write_local_config(tree)
        wanted = [self._below_data(tree, cwd, path) for path in paths]
        old = self._pointer_text(tree)
        outs = read_pointer(old, POINTER) if old else []
        if not force:
            self._check_ground(tree, branch, wanted, outs[0].md5 if outs and outs[0].isdir else "")
        base = outs[0].md5 if outs and outs[0].isdir else ""
        if theirs := self._other_side(tree, branch, base):
            told, base = self._take_over(tree, branch, *theirs, force=force)
            lines += told
        result = workdata.add(tree.top, tree.git_dir, self.blobs, wanted, branch, base=base)
        pointer = write_pointer(DATA, result.oid, result.size, result.nfiles, old)
        files = {POINTER: pointer}
        for name, text in ((".gitignore", GITIGNORE), (".dvcignore", DVCIGNORE), (".dvc/.gitignore", DVC_GITIGNORE)):
            if not (tree.top / name).exists():
                files[name] = text
        if not (tree.top / ".dvc/config").exists():
            files[".dvc/config"] = self.pipelines.branch_config() or b""
        for name, content in files.items():
            (tree.top / name).parent.mkdir(exist_ok=True)
            (tree.top / name).write_bytes(content)
        self._ignore_data(tree, files)
        self.repo.git("add", "-f", "--", *sorted(files), cwd=tree.top)
        workdata.write_stamp(tree.git_dir, workdata.Stamp(branch, tree.head or "", result.oid))
        self._mark(tree, self.repo.git("rev-parse", f":{POINTER}", cwd=tree.top).strip())
        self.write_local_config(tree)
        counts = f"{len(result.added)} added, {len(result.changed)} changed, {len(result.deleted)} deleted"
        lines += [f"{POINTER}: {result.nfiles} file{'' if result.nfiles == 1 else 's'} ({counts}); next: git commit"]
        lines += [f"{DATA}/{path} is a link to a folder and is not tracked" for path in result.skipped]
        return lines + self._kept_aside(tree, branch)

    def _kept_aside(self, tree: Worktree, branch: str) -> list[str]:
        """A line if files of this branch lie aside, as it had changed them too: nobody else will think of them."""
        found = [(kept, path) for kept in kept_sets(tree.git_dir, branch) for path in kept.lying()]
        if not found:
            return []
        kept, path = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        where = f"{DATA}/{printable(path)} of {branch} is kept aside as {printable(str(kept.where(path)))}{more}"
        return [f"{where}: copy it back if you want it, and delete {printable(str(kept.folder))}"]

    def _check_ground(self, tree: Worktree, branch: str, wanted: Sequence[str], base: str) -> None:
        """``data/`` is made from what is checked out: else files that were never here, or reset away, would be lost
        or come back with what is added."""
        stamp = workdata.read_stamp(tree.git_dir)
        if base and not self.blobs.has(base) and (stamp is None or stamp.oid != base or set(wanted) != {DATA}):
            raise Refused(
                f"the files of {branch} are not here, and would be lost: `dvc pull` brings them "
                "(or `gitpipe add --force` to go on without them)"
            )
        if stamp is None and base and set(wanted) == {DATA} and self._born(tree) and not self._any_here(tree, base):
            # A worktree that was made without hooks (core.hooksPath, GITPIPE=0), or with data/ removed since.
            raise Refused(
                f"the files of {branch} were never brought here, and would be deleted: `gitpipe add {DATA}/FILE` "
                f"adds to them, `dvc checkout` brings them (or `gitpipe add --force {DATA}`)"
            )
        if stamp is None or stamp.branch != branch or not self._born(tree):
            return
        if self._of_another_commit(tree, stamp):
            raise Refused(
                f"{DATA}/ holds the files of another commit than the one that {branch} was reset to: "
                f"`git switch {branch}` brings its own, and keeps what you changed (or `gitpipe add --force`)"
            )

    def _of_another_commit(self, tree: Worktree, stamp: workdata.Stamp) -> bool:
        """Whether ``data/`` is that of a commit which HEAD and ``data.dvc`` were taken away from (`git reset --hard`).

        After ``reset --soft`` and ``--mixed``, which are to keep what is there, ``data.dvc`` is not that of HEAD.
        """
        if not self._born(tree) or stamp.oid == self._oid(tree.head or ""):
            return False
        if self.repo.git("status", "--porcelain", "--", POINTER, cwd=tree.top):
            return False
        return self._committed(tree, stamp, tree.head)

    def _any_here(self, tree: Worktree, base: str) -> bool:
        """Whether ``data/`` has a file of any name that the listing `base` has, or that has none."""
        listing = self.blobs.read_listing(base)
        return not listing or any(os.path.lexists(tree.top / DATA / path) for path in listing)

    def _other_side(self, tree: Worktree, branch: str, staged: str) -> tuple[Listing, str] | None:
        """What git brought into ``data.dvc`` without telling gitpipe, which runs no hook before the commit.

        That is the other side of a conflict (merge, cherry-pick, revert), or a pointer of some commit that is staged
        (``cherry-pick -n``, ``merge --squash``, ``git checkout COMMIT -- data.dvc``), and not ``dvc add``'s.

        Returns:
            The listing that it was changed from, and the blob of its pointer; None where all is as gitpipe left it.
        """
        stamp = workdata.read_stamp(tree.git_dir)
        if stamp and (stamp.branch != branch or stamp.towards):
            return None  # `workdata.add` will say so
        unmerged = self.repo.git("ls-files", "-u", "--", POINTER, cwd=tree.top).splitlines()
        sides = {words[2]: words[1] for words in map(str.split, unmerged)}
        if sides:
            before: Listing = {}
            with contextlib.suppress(BadData):  # two merge bases make one with marks of a conflict in it
                before = self._files_of(sides["1"]) if "1" in sides else {}
            return (before, sides["3"]) if "3" in sides else None
        if stamp is None or not staged or not self._born(tree) or staged in (stamp.oid, self._oid(tree.head or "")):
            return None
        blob = self.repo.git("hash-object", "--", POINTER, cwd=tree.top).strip()
        return (self.blobs.read_listing(stamp.oid), blob) if self._commit_with(blob) else None

    def _take_over(
        self, tree: Worktree, branch: str, before: Listing, blob: str, *, force: bool
    ) -> tuple[list[str], str]:
        """Bring what the other side changed since `before` into ``data/``, file by file; what is changed here stays.

        Returns:
            Lines to print, and the listing that ``data/`` is made from now.

        Raises:
            Refused: files that both sides changed, unless forced: then they stay as they are.
        """
        stamp = workdata.read_stamp(tree.git_dir)
        if stamp is None:
            stamp = workdata.Stamp(branch, tree.head or "", self._oid(tree.head or "") or self.blobs.put_listing({}))
            workdata.write_stamp(tree.git_dir, stamp)
        theirs = self._files_of(blob)
        taken, clashes = workdata.other_side(tree.top, tree.git_dir, self.blobs, before, theirs)
        if clashes and not force:
            commit = self._commit_with(blob) or ""
            get = self._how_to_get(commit) if commit else f"gitpipe get-file REPO COMMIT FILE -o {DATA}/FILE"
            names = [
                f"{DATA}/{printable(path)}{'' if path in theirs else ' (deleted there)'}" for path in clashes[:FEW]
            ]
            what = f"{len(clashes)} files are" if len(clashes) > 1 else "one file is"
            raise Refused(
                f"{what} changed both here and in commit {commit[:12]}: `{get}` takes theirs, else leave each as you "
                f"want it; then `gitpipe add --force {DATA}`",
                names + ([f"and {len(clashes) - FEW} more"] if len(clashes) > FEW else []),
            )
        listing = self.blobs.read_listing(stamp.oid)
        for path, md5 in taken.items():
            if md5 is None:
                listing.pop(path, None)
            else:
                listing[path] = md5
        oid = self.blobs.put_listing(listing)
        self.blobs.sync()
        brought = workdata.bring(tree.top, tree.git_dir, self.blobs, branch, stamp.commit, listing, oid)
        first = next(iter(taken), "")
        more_taken = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        told = [f"taken from the other side: {DATA}/{printable(first)}{more_taken}"] if taken else []
        return told + brought.lines(), oid

    def _how_to_get(self, commit: str) -> str:
        """The command that puts a FILE of it into ``data/``."""
        branches = self.repo.git("for-each-ref", "--format=%(refname)", f"--contains={commit}", "refs/heads").split()
        for ref in branches:
            name, _ = repo_of(ref.removeprefix(HEADS))
            with contextlib.suppress(BadName):
                check_name("repo", name)
                return f"gitpipe get-file {name} {commit[:12]} FILE -o {DATA}/FILE"
        return f"dvc get --force --rev {commit[:12]} -o {DATA}/FILE . {DATA}/FILE"

    def _files_of(self, blob: str) -> Listing:
        """The listing that a ``data.dvc``, given by its blob, names."""
        outs = read_pointer(self.repo.blob(blob), POINTER)
        if not outs or not outs[0].isdir:
            return {}
        if not self.blobs.has(outs[0].md5):
            self.blobs.fetch([outs[0].md5])
        return self.blobs.read_listing(outs[0].md5)

    def _commit_with(self, blob: str) -> str | None:
        """A commit, of any branch here or lately here, whose ``data.dvc`` is `blob`."""
        log = ("log", "--all", "--reflog", "-m", f"--find-object={blob}", "--format=%H", "--", POINTER)
        found = self.repo.git(*log).split()
        return next((sha for sha in found if data_key(self.repo, sha).pointer == blob), None)

    def _adopt(self, tree: Worktree, branch: str) -> None:
        """After a rename, or a rebase that ended on the data it began with, ``data/`` is this branch's all the same."""
        stamp = workdata.read_stamp(tree.git_dir)
        if stamp is None or stamp.branch == branch or not self._born(tree):
            return
        detached = stamp.branch.startswith("(") and self._oid(tree.head or "") == stamp.oid
        if detached or stamp.branch in self._former_names(tree):
            workdata.write_stamp(tree.git_dir, replace(stamp, branch=branch))

    def _ignore_data(self, tree: Worktree, files: dict[str, bytes]) -> None:
        """DVC lists what it tracks in ``.gitignore``; an existing one gains the line."""
        path = tree.top / ".gitignore"
        lines = path.read_bytes().split(b"\n")
        if b"/data" not in lines:
            text = path.read_bytes()
            path.write_bytes(text + (b"" if not text or text.endswith(b"\n") else b"\n") + b"/data\n")
            files[".gitignore"] = path.read_bytes()

    def _pointer_text(self, tree: Worktree) -> str | None:
        """The current ``data.dvc``; amidst a merge that left marks of a conflict in it, ours."""
        if self.repo.git("ls-files", "-u", "--", POINTER, cwd=tree.top):
            pointer = data_key(self.repo, tree.head or "").pointer
            return self.repo.blob(pointer).decode("utf-8", "replace") if pointer else None
        path = tree.top / POINTER
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    def _check_add(self, tree: Worktree, branch: str, force: bool) -> None:
        if tree.ref is None and branch and self.repo.git("ls-files", "-u", "--", POINTER, cwd=tree.top):
            raise Refused(
                f"a rebase stands still here: choose a side with `git checkout --ours {POINTER}` or `--theirs`, "
                f"`git add {POINTER}`, `git rebase --continue`, and change the data after that"
            )
        if not branch:
            raise Refused("HEAD is detached here: `git switch` to the branch that the data is for")
        from gitpipe.graph import owners, reads  # not at the top: post-checkout needs none of it

        pipelines = self.pipelines.all(self.pipelines.head())
        if branch in owners({name: p.spec for name, p in pipelines.items()}):
            raise Refused(f"{branch} is the output of a pipeline: add data to one of its inputs")
        if branch == SPEC_BRANCH:
            raise Refused(f"{SPEC_BRANCH} holds the pipelines' specs, no data: switch to a data repo's branch")
        if not self._born(tree) or force:
            return
        head = tree.head or ""
        key = data_key(self.repo, head)
        if key.folder:
            raise Refused(
                f"git tracks files below data/ on {branch}: use a data repo's branch in a worktree of its own"
            )
        if not key.pointer and not any(branch in reads(p.spec) for p in pipelines.values()):
            raise Refused(
                f"{branch} is not a data repo: `gitpipe create-repo NAME`, then `git worktree add ../NAME NAME` "
                "(or `gitpipe add --force` to make it one)"
            )

    def _below_data(self, tree: Worktree, cwd: Path, path: str) -> str:
        """A typed path as one relative to the working tree: ``data`` or below."""
        full = Path(path) if Path(path).is_absolute() else cwd / path
        # Not resolved: a symbolic link below data/ is data, and what it leads to is checked by the scan.
        parts: list[str] = []
        for part in full.parts:
            if part == "..":
                del parts[-1:]
            elif part != ".":
                parts.append(part)
        lexical = Path(*parts)
        for top in (tree.top, tree.top.resolve()):
            if lexical == top / DATA or (top / DATA) in lexical.parents:
                return lexical.relative_to(top).as_posix()
        raise UsageError(f"{path}: gitpipe tracks what lies in data/: `gitpipe add data`")

    def _here(self, cwd: Path) -> Worktree:
        if self.repo.top is None:
            raise Refused("this is a bare repository: `gitpipe put-file REPO -f FILE` puts data without a checkout")
        return self._tree(self.repo.top)

    def _tree(self, top: Path) -> Worktree:
        for tree in self.repo.worktrees():
            if tree.top.resolve() == top.resolve():
                return tree
        raise GitpipeError(f"{top} is not a working tree of this repository")

    def _born(self, tree: Worktree) -> bool:
        return tree.head is not None and set(tree.head) != {"0"}
