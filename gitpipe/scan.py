"""What lies in the ``data/`` folder of a working tree: which files, with which md5, and what DVC would not take.

Walks the folder as ``dvc add`` would (``.dvcignore``, symbolic links), and hashes only what a stat index does not
know already.  Knows nothing of branches, commits and listings that were recorded; changes nothing in ``data/``.
"""
# Hot path, thousands of files: pathlib costs as much as the system calls themselves.

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from gitpipe.commit import Listing
from gitpipe.errors import BadData, GitpipeError, Refused

DATA = "data"
TMP = ".gitpipe-tmp"
"""Folder directly below ``data/`` for half-made files, where the git dir is on another file system; never data."""

INDEX = "gitpipe-index"
_IGNORED_BY_DVC = (".hg/", ".git/", ".git", ".dvc/")
_SLACK_NS = 20_000_000  # kernels stamp files with a clock that ticks every 1 to 10 ms
_COARSE_SLACK_NS = 2_000_000_000  # file systems that keep whole seconds (FAT: two)
_BIG = 1 << 20
_NEVER = -1  # an mtime that no file has

Stat: TypeAlias = tuple[int, int, int]
"""Size in bytes, mtime in ns, inode."""
Entry: TypeAlias = tuple[int, int, int, str]
"""A `Stat` and the md5 that the file had with it."""
Digest: TypeAlias = Callable[[str], tuple[str, int]]
"""Absolute path -> (md5, bytes read)."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk of ``data/`` came upon; all paths are POSIX, below ``data/``.

    Attributes:
        files: path -> its `Stat`.
        linked: path -> md5, of symbolic links into the blob cache (DVC's cache type ``symlink``).
        odd: path -> why DVC, git or another machine could not take it.
        skipped: symbolic links to folders, which DVC passes over.
        empty: folders with nothing in them.
    """

    files: dict[str, Stat] = field(default_factory=dict)
    linked: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def refuse_odd(self) -> None:
        """Raise Refused for the first odd entry, naming it."""
        for path in sorted(self.odd):
            raise Refused(f"{DATA}/{printable(path)} {self.odd[path]}")


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of ``data/`` with their md5s, and the walk that found them."""

    files: Listing
    found: Found


def printable(path: str) -> str:
    """`path` as text for a message, whatever bytes its name has."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Ignore:
    """The patterns of a ``.dvcignore`` at the top of the working tree, on top of DVC's own.

    Calling it with a path relative to the top says whether DVC passes the entry over.  The last pattern that matches
    decides; what lies in an ignored folder need not be asked about, the walk does not enter it.
    """

    def __init__(self, text: str = "") -> None:
        lines = [line.strip() for line in text.splitlines()]
        own = [line for line in lines if line and not line.startswith("#")]
        self._rules = _compile([*_IGNORED_BY_DVC, *own]) if own else []

    def __call__(self, path: str, is_dir: bool) -> bool:
        if not self._rules:  # by far the most frequent case, and pathspec need not be imported
            name = path.rpartition("/")[2]
            return name == ".git" or (is_dir and name in (".hg", ".dvc"))
        for regex, ignore, only_dirs in self._rules:
            if only_dirs and not is_dir:
                continue
            if regex.match(path) or (is_dir and regex.match(path + "/")):
                return ignore
        return False


def _compile(patterns: list[str]) -> list[tuple[re.Pattern[str], bool, bool]]:
    """Last pattern first."""
    try:
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern as Pattern
    except ImportError:  # pathspec before 1.0
        from pathspec.patterns import GitWildMatchPattern as Pattern  # type: ignore[no-redef, attr-defined, unused-ignore]
    rules = []
    for pattern in reversed(patterns):
        regex, ignore = Pattern.pattern_to_regex(pattern)
        if regex is not None and ignore is not None:
            rules.append((re.compile(regex), bool(ignore), pattern.endswith("/")))
    return rules


def read_ignore(top: Path) -> Ignore:
    """The `Ignore` of the working tree `top`.

    Raises:
        BadData: a ``.dvcignore`` that cannot be read.
    """
    try:
        return Ignore((top / ".dvcignore").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Ignore()
    except (OSError, ValueError) as exc:
        raise BadData(f"cannot read {top}/.dvcignore: {exc}") from exc


# -- walking


def walk(
    top: Path,
    ignore: Ignore,
    *,
    within: Iterable[str] = ("",),
    md5_of_link: Callable[[str], str | None] = lambda _: None,
) -> Found:
    """What lies below ``data/`` of the working tree `top`.

    Args:
        within: files and folders below ``data/`` to look at, "" for all of it.
        md5_of_link: tells a link into the blob cache from others (`DvcStore.md5_of_link`).

    Raises:
        Refused: ``data`` itself is ignored by ``.dvcignore``.
    """
    if ignore(DATA, True):
        raise Refused(f"{DATA}/ is ignored by .dvcignore; take the pattern out")
    walker = _Walker(str(top), ignore, md5_of_link)
    for start in within:
        walker.start(start)
    return walker.found


class _Walker:
    def __init__(self, top: str, ignore: Ignore, md5_of_link: Callable[[str], str | None]) -> None:
        self.top, self.ignore, self.md5_of_link = top, ignore, md5_of_link
        self.root = f"{top}/{DATA}"
        self.real_top = os.path.realpath(top)
        self.found = Found()

    def start(self, path: str) -> None:
        full = f"{self.root}/{path}" if path else self.root
        try:
            mode = os.lstat(full).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(mode):
            self.folders(path)
        else:
            parent = path.rpartition("/")[0]
            with os.scandir(f"{self.root}/{parent}" if parent else self.root) as entries:
                for entry in entries:
                    if entry.path == full:
                        self.entry(entry, path)

    def folders(self, start: str) -> None:
        pending = [start]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(f"{self.root}/{folder}" if folder else self.root) as listed:
                    entries = list(listed)
            except FileNotFoundError:
                continue  # removed while we look
            except OSError as exc:
                self.found.odd[folder or "."] = f"cannot be read: {exc.strerror}; change its permissions"
                continue
            if folder and any(entry.name == ".dvc" for entry in entries):
                continue  # a DVC repo of its own, which DVC passes over
            if not entries and folder:
                self.found.empty.append(folder)
            prefix = f"{folder}/" if folder else ""
            for entry in entries:
                path = prefix + entry.name
                if self.entry(entry, path):
                    pending.append(path)

    def entry(self, entry: os.DirEntry[str], path: str) -> bool:
        """Take note of one entry; True where it is a folder to walk."""
        name = entry.name
        is_dir = entry.is_dir(follow_symlinks=False)
        if name.lower() == ".git":
            self.found.odd[path] = "is git's; take it out, or keep that repository elsewhere"
            return False
        if self.ignore(f"{DATA}/{path}", is_dir) or path == TMP:
            return False
        try:
            name.encode()
        except UnicodeEncodeError:
            self.found.odd[path] = "has a name that is not UTF-8; rename it"
            return False
        if is_dir:
            return True
        if name == ".dvcignore":
            self.found.odd[path] = "would not be read by DVC there; move it to the top of the working tree"
        elif entry.is_symlink():
            self.link(entry.path, path)
        else:
            self.file(entry, path)
        return False

    def file(self, entry: os.DirEntry[str], path: str) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # removed while we look
        self.note(status, path)

    def note(self, status: os.stat_result, path: str) -> None:
        if stat.S_ISREG(status.st_mode):
            self.found.files[path] = (status.st_size, status.st_mtime_ns, status.st_ino)
        else:
            self.found.odd[path] = f"is a {_kind(status.st_mode)}; data holds files only, remove it"

    def link(self, full: str, path: str) -> None:
        try:
            destination = os.path.normpath(os.path.join(os.path.dirname(full), os.readlink(full)))
            md5 = self.md5_of_link(destination)
            status = os.stat(full)
        except OSError as exc:
            self.found.odd[path] = f"is a symbolic link that cannot be followed: {exc.strerror}; remove it"
            return
        real = os.path.realpath(full)
        if md5 is not None:
            self.found.linked[path] = md5
            self.note(status, path)
        elif not real.startswith(self.real_top + "/"):
            self.found.odd[path] = (
                f"is a symbolic link that leads out of the working tree, to {printable(real)}; copy it"
            )
        elif stat.S_ISDIR(status.st_mode):
            self.found.skipped.append(path)
        else:
            self.note(status, path)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


# -- the stat index


@dataclass(frozen=True, slots=True)
class StatIndex:
    """Which md5 a file had when it had a certain `Stat`; kept in the git dir of the working tree, safe to delete.

    A file whose mtime is as young as the index itself may have been written once more since, in the same tick of the
    clock, so it is hashed again (git calls this a racy entry).
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    written_ns: int = 0

    def md5(self, path: str, status: Stat) -> str | None:
        """The md5 of the file `path`, or None where it has to be hashed."""
        entry = self.entries.get(path)
        if entry is None or entry[:3] != status or status[1] >= self.written_ns - _slack(status[1]):
            return None
        return entry[3]


def _slack(mtime_ns: int) -> int:
    return _SLACK_NS if mtime_ns % 1_000_000_000 else _COARSE_SLACK_NS


def settle(newest_ns: int) -> None:
    """Wait until a file of mtime `newest_ns` is old enough to be trusted, where that takes milliseconds."""
    wait = newest_ns + 3 * _SLACK_NS // 2 - time.time_ns()
    if 0 < wait <= 2 * _SLACK_NS:
        time.sleep(wait / 1e9)


def load_index(git_dir: Path) -> StatIndex:
    """The index of the working tree whose git dir is `git_dir`; an absent or damaged one is empty."""
    try:
        with open(git_dir / INDEX, "rb") as file:
            written_ns = os.fstat(file.fileno()).st_mtime_ns
            raw = json.loads(file.read())
        columns = zip(raw["path"], raw["size"], raw["mtime"], raw["inode"], raw["md5"], strict=True)
        return StatIndex({path: (size, mtime, inode, md5) for path, size, mtime, inode, md5 in columns}, written_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return StatIndex()


def save_index(git_dir: Path, entries: Mapping[str, Entry]) -> None:
    """Replace the index.  Columns, since 100,000 small lists take thrice as long to read."""
    values = list(entries.values())
    raw = {
        "path": list(entries),
        "size": [entry[0] for entry in values],
        "mtime": [entry[1] for entry in values],
        "inode": [entry[2] for entry in values],
        "md5": [entry[3] for entry in values],
    }
    replace_file(git_dir / INDEX, json.dumps(raw, separators=(",", ":")).encode())


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename it there: readers see the old file or the new one, whole."""
    tmp = f"{path}.{os.getpid()}-{threading.get_ident()}.tmp"
    with open(tmp, "wb") as file:
        file.write(data)
    os.replace(tmp, path)


# -- hashing


def hash_file(path: str) -> tuple[str, int]:
    """(md5, bytes) of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        while chunk := os.read(descriptor, _BIG):
            digest.update(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return digest.hexdigest(), size


def scan(
    top: Path,
    git_dir: Path,
    ignore: Ignore,
    *,
    strict: bool,
    md5_of_link: Callable[[str], str | None] = lambda _: None,
) -> Scan:
    """All files of ``data/`` with their md5s; what the index did not know is hashed, and the index brought up to date.

    Args:
        strict: raise for what cannot be data; else it is only listed in ``found.odd``.

    Raises:
        Refused: (strict) something that cannot be data, named.
    """
    found = walk(top, ignore, md5_of_link=md5_of_link)
    if strict:
        found.refuse_odd()
    index = load_index(git_dir)
    known = known_md5s(found, index)
    entries = {path: (*found.files[path], md5) for path, md5 in known.items()}
    todo = [path for path in found.files if path not in known]
    fresh = digest_files(top, found, todo, hash_file, strict=strict)
    entries.update(fresh)
    if fresh or len(entries) != len(index.entries):
        save_index(git_dir, entries)
    return Scan({path: entries[path][3] for path in sorted(entries)}, found)


def known_md5s(found: Found, index: StatIndex) -> dict[str, str]:
    """Path -> md5 of those files that need not be hashed."""
    known = dict(found.linked)
    for path, status in found.files.items():
        md5 = index.md5(path, status)
        if md5 is not None:
            known.setdefault(path, md5)
    return known


def digest_files(top: Path, found: Found, paths: list[str], digest: Digest, *, strict: bool) -> dict[str, Entry]:
    """Path -> `Entry` for `paths`, by `digest`, in threads.

    A file that cannot be read raises BadData where `strict`, else goes to ``found.odd``; one that is gone is left out.
    """
    root = f"{top}/{DATA}"

    def one(path: str) -> tuple[str, Entry | GitpipeError]:
        status = found.files[path]
        started = time.time_ns()
        try:
            md5, size = digest(f"{root}/{path}")
        except OSError as exc:
            return path, BadData(f"cannot read {DATA}/{printable(path)}: {exc.strerror}")
        except GitpipeError as exc:
            return path, exc
        # Written to within the last tick, or while it was read: whoever looks next has to hash it again.
        racy = status[1] >= started - _slack(status[1]) or size != status[0]
        return path, (size, _NEVER if racy else status[1], status[2], md5)

    entries: dict[str, Entry] = {}
    for path, result in in_threads(one, paths, lambda path: found.files[path][0]):
        if not isinstance(result, GitpipeError):
            entries[path] = result
        elif not os.path.lexists(f"{root}/{path}"):
            continue
        elif strict:
            raise result
        else:
            found.odd[path] = str(result)
    return entries


def in_threads(work: Callable[[str], T], paths: list[str], size: Callable[[str], int]) -> Iterator[T]:
    """``work(path)`` for all `paths`: big files in threads, and meanwhile the small ones in this one.

    For small files threads cost more than they bring: 10,000 took 0.5 s in one thread, 0.9 s in two, 1.5 s in four.
    """
    big = [path for path in paths if size(path) >= _BIG]
    if len(big) <= 1:
        yield from map(work, paths)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(4, len(big), _cpus())) as pool:
        running = pool.map(work, big)
        yield from (work(path) for path in paths if size(path) < _BIG)
        yield from running


@functools.cache
def _cpus() -> int:
    return os.cpu_count() or 1
