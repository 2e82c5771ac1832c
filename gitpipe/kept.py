"""Files kept aside: changed files that a checkout would have overwritten, each with the version it was changed from.

They lie in the git dir of the working tree, ``gitpipe-kept/<branch>-<n>/files/…``, with a ``manifest.json``.  Knows
nothing of listings; `gitpipe.workdata` decides what is kept and what comes back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
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
        folder: ``<git dir>/gitpipe-kept/<branch>-<n>``.
        branch, commit: what ``data/`` held then.
        files: path -> md5 that the branch had there, None where it had nothing.
    """

    folder: Path
    branch: str
    commit: str
    files: Mapping[str, str | None]

    def where(self, path: str) -> Path:
        """Where the kept file for `path` lies."""
        return self.folder / "files" / path

    def write(self) -> None:
        """Write the manifest; before the files, so that no file ever lies there without one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        raw = {"branch": self.branch, "commit": self.commit, "files": dict(self.files)}
        replace_file(self.folder / _MANIFEST, json.dumps(raw, indent=1).encode())

    def forget_gone(self) -> None:
        """Forget the files that went back; a set with nothing left is removed."""
        left = {path: base for path, base in self.files.items() if os.path.lexists(self.where(path))}
        if left:
            KeptSet(self.folder, self.branch, self.commit, left).write()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


class Aside:
    """Moves files of one checkout aside, into a set that is made when the first one comes."""

    def __init__(self, git_dir: Path, data: Path, branch: str, commit: str) -> None:
        self._git_dir, self._data, self._branch, self._commit = git_dir, data, branch, commit
        self._set: KeptSet | None = None
        self.kept: list[Kept] = []

    def move(self, files: Mapping[str, str | None]) -> None:
        """Move `files` (path -> md5 that they were changed from) out of ``data/``."""
        if not files:
            return
        folder = self._set.folder if self._set else _new_folder(self._git_dir, self._branch)
        earlier = self._set.files if self._set else {}
        self._set = KeptSet(folder, self._branch, self._commit, {**earlier, **files})
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


def _new_folder(git_dir: Path, branch: str) -> Path:
    name = quote(branch, safe="@") or "unnamed"
    number = 1
    while (git_dir / KEPT / f"{name}-{number}").exists():
        number += 1
    return git_dir / KEPT / f"{name}-{number}"


def kept_sets(git_dir: Path, branch: str | None = None) -> list[KeptSet]:
    """All that is kept aside (of `branch`), the newest first; folders that are no set of ours are passed over."""
    found = []
    root = git_dir / KEPT
    if not root.is_dir():
        return []
    for folder in root.iterdir():
        manifest = folder / _MANIFEST
        try:
            raw = json.loads(manifest.read_bytes())
            kept = KeptSet(folder, raw["branch"], raw["commit"], dict(raw["files"]))
            written = manifest.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if branch is None or kept.branch == branch:
            found.append((written, folder.name, kept))
    return [kept for _, _, kept in sorted(found, key=lambda item: item[:2], reverse=True)]
