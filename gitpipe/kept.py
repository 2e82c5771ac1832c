"""Files kept aside: changed files that a checkout would have overwritten, each with the version it was changed from.

They lie in the common git dir, ``gitpipe-kept/<branch>-<n>/files/…``, those of a linked worktree in
``gitpipe-kept/<worktree>+<branch>-<n>``: its own git dir goes with it.  Each has a ``manifest.json``.  Knows nothing of
listings; `gitpipe.workdata` decides what is kept and what comes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from gitpipe.scan import replace_file

KEPT = "gitpipe-kept"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """One file kept aside: its path below ``data/``, where it lies now, and the branch it was changed on."""

    path: str
    where: Path
    branch: str


@dataclass(frozen=True, slots=True)
class KeptSet:
    """What one checkout kept aside.

    Attributes:
        folder: where it lies.
        branch, commit: what ``data/`` held then.
        files: path -> md5 that the branch had there, None where it had nothing.
        tree: the worktree that it is from, by the name of its git dir; "" for the main one.
        deleted: path -> md5 of what was deleted and not added: to be deleted again.
    """

    folder: Path
    branch: str
    commit: str
    files: Mapping[str, str | None]
    tree: str = ""
    deleted: Mapping[str, str] = field(default_factory=dict)

    def where(self, path: str) -> Path:
        """Where the kept file for `path` lies."""
        return self.folder / "files" / path

    def lying(self) -> list[str]:
        """The paths of `files` that are still here."""
        return [path for path in self.files if os.path.lexists(self.where(path))]

    def write(self) -> None:
        """Write the manifest; before the files, so that no file ever lies there without one.

        One that is written again keeps its time, by which the newest set comes first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = self.folder / _MANIFEST
        before = manifest.stat() if manifest.exists() else None
        raw = {
            "branch": self.branch,
            "commit": self.commit,
            "files": dict(self.files),
            "tree": self.tree,
            "deleted": dict(self.deleted),
        }
        replace_file(manifest, json.dumps(raw, indent=1).encode())
        if before:
            os.utime(manifest, ns=(before.st_atime_ns, before.st_mtime_ns))

    def settle(self) -> None:
        """Forget what was deleted and the files that went back; the folder of a set with nothing left goes.

        Nothing else is removed, whoever laid it there.
        """
        left = self.lying()
        if left and (self.deleted or len(left) < len(self.files)):
            replace(self, files={path: self.files[path] for path in left}, deleted={}).write()
        if left:
            return
        (self.folder / _MANIFEST).unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


class Aside:
    """Moves files of one checkout aside, into a set that is made when the first one comes."""

    def __init__(self, git_dir: Path, data: Path, branch: str, commit: str) -> None:
        self._git_dir, self._data, self._branch, self._commit = git_dir, data, branch, commit
        self._set: KeptSet | None = None
        self.kept: list[Kept] = []

    def move(self, files: Mapping[str, str | None], deleted: Mapping[str, str] | None = None) -> None:
        """Move `files` (path -> md5 that they were changed from) out of ``data/``, and note what was `deleted`."""
        if not files and not deleted:
            return
        if self._set is None or any(os.path.lexists(self._set.where(path)) for path in files):
            folder, tree = _new_folder(self._git_dir, self._branch)
            self._set = KeptSet(folder, self._branch, self._commit, {}, tree)
        self._set = replace(
            self._set, files={**self._set.files, **files}, deleted={**self._set.deleted, **(deleted or {})}
        )
        self._set.write()
        for path in files:
            where = self._set.where(path)
            where.parent.mkdir(parents=True, exist_ok=True)
            move(self._data / path, where)
            self.kept.append(Kept(path, where, self._branch))


def move(source: Path, target: Path) -> None:
    """Rename, across file systems too (then copied, and only after that removed)."""
    try:
        os.rename(source, target)
    except OSError as exc:
        import errno

        if exc.errno != errno.EXDEV:
            raise
        shutil.move(source, target)


def _place(git_dir: Path) -> tuple[Path, str]:
    """The common git dir of the working tree with git dir `git_dir`, and the tree's name; "" for the main one."""
    try:
        common = (git_dir / "commondir").read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return git_dir, ""
    return Path(os.path.normpath(git_dir / common)), git_dir.name


def _new_folder(git_dir: Path, branch: str) -> tuple[Path, str]:
    common, tree = _place(git_dir)
    name = (f"{quote(tree)}+" if tree else "") + (quote(branch, safe="@") or "unnamed")
    number = 1
    while (common / KEPT / f"{name}-{number}").exists():
        number += 1
    return common / KEPT / f"{name}-{number}", tree


def kept_sets(git_dir: Path, branch: str | None = None) -> list[KeptSet]:
    """What is kept aside (of `branch`) for the working tree with git dir `git_dir`, the newest first.

    That is its own, and that of worktrees which are gone.
    """
    common, tree = _place(git_dir)
    return [
        kept
        for kept in all_kept(common)
        if (branch is None or kept.branch == branch)
        and (kept.tree == tree or (kept.tree and not (common / "worktrees" / kept.tree).exists()))
    ]


def all_kept(common: Path) -> list[KeptSet]:
    """All that is kept aside in a repository, the newest first; folders that are no set of ours are passed over."""
    found = [*_read(common / KEPT, "")]
    for folder in (common / "worktrees").glob(f"*/{KEPT}"):  # where they lay at first
        found += _read(folder, folder.parent.name)
    return [kept for _, _, kept in sorted(found, key=lambda item: item[:2], reverse=True)]


def _read(root: Path, tree: str) -> Iterator[tuple[int, str, KeptSet]]:
    """The sets below `root`, of the working tree `tree` where they do not say, each with its time and name."""
    for folder in root.iterdir() if root.is_dir() else ():
        manifest = folder / _MANIFEST
        try:
            raw = json.loads(manifest.read_bytes())
            files, deleted = dict(raw["files"]), dict(raw.get("deleted", {}))
            kept = KeptSet(folder, raw["branch"], raw["commit"], files, raw.get("tree", tree), deleted)
            yield manifest.stat().st_mtime_ns, folder.name, kept
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
