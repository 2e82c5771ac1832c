"""Working trees and branches together: no file of one repo lands in another, nothing uncommitted is overwritten (I6).

Branches move here, together with the clean working trees that stand on them; ``data/`` is brought to what a branch
holds; ``gitpipe add`` turns ``data/`` into a pointer in the index.  What happens inside ``data/``: `gitpipe.workdata`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gitpipe import datumindex, workdata
from gitpipe.blobs.config import DvcConfig, format_config, read_config, read_file
from gitpipe.blobs.dvc import DvcStore
from gitpipe.blobs.pointers import DVC_GITIGNORE, DVCIGNORE, GITIGNORE, read_pointer, write_pointer
from gitpipe.commit import SPEC_BRANCH, Listing
from gitpipe.datatree import DATA, POINTER, data_key, read_listing
from gitpipe.errors import GitpipeError, Refused, UsageError
from gitpipe.graph import owners, reads
from gitpipe.pipelines import PipelineStore
from gitpipe.repo import HEADS, RefUpdate, Repo, Worktree
from gitpipe.scan import printable

BLOB_MARK = "gitpipe-data"
LEFT_BEHIND = 3  # so many commits back a working tree is looked for that a kill left behind


@dataclass(frozen=True, slots=True)
class Behind:
    """A working tree that stands on a branch that moved without it, and why it could not follow."""

    tree: Worktree
    reason: str


def blob_store(repo: Repo, cache: str, top: Path | None) -> DvcStore:
    """The one blob cache of all working trees: below the common git dir, where `git clean` does not reach, or `cache`,
    where DVC was told when `init` ran.  What the ``.dvc/config`` of a branch says of it does not count: data branches
    have others than main, and it may have come by fetch (I12).

    Args:
        cache: git config ``gitpipe.cache``, or "".
        top: the working tree whose DVC configuration says how files are linked, and which remotes there are.
    """
    config = read_config(top / ".dvc") if top else DvcConfig()
    folder = Path(cache) if cache else repo.common / "dvc" / "cache"
    return DvcStore(folder, cache_types=config.cache_types, shared=config.shared, fetch_root=top)


class Checkouts:
    """The working trees of one repository."""

    def __init__(self, repo: Repo, blobs: DvcStore, pipelines: PipelineStore) -> None:
        self.repo, self.blobs, self.pipelines = repo, blobs, pipelines

    # -- branches that move ------------------------------------------------------------------------------------------

    def move_branch(
        self, ref: str, new: str, old: str, reason: str, *, strict: bool, also: Sequence[RefUpdate] = ()
    ) -> bool:
        """Move a branch, and the clean working trees on it; False where it was not on `old` any more.

        Args:
            strict: a dirty working tree on it is a refusal instead of being left behind.

        Raises:
            Refused: naming the dirty working tree.
        """
        trees = self._on(ref)
        for tree in trees:
            why = self._dirty(tree, old)
            if why and strict and self._left_behind(tree, old):
                why = self._dirty(tree, old)
            if why and strict:
                raise Refused(f"{ref.removeprefix(HEADS)} is checked out in {tree.top}, where {why}: commit it first")
        if not self.repo.update_refs([RefUpdate(ref, new, old), *also], reason):
            return False
        for tree in trees:
            self._follow(tree, old, new)
        return True

    def _left_behind(self, tree: Worktree, head: str) -> bool:
        """Whether a kill left this working tree one of the last few commits behind its branch; then it is brought on.

        Index, tracked files and ``data/`` are all those of that commit, so nothing of the user's is in them.  (A revert
        that is staged by hand has the index of an earlier commit, but not its ``data/``.)
        """
        stamp = workdata.read_stamp(tree.git_dir)
        commit = head
        for _ in range(LEFT_BEHIND):
            parents = self.repo.commit(commit).parents
            if stamp is None or not parents:
                return False
            commit = parents[0]
            if self._oid(commit) == stamp.oid and not self._dirty(tree, commit):
                self._follow(tree, commit, head)
                return True
        return False

    def catch_up(self, ref: str) -> list[Behind]:
        """Bring the clean working trees on `ref` to where it is now; those that cannot be.

        What the index holds says where a working tree was left, so this also mends what a kill in between left.
        """
        head = self.repo.ref(ref)
        behind: list[Behind] = []
        for tree in self._on(ref):
            stamp = workdata.read_stamp(tree.git_dir)
            if head is None or stamp is None or stamp.commit == head:
                continue
            if stamp.branch != ref.removeprefix(HEADS) or not self._exists(stamp.commit):
                continue
            if self.repo.tracked_clean(tree, head):
                self._bring(tree, head)  # git itself has moved it; only data/ is behind
                continue
            why = self._dirty(tree, stamp.commit)
            if why:
                behind.append(Behind(tree, why))
            else:
                self._follow(tree, stamp.commit, head)
        return behind

    def catch_up_all(self) -> None:
        """`catch_up` for every output branch that is checked out somewhere."""
        owned = self.pipelines.owners(self.pipelines.head())
        for tree in self.repo.worktrees():
            if tree.ref is not None and tree.ref.removeprefix(HEADS) in owned:
                self.catch_up(tree.ref)

    def behind(self) -> list[Behind]:
        """Working trees that did not follow their branch, for ``status``."""
        found = []
        owned = self.pipelines.owners(self.pipelines.head())
        for tree in self.repo.worktrees():
            if tree.ref is None or tree.ref.removeprefix(HEADS) not in owned:
                continue
            stamp = workdata.read_stamp(tree.git_dir)
            if tree.head is None or stamp is None or stamp.commit == tree.head:
                continue
            if stamp.branch == tree.ref.removeprefix(HEADS) and not self.repo.tracked_clean(tree, tree.head):
                found.append(Behind(tree, "it has uncommitted changes"))
        return found

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

    def _follow(self, tree: Worktree, old: str, new: str) -> None:
        if self._dirty(tree, old):
            return
        try:
            self.repo.move_worktree(tree, old, new)
        except GitpipeError:
            return  # a file appeared in between; `status` says that the tree is behind
        self._bring(tree, new)

    # -- data/ of a working tree -------------------------------------------------------------------------------------

    def refresh(self, top: Path) -> list[str]:
        """Make ``data/`` of a working tree what its HEAD holds; lines that tell what was kept aside or is missing."""
        for tree in self.repo.worktrees():
            if tree.top.resolve() == top.resolve():
                self.write_local_config(tree)
                return self._bring(tree, tree.head if tree.head and set(tree.head) != {"0"} else None)
        raise GitpipeError(f"{top} is not a working tree of this repository")

    def tracks_data(self, commit: str) -> bool:
        """Whether git itself tracks files below ``data/`` there: then they are git's, and gitpipe keeps off."""
        return data_key(self.repo, commit).folder is not None

    def _bring(self, tree: Worktree, commit: str | None) -> list[str]:
        branch = tree.ref.removeprefix(HEADS) if tree.ref else f"(detached {commit})"
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
        lines = self._leave(tree, commit, pointer, stamp, branch) if stamp else []
        outs = read_pointer(self.repo.blob(pointer), POINTER) if pointer else []
        # The pointer names the listing already; only older ways to track files need one to be made.
        oid = outs[0].md5 if len(outs) == 1 and outs[0].isdir and outs[0].path == DATA else ""
        oid = oid or self.blobs.put_listing(listing)
        brought = workdata.bring(tree.top, tree.git_dir, self.blobs, branch, commit or "", listing, oid)
        self._bring_index(tree, commit)
        self._mark(tree, pointer or "")
        return lines + brought.lines()

    def _leave(
        self, tree: Worktree, commit: str | None, pointer: str | None, stamp: workdata.Stamp, branch: str
    ) -> list[str]:
        """What was added and not committed counts as changed, and no ``data.dvc`` of another branch is carried along.

        Git takes a staged ``data.dvc`` to any branch whose own is the same, such as that of another empty repo.
        """
        if stamp.branch != branch and self._renamed(stamp.branch, tree):
            stamp = replace(stamp, branch=branch)
            workdata.write_stamp(tree.git_dir, stamp)
        if not self._committed(stamp, commit):
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

    def _committed(self, stamp: workdata.Stamp, commit: str | None) -> bool:
        """Whether the listing of `stamp` is that of some commit, or else was only added."""
        likely = [stamp.commit, commit or "", self.repo.ref(HEADS + stamp.branch) or ""]
        if any(self._oid(sha) == stamp.oid for sha in likely if sha):
            return True
        return any(self._oid(sha) == stamp.oid for sha in self.repo.reflog(HEADS + stamp.branch, 50))

    def _oid(self, commit: str) -> str | None:
        """The listing that ``data.dvc`` of a commit names; the empty one's where there is none."""
        if not self._exists(commit):
            return None
        pointer = data_key(self.repo, commit).pointer
        outs = read_pointer(self.repo.blob(pointer), POINTER) if pointer else []
        return outs[0].md5 if outs else self.blobs.put_listing({})

    def _listing_or_none(self, commit: str) -> Listing:
        return read_listing(self.repo, self.blobs, commit) if commit and self._exists(commit) else {}

    def _renamed(self, old: str, tree: Worktree) -> bool:
        """Whether the branch of a working tree was called `old` before (``git branch -m`` runs no hook)."""
        if tree.ref is None or tree.head is None or self.repo.ref(HEADS + old):
            return False
        said = self.repo.reflog_says(tree.ref, tree.head) or ""
        return said == f"Branch: renamed {HEADS}{old} to {tree.ref}"

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
        branch = tree.ref.removeprefix(HEADS) if tree.ref else ""
        self._check_add(tree, branch, force)
        self._adopt(tree, branch)
        self.write_local_config(tree)
        wanted = [self._below_data(tree, cwd, path) for path in paths]
        old = self._pointer_text(tree)
        outs = read_pointer(old, POINTER) if old else []
        if not force:
            self._check_ground(tree, branch, wanted, outs[0].md5 if outs and outs[0].isdir else "")
        left = self._left_out(tree)
        result = workdata.add(
            tree.top, tree.git_dir, self.blobs, wanted, branch, base=outs[0].md5 if outs and outs[0].isdir else ""
        )
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
        lines = [f"{POINTER}: {result.nfiles} file{'' if result.nfiles == 1 else 's'} ({counts}); next: git commit"]
        lines += [f"{DATA}/{path} is a link to a folder and is not tracked" for path in result.skipped]
        gone = sorted(path for path, md5 in left.items() if result.listing.get(path) != md5)
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            lines.append(f"not taken from the other side of the merge: {DATA}/{printable(gone[0])}{more}")
        return lines

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
        if stamp.oid == self._oid(tree.head or "") or self.repo.git("status", "--porcelain", POINTER, cwd=tree.top):
            return
        if self._committed(stamp, tree.head):
            raise Refused(
                f"{DATA}/ holds the files of another commit than the one that {branch} was reset to: "
                f"`git switch {branch}` brings its own, and keeps what you changed (or `gitpipe add --force`)"
            )

    def _any_here(self, tree: Worktree, base: str) -> bool:
        """Whether ``data/`` has a file of any name that the listing `base` has, or that has none."""
        listing = self.blobs.read_listing(base)
        return not listing or any(os.path.lexists(tree.top / DATA / path) for path in listing)

    def _left_out(self, tree: Worktree) -> Listing:
        """Amidst a merge that ended in a conflict of ``data.dvc``: what the other side added or changed."""
        sides = {
            words[2]: words[1]
            for words in (
                line.split() for line in self.repo.git("ls-files", "-u", "--", POINTER, cwd=tree.top).splitlines()
            )
        }
        if "3" not in sides:
            return {}

        def files(stage: str) -> Listing:
            outs = read_pointer(self.repo.blob(sides[stage]), POINTER) if stage in sides else []
            there = outs and outs[0].isdir and self.blobs.has(outs[0].md5)
            return self.blobs.read_listing(outs[0].md5) if there else {}

        before = files("1")
        return {path: md5 for path, md5 in files("3").items() if before.get(path) != md5}

    def _adopt(self, tree: Worktree, branch: str) -> None:
        """After a rename, or a rebase that ended on the data it began with, ``data/`` is this branch's all the same."""
        stamp = workdata.read_stamp(tree.git_dir)
        if stamp is None or stamp.branch == branch or not self._born(tree):
            return
        detached = stamp.branch.startswith("(") and self._oid(tree.head or "") == stamp.oid
        if detached or self._renamed(stamp.branch, tree):
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
        if not branch:
            if any((tree.git_dir / name).is_dir() for name in ("rebase-merge", "rebase-apply")):
                raise Refused(
                    f"a rebase stands still here: choose a side with `git checkout --ours {POINTER}` or `--theirs`, "
                    f"`git add {POINTER}`, `git rebase --continue`, and change the data after that"
                )
            raise Refused("HEAD is detached here: `git switch` to the branch that the data is for")
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
        for tree in self.repo.worktrees():
            if tree.top.resolve() == self.repo.top.resolve():
                return tree
        raise GitpipeError(f"{cwd} is not in a working tree")

    def _born(self, tree: Worktree) -> bool:
        return tree.head is not None and set(tree.head) != {"0"}
