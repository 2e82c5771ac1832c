"""The ``data/`` folder of one working tree: what it came from, what changed, bring it to a listing.

`add` takes the folder into the blob store, `bring` makes it the files of a commit, `changed` compares.  A stamp in
the git dir of the working tree says which branch and listing the folder was made from.  Knows nothing of refs and
does not import git: the caller says which branch is checked out, and writes and stages ``data.dvc``.
"""
# Hot path, thousands of files: pathlib costs as much as the system calls themselves.

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gitpipe.blobs import BlobStore
from gitpipe.commit import Listing, check_listing, folder_clash
from gitpipe.errors import BadData, GitpipeError, NotFound, Refused
from gitpipe.kept import Aside, Kept, KeptSet, kept_sets, move
from gitpipe.scan import (
    DATA,
    TMP,
    Entry,
    Found,
    Ignore,
    Stat,
    digest_files,
    in_threads,
    known_md5s,
    load_index,
    printable,
    read_ignore,
    replace_file,
    save_index,
    scan,
    settle,
    walk,
)

STAMP = "gitpipe-stamp.json"
_LOCK = "gitpipe-data.lock"
_FEW = 100


class WorkStore(BlobStore, Protocol):
    """A `BlobStore` that can also put files into a working tree (`DvcStore`, `MemoryStore`)."""

    def place(self, md5: str, target: str) -> os.stat_result:
        """Make the new file `target`; its ``lstat``."""

    def links_files(self) -> bool:
        """Whether `place` makes links into the store."""

    def md5_of_link(self, destination: str) -> str | None:
        """The blob that a symbolic link to `destination` names."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the ``data/`` of a working tree was made from.

    Attributes:
        branch, commit: the branch it belongs to, and the commit whose files it got.
        oid: that commit's listing.
        absent: files of the listing that are not there since their blobs were missing.
        towards: the listing that a `bring` was on its way to when it was killed, else "".
    """

    branch: str
    commit: str
    oid: str
    absent: tuple[str, ...] = ()
    towards: str = ""


def read_stamp(git_dir: Path) -> Stamp | None:
    """The stamp of the working tree with git dir `git_dir`; None where there is none (or a damaged one)."""
    try:
        raw = json.loads((git_dir / STAMP).read_bytes())
        return Stamp(raw["branch"], raw["commit"], raw["oid"], tuple(raw["absent"]), raw["towards"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_stamp(git_dir: Path, stamp: Stamp) -> None:
    """Replace the stamp, atomically."""
    raw = {
        "branch": stamp.branch,
        "commit": stamp.commit,
        "oid": stamp.oid,
        "absent": list(stamp.absent),
        "towards": stamp.towards,
    }
    replace_file(git_dir / STAMP, json.dumps(raw).encode())


# -- what changed


def changed(top: Path, git_dir: Path, store: WorkStore, *, oid: str | None = None) -> list[str]:
    """Paths below ``data/`` that differ from what the folder was made from: new, changed, deleted, or odd; sorted.

    Args:
        oid: compare with this listing instead (that of a staged ``data.dvc``).
    """
    stamp = read_stamp(git_dir)
    base = _listing(store, oid if oid is not None else stamp.oid if stamp else "")
    now = scan(top, git_dir, read_ignore(top), strict=False, md5_of_link=store.md5_of_link)
    differ = {path for path, md5 in now.files.items() if base.get(path) != md5}
    differ |= base.keys() - now.files.keys() - set(stamp.absent if stamp else ())
    return sorted(differ | now.found.odd.keys())


def _listing(store: BlobStore, oid: str) -> Listing:
    """The listing, or an empty one where it cannot be had: then all files count as changed, which loses none."""
    if not oid:
        return {}
    try:
        return store.read_listing(oid)
    except BadData:
        return {}


# -- add


@dataclass(frozen=True, slots=True)
class AddResult:
    """What ``data.dvc`` is to say after an `add`.

    Attributes:
        oid, size, nfiles: for the pointer; size in bytes, None where a blob that stays is not here to be measured.
        listing: the files.
        added, changed, deleted: paths that differ from the base listing.
        skipped: symbolic links to folders, which DVC does not track.
    """

    oid: str
    size: int | None
    nfiles: int
    listing: Listing
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def add(
    top: Path,
    git_dir: Path,
    store: WorkStore,
    paths: Iterable[str | Path],
    branch: str,
    *,
    base: str | None = None,
) -> AddResult:
    """Take ``data/``, or parts of it, into the store; durable when this returns.

    Args:
        top: the working tree; `git_dir` its own git dir.
        paths: ``data`` or paths below it, relative to `top` or absolute.  Of the listing only these parts change; a
            path that is gone is taken out.
        branch: the branch that is checked out.
        base: the listing that the parts go into (that of the current ``data.dvc``); by default the stamp's.

    Raises:
        Refused: ``data/`` holds another branch's files, was left half-way by a killed checkout, or has something in
            it that cannot be data (a socket, a link out of the working tree, a name that is not UTF-8).
        NotFound: nothing there.
        BadData: a file that cannot be read.
    """
    with _locked(git_dir):
        stamp = read_stamp(git_dir)
        _check_stamp(stamp, branch)
        parts = _parts(top, paths)
        before = _listing(store, base if base is not None else stamp.oid if stamp else "")
        ignore = read_ignore(top)
        _check_there(top, parts, before)
        for part in parts:
            _check_not_ignored(ignore, part, top)
        found = walk(top, ignore, within=parts, md5_of_link=store.md5_of_link)
        found.refuse_odd()
        entries = _store_files(top, git_dir, store, found)
        absent = [path for path in (stamp.absent if stamp else ()) if path not in found.files]
        listing = _merge(before, parts, entries, absent)
        oid = store.put_listing(listing)
        store.sync()
        if store.links_files():
            entries = _relink(top, git_dir, store, found, entries)
        index = _update_index(git_dir, parts, entries)
    return AddResult(
        oid=oid,
        size=_total(store, listing, index),
        nfiles=len(listing),
        listing=listing,
        added=tuple(path for path in listing if path not in before),
        changed=tuple(path for path, md5 in listing.items() if before.get(path, md5) != md5),
        deleted=tuple(path for path in before if path not in listing),
        skipped=tuple(found.skipped),
    )


def _check_stamp(stamp: Stamp | None, branch: str) -> None:
    if stamp is None:
        return
    if stamp.towards:
        raise Refused(f"{DATA}/ was left half-way by a checkout that was killed; run `git switch {branch}` again")
    if stamp.branch != branch:
        raise Refused(
            f"{DATA}/ holds the files of {stamp.branch}, but {branch} is checked out; "
            f"`git switch {branch}` brings its own files, and keeps what you changed"
        )


def _parts(top: Path, paths: Iterable[str | Path]) -> list[str]:
    """`paths` as paths below ``data/``, "" for all; none inside another."""
    parts: set[str] = set()
    for path in paths:
        full = os.path.normpath(os.path.join(top, path))
        for base in (str(top), os.path.realpath(top)):
            if full == f"{base}/{DATA}" or full.startswith(f"{base}/{DATA}/"):
                parts.add(full[len(f"{base}/{DATA}/") :])
                break
        else:
            raise Refused(f"cannot add {path}: only {DATA}/ and what lies below it; use `git add` for other files")
    return [part for part in sorted(parts) if not any(parent in parts for parent in _parents(part))]


def _parents(path: str) -> Iterator[str]:
    """The folders that hold `path`, the nearest first, ending with "" (all of ``data/``)."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _check_there(top: Path, parts: list[str], before: Listing) -> None:
    for part in parts:
        if os.path.lexists(f"{top}/{DATA}/{part}" if part else f"{top}/{DATA}"):
            continue
        if not part:
            raise NotFound(f"there is no {DATA}/ in {top}; make the folder and put files into it")
        if part not in before and not any(path.startswith(part + "/") for path in before):
            raise NotFound(f"there is no {DATA}/{printable(part)}; neither in the folder nor in the branch")
    if os.path.islink(f"{top}/{DATA}") or (os.path.lexists(f"{top}/{DATA}") and not os.path.isdir(f"{top}/{DATA}")):
        raise Refused(f"{DATA} in {top} is not a folder; it is to be a real one, not a link")


def _check_not_ignored(ignore: Ignore, part: str, top: Path) -> None:
    for path in [part, *_parents(part)]:
        is_dir = path != part or os.path.isdir(f"{top}/{DATA}/{path}")
        if path and ignore(f"{DATA}/{path}", is_dir):
            raise Refused(f"{DATA}/{printable(path)} is ignored by .dvcignore; take the pattern out to add it")


def _store_files(top: Path, git_dir: Path, store: WorkStore, found: Found) -> dict[str, Entry]:
    """Store what was found; each file is read once, and not at all where its md5 is known and its blob here."""
    known = known_md5s(found, load_index(git_dir))
    gone = set(store.missing(known.values()))
    entries: dict[str, Entry] = {
        path: (*found.files[path], md5) for path, md5 in known.items() if md5 not in gone and path in found.files
    }
    todo = [path for path in found.files if path not in entries]

    entries.update(digest_files(top, found, todo, lambda path: store.put_file(Path(path)), strict=True))
    return entries


def _merge(before: Listing, parts: list[str], entries: Mapping[str, Entry], absent: list[str]) -> Listing:
    """`before`, with what lies under `parts` replaced by `entries`; files whose blobs never came stay listed."""
    merged = {path: before[path] for path in _outside(before, parts)}
    merged.update({path: before[path] for path in absent if path in before})
    for path, entry in entries.items():
        merged[path] = entry[3]
    if folder_clash(merged):
        # A file took a folder's place, or the other way round: what is there now wins.
        for path in entries:
            for parent in _parents(path):
                if parent and parent not in entries:
                    merged.pop(parent, None)
        wanted = {*entries, *_outside(merged, entries)}
        merged = {path: md5 for path, md5 in merged.items() if path in wanted}
    return check_listing(merged)


def _outside(paths: Iterable[str], parts: Iterable[str]) -> list[str]:
    """Those of `paths` that are none of `parts` and do not lie below one."""
    wanted = set(parts)
    return [path for path in paths if path not in wanted and not any(parent in wanted for parent in _parents(path))]


def _relink(top: Path, git_dir: Path, store: WorkStore, found: Found, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Replace stored files by links into the cache, as DVC does with cache type hardlink or symlink."""
    linked = dict(entries)
    with _tmp_dir(top, git_dir) as tmp:
        for number, (path, entry) in enumerate(entries.items()):
            full = f"{top}/{DATA}/{path}"
            status = os.lstat(full)
            if stat.S_ISLNK(status.st_mode) or status.st_nlink > 1:
                continue
            if (status.st_size, status.st_mtime_ns, status.st_ino) != found.files[path]:
                continue  # written to in the meantime
            placed = store.place(entry[3], f"{tmp}/{number}")
            os.rename(f"{tmp}/{number}", full)
            linked[path] = _entry(placed, full, entry[3])
    return linked


def _entry(status: os.stat_result, full: str, md5: str) -> Entry:
    if stat.S_ISLNK(status.st_mode):
        status = os.stat(full)
    return (status.st_size, status.st_mtime_ns, status.st_ino, md5)


def _update_index(git_dir: Path, parts: list[str], entries: dict[str, Entry]) -> Mapping[str, Entry]:
    if "" not in parts:
        others = load_index(git_dir).entries
        entries = {**{path: others[path] for path in _outside(others, parts)}, **entries}
    save_index(git_dir, entries)
    return entries


def _total(store: BlobStore, listing: Listing, index: Mapping[str, Entry]) -> int | None:
    total = 0
    for path, md5 in listing.items():
        entry = index.get(path)
        size = entry[0] if entry and entry[3] == md5 else store.size(md5)
        if size is None:
            return None
        total += size
    return total


# -- merge


def other_side(
    top: Path, git_dir: Path, store: WorkStore, before: Listing, theirs: Listing
) -> tuple[dict[str, str | None], list[str]]:
    """What to take into ``data/`` of what another side made of `before`, file by file.

    Returns:
        Path -> md5, None for a file to delete, where ``data/`` still has what was there before; and the paths where it
        has something else, neither that nor theirs, or where a folder or a file is in the way.  Both sorted.
    """
    stamp = read_stamp(git_dir)
    base = _listing(store, stamp.oid if stamp else "")
    scanned = scan(top, git_dir, read_ignore(top), strict=False, md5_of_link=store.md5_of_link)
    now = {path: base[path] for path in (stamp.absent if stamp else ()) if path in base} | scanned.files
    differ = sorted(path for path in before.keys() | theirs.keys() if before.get(path) != theirs.get(path))
    differ = [path for path in differ if now.get(path) != theirs.get(path)]
    taken = {path: theirs.get(path) for path in differ if now.get(path) == before.get(path)}
    after = {path for path in now.keys() | taken.keys() | scanned.found.odd.keys() if taken.get(path, "") is not None}
    folders = {parent for path in after for parent in _parents(path)}
    for path in [path for path in taken if path in after]:
        if path in folders or path in scanned.found.odd or any(parent in after for parent in _parents(path)):
            del taken[path]
    return taken, [path for path in differ if path not in taken]


# -- bring


@dataclass(frozen=True, slots=True)
class Brought:
    """What `bring` did.

    Attributes:
        kept: changed files that were in the way, now aside.
        restored: files kept aside earlier that are back in ``data/``.
        deleted: files of the listing that are not there, as they were deleted here earlier.
        undeleted: those deleted earlier that are there all the same, as the branch has another version now.
        missing: files of the listing that are not there: their blobs are neither here nor on a remote.
        problem: one line on why blobs could not be fetched, or "".
        placed, removed: how many files were written and deleted.
    """

    kept: tuple[Kept, ...] = ()
    restored: tuple[Kept, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    placed: int = 0
    removed: int = 0
    deleted: tuple[str, ...] = ()
    undeleted: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What the user is to be told, one line each; nothing when all went as usual."""
        lines = [f"kept your changed {DATA}/{printable(kept.path)} as {kept.where}" for kept in self.kept]
        lines += [f"put back your changed {DATA}/{printable(kept.path)}" for kept in self.restored]
        if self.deleted:
            lines.append(f"deleted again, as you had left it: {_first(self.deleted)}")
        if self.undeleted:
            lines.append(f"you had deleted what the branch has another version of now: {_first(self.undeleted)}")
        if self.missing:
            lines.append(f"{_first(self.missing)} not here: {self.problem or '`dvc pull` brings the data'}")
        return lines


def _first(paths: Sequence[str]) -> str:
    """The first of `paths` below ``data/``, and how many more there are."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{DATA}/{printable(paths[0])}{more}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen to ``data/``; all paths below it."""

    keep: Mapping[str, str | None]
    remove: tuple[str, ...]
    place: Mapping[str, str]
    stay: frozenset[str]


@dataclass(frozen=True, slots=True)
class Before:
    """What ``data/`` is before a `bring`.

    Attributes:
        now: its files; `odd` what is in it and cannot be data.
        base: the listing it was made from; `towards` that of a checkout that was killed on its way.
        absent: files of `base` that never came.
        same: it belongs to the branch that it is to be brought to.
        whole: files of `base` that are not there were deleted by the user (and not by a killed checkout).
    """

    now: Mapping[str, str]
    odd: Iterable[str]
    base: Mapping[str, str]
    towards: Mapping[str, str]
    absent: frozenset[str]
    same: bool
    whole: bool


def make_plan(before: Before, target: Mapping[str, str]) -> Plan:
    """What to do so that ``data/`` becomes `target` and no changed file is lost.

    On the branch it belongs to already, a changed, new or deleted file stays as it is wherever the branch has not
    changed it too, as with git.  From one branch to another all changed and new files are kept aside.
    """
    keep: dict[str, str | None] = {}
    stay: set[str] = set()
    remove: list[str] = []

    def dirty(path: str) -> None:
        if before.same and before.base.get(path) == target.get(path):
            stay.add(path)
        else:
            keep[path] = before.base.get(path)

    for path, md5 in before.now.items():
        if md5 == target.get(path):
            continue
        if md5 != before.base.get(path) and md5 != before.towards.get(path):
            dirty(path)
        elif path not in target:
            remove.append(path)
    for path in before.odd:
        dirty(path)
    place = {
        path: md5
        for path, md5 in target.items()
        if before.now.get(path) != md5 and path not in stay and not _deleted(before, path, md5)
    }
    for path in _in_the_way(stay, place):
        stay.discard(path)
        keep[path] = before.base.get(path)
        if path in target:
            place[path] = target[path]
    return Plan(keep, tuple(remove), place, frozenset(stay))


def _deleted(before: Before, path: str, md5: str) -> bool:
    """Whether the user deleted `path`, of which the branch still has the same version."""
    return (
        before.same
        and before.whole
        and path not in before.now
        and path not in before.absent
        and before.base.get(path) == md5
    )


def _in_the_way(stay: set[str], place: Mapping[str, str]) -> list[str]:
    """Those of `stay` that would be a folder of, or lie below, a file that is to be placed."""
    if not stay:
        return []
    folders = {parent for path in place for parent in _parents(path)}
    return [path for path in stay if path in folders or any(parent in place for parent in _parents(path))]


def bring(
    top: Path,
    git_dir: Path,
    store: WorkStore,
    branch: str,
    commit: str,
    listing: Listing,
    oid: str = "",
    *,
    restore: bool = False,
) -> Brought:
    """Make ``data/`` of the working tree `top` the files of `listing`; no changed file is overwritten or deleted.

    Killed half-way and run again, for this listing or for another, it ends right.

    Args:
        branch, commit: what is checked out; `listing` its files and `oid` their ``.dir`` object ("": it is stored).
        restore: put back also files that the user deleted and the branch did not change.

    Raises:
        BadData: a hostile listing.
        Refused: ``data`` is a link or a file.
        GitpipeError: the disk is full, or files cannot be written.
    """
    target = check_listing(listing)
    try:
        with _locked(git_dir):
            return _bring(top, git_dir, store, Stamp(branch, commit, oid), target, restore)
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise GitpipeError(f"cannot bring {DATA}/ to {branch}: {exc.strerror}{where}") from exc


def _bring(top: Path, git_dir: Path, store: WorkStore, goal: Stamp, target: Listing, restore: bool) -> Brought:
    data = top / DATA
    if data.is_symlink() or (data.exists() and not data.is_dir()):
        raise Refused(f"{data} is not a folder; move it away and run `git switch {goal.branch}` again")
    if not goal.oid or not store.has(goal.oid):
        goal = replace(goal, oid=store.put_listing(target))
        store.sync()
    stamp = read_stamp(git_dir)
    before, found = _before(top, git_dir, store, stamp, goal.branch, restore)
    data.mkdir(exist_ok=True)
    plan = make_plan(before, target)
    sets = kept_sets(git_dir, goal.branch)
    deleted = _deleted_again(sets, plan, before, target, store)
    gone = [path for path in deleted if path in before.now and path not in plan.keep]
    plan = replace(
        plan,
        remove=(*plan.remove, *gone),
        place={path: md5 for path, md5 in plan.place.items() if path not in deleted},
    )
    returns = _returning(sets, plan, before, {path: md5 for path, md5 in target.items() if path not in deleted})
    aside = Aside(git_dir, data, stamp.branch if stamp else goal.branch, stamp.commit if stamp else "")
    if not before.same:
        aside.move({}, _deletions(data, before))
    if plan.keep or plan.remove or plan.place:
        write_stamp(git_dir, replace(stamp or Stamp(goal.branch, "", ""), towards=goal.oid))
    done = _carry_out(top, git_dir, store, plan, returns, aside, before, found.files)
    if not before.same:
        _prune(data, found.empty)
    missing = tuple(sorted(done.missing))
    write_stamp(git_dir, replace(goal, absent=missing))
    for kept in sets:  # last: until here a killed one can be done again
        kept.settle()
    undeleted = {path for kept in sets for path in kept.deleted if path in plan.place and path not in before.now}
    return Brought(
        tuple(aside.kept),
        done.restored,
        missing,
        done.problem,
        done.placed,
        len(plan.remove),
        tuple(sorted(deleted)),
        tuple(sorted(undeleted)),
    )


def _deletions(data: Path, before: Before) -> dict[str, str]:
    """What the user deleted and did not add, and what it was; a folder may be in its place."""
    if not before.whole:
        return {}
    gone = [path for path in before.base if path not in before.now and path not in before.absent]
    return {path: before.base[path] for path in gone if not os.path.lexists(data / path) or _is_folder(data / path)}


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _deleted_again(
    sets: Sequence[KeptSet], plan: Plan, before: Before, target: Listing, store: BlobStore
) -> frozenset[str]:
    """Files of `target` that were deleted on its branch earlier, and of which it still has the same version."""
    decided: set[str] = set()
    found: set[str] = set()
    for kept in sets:
        for path, base in kept.deleted.items():
            free = path not in decided and path not in plan.stay and not (before.same and path in plan.keep)
            if free and target.get(path) == base and (path not in before.now or store.has(base)):
                found.add(path)
        decided |= {*kept.deleted, *kept.files}
    return frozenset(found)


def _before(
    top: Path, git_dir: Path, store: WorkStore, stamp: Stamp | None, branch: str, restore: bool = False
) -> tuple[Before, Found]:
    now = scan(top, git_dir, read_ignore(top), strict=False, md5_of_link=store.md5_of_link)
    before = Before(
        now=now.files,
        odd=tuple(now.found.odd),
        base=_listing(store, stamp.oid if stamp else ""),
        towards=_listing(store, stamp.towards if stamp else ""),
        absent=frozenset(stamp.absent if stamp else ()),
        same=stamp is None or stamp.branch == branch,
        whole=(top / DATA).is_dir() and not restore and not (stamp and stamp.towards),
    )
    return before, now.found


def in_the_way(top: Path, git_dir: Path, store: WorkStore, branch: str, listing: Listing) -> list[str]:
    """The changed files that `bring` would keep aside, paths below ``data/``; sorted."""
    before, _ = _before(top, git_dir, store, read_stamp(git_dir), branch)
    return sorted(make_plan(before, check_listing(listing)).keep)


def clear(top: Path, git_dir: Path, store: WorkStore, tracked: Container[str]) -> Brought:
    """Take the files of a data branch out of ``data/``, as git tracks files there on the branch that comes now.

    Args:
        tracked: git's files, paths below ``data/``: they stay as they are.
    """
    with _locked(git_dir):
        stamp, data = read_stamp(git_dir), top / DATA
        if stamp is None or data.is_symlink() or not data.is_dir():
            return Brought()
        base = _listing(store, stamp.oid) | _listing(store, stamp.towards)
        now = scan(top, git_dir, read_ignore(top), strict=False, md5_of_link=store.md5_of_link)
        theirs = [path for path in now.files if path not in tracked]
        remove = [path for path in theirs if now.files[path] == base.get(path)]
        aside = Aside(git_dir, data, stamp.branch, stamp.commit)
        aside.move({path: base.get(path) for path in theirs if now.files[path] != base.get(path)})
        for path in remove:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(data / path)
        _prune(data, {path.rpartition("/")[0] for path in theirs})
        (git_dir / STAMP).unlink(missing_ok=True)
        return Brought(kept=tuple(aside.kept), removed=len(remove))


@dataclass(frozen=True, slots=True)
class _Done:
    restored: tuple[Kept, ...]
    missing: frozenset[str]
    problem: str
    placed: int


def _carry_out(
    top: Path,
    git_dir: Path,
    store: WorkStore,
    plan: Plan,
    returns: list[tuple[KeptSet, str]],
    aside: Aside,
    before: Before,
    seen: Mapping[str, Stat],
) -> _Done:
    data = top / DATA
    sizes, missing, problem = _fetch(store, plan.place)
    aside.move(plan.keep)
    stale = [path for path in missing if path in before.now and path not in plan.keep]
    ground = _Ground(data, aside, before)
    for path in [*plan.remove, *stale]:
        if _stat(f"{data}/{path}") not in (None, seen.get(path)):
            ground.away(path)  # written to since the scan
        with contextlib.suppress(FileNotFoundError):
            os.unlink(data / path)
    _prune(data, {path.rpartition("/")[0] for path in [*plan.remove, *plan.keep]})
    restored = _put_back(data, store, ground, returns)
    back = {kept.path for kept in restored}
    place = {path: md5 for path, md5 in plan.place.items() if path not in missing and path not in back}
    placed = _place(top, git_dir, store, place, sizes, seen, ground)
    if placed or plan.remove or plan.keep or back:
        gone = {*plan.remove, *plan.keep, *back, *stale}
        entries = {path: entry for path, entry in load_index(git_dir).entries.items() if path not in gone}
        if len(placed) > _FEW:  # else it is quicker to hash them once more
            settle(max(entry[1] for entry in placed.values()))
        save_index(git_dir, {**entries, **placed})
    return _Done(tuple(restored), missing, problem, len(placed))


def _fetch(store: WorkStore, place: Mapping[str, str]) -> tuple[Mapping[str, int], frozenset[str], str]:
    """Bytes of each blob, paths of `place` whose blobs cannot be had, and why; a checkout does not fail for that."""
    sizes = _sizes(store, set(place.values()))
    gone = [md5 for md5 in place.values() if md5 not in sizes]
    problem = ""
    if gone:
        try:
            store.fetch(gone)
        except GitpipeError as exc:
            problem = str(exc)
        sizes |= _sizes(store, set(gone))
    return sizes, frozenset(path for path, md5 in place.items() if md5 not in sizes), problem


def _sizes(store: WorkStore, md5s: Iterable[str]) -> dict[str, int]:
    return {md5: size for md5 in md5s if (size := store.size(md5)) is not None}


class _Ground:
    """Makes room in ``data/`` for files to be placed: real folders above them, nothing in their place.

    What is in the way then is nothing that was listed (ignored files, a link to a folder): it is kept aside.
    """

    def __init__(self, data: Path, aside: Aside, before: Before) -> None:
        self._data, self._aside, self._before = data, aside, before
        self._real: set[str] = {""}

    def folder(self, path: str) -> None:
        """See to it that `path` is a folder, and no link to one: files would be written to where it leads."""
        if path in self._real:
            return
        self.folder(path.rpartition("/")[0])
        full = f"{self._data}/{path}"
        try:
            mode = os.lstat(full).st_mode
        except FileNotFoundError:
            os.mkdir(full)
        else:
            if not stat.S_ISDIR(mode):
                self.away(path)
                os.mkdir(full)
        self._real.add(path)

    def top_missing(self, folder: str) -> str:
        """The topmost of `folder` and those above it that is not there; "" where all are, or something else is."""
        found = ""
        while folder and folder not in self._real:
            if os.path.lexists(f"{self._data}/{folder}"):
                return found if os.path.isdir(f"{self._data}/{folder}") else ""
            found, folder = folder, folder.rpartition("/")[0]
        return found

    def clear(self, path: str) -> None:
        """See to it that `path` is no folder; empty ones go, others are kept aside."""
        full = f"{self._data}/{path}"
        if not os.path.isdir(full) or os.path.islink(full):
            return
        for folder, _, _ in os.walk(full, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if os.path.isdir(full):
            self.away(path)

    def away(self, path: str) -> None:
        """Keep aside what is at `path`."""
        self._aside.move({path: self._before.base.get(path)})


def _returning(sets: Sequence[KeptSet], plan: Plan, before: Before, target: Listing) -> list[tuple[KeptSet, str]]:
    """Files kept aside on the branch earlier that can go back: it has in `target` what they were changed from.

    What is kept aside now gives them room where it was changed on another branch; on the same one it is newer.
    """
    folders = {parent for path in target for parent in _parents(path)} if sets else set()
    found: dict[str, KeptSet] = {}
    for kept in sets:
        for path in kept.lying():
            newer = path in plan.stay or path in found or (before.same and path in plan.keep)
            taken = any(parent in target or parent in plan.stay or parent in found for parent in _parents(path))
            fits = path not in folders and not taken
            if not newer and fits and target.get(path) == kept.files[path] and not _deleted_here(before, path, target):
                found[path] = kept
    return [(kept, path) for path, kept in found.items()]


def _deleted_here(before: Before, path: str, target: Listing) -> bool:
    return path in target and _deleted(before, path, target[path])


def _put_back(data: Path, store: BlobStore, ground: _Ground, returns: list[tuple[KeptSet, str]]) -> list[Kept]:
    restored: list[Kept] = []
    for kept, path in returns:
        where, goal = kept.where(path), data / path
        if not os.path.lexists(where) or not _may_go_over(where, goal, store, kept.files[path]):
            continue
        ground.folder(path.rpartition("/")[0])
        move(where, goal)
        restored.append(Kept(path, goal, kept.branch))
    return restored


def _may_go_over(where: Path, goal: Path, store: BlobStore, base: str | None) -> bool:
    """Whether the kept file may take the place of what is at `goal`: a file whose bytes the store has too."""
    if not os.path.lexists(goal):
        return True
    files = all(stat.S_ISREG(path.lstat().st_mode) for path in (where, goal))
    return files and base is not None and store.has(base)


def _place(
    top: Path,
    git_dir: Path,
    store: WorkStore,
    place: Mapping[str, str],
    sizes: Mapping[str, int],
    seen: Mapping[str, Stat],
    ground: _Ground,
) -> dict[str, Entry]:
    """Write the files; each is made elsewhere and renamed into its place, so that none is ever seen half-made.

    Folders that are not there yet are made whole and renamed as one: for 10,000 files in 20 of them that saves a third.
    """
    if not place:
        return {}
    new: dict[str, dict[str, str]] = {}
    single: dict[str, str] = {}
    roots = {folder: ground.top_missing(folder) for folder in {path.rpartition("/")[0] for path in place}}
    for path, md5 in place.items():
        root = roots[path.rpartition("/")[0]]
        (new.setdefault(root, {}) if root else single)[path] = md5
    with _tmp_dir(top, git_dir) as tmp:
        placed: dict[str, Entry] = {}
        for number, (root, files) in enumerate(new.items()):
            placed |= _place_folder(f"{top}/{DATA}", f"{tmp}/d{number}", root, store, files, sizes, ground)
        return placed | _place_files(f"{top}/{DATA}", tmp, store, single, sizes, seen, ground)


def _place_folder(
    data: str,
    made: str,
    root: str,
    store: WorkStore,
    files: Mapping[str, str],
    sizes: Mapping[str, int],
    ground: _Ground,
) -> dict[str, Entry]:
    """Make the folder `root`, which is not there, with all its `files`."""
    for folder in {path.rpartition("/")[0] for path in files}:
        os.makedirs(made + folder[len(root) :], exist_ok=True)

    def one(path: str) -> tuple[str, Entry]:
        full = made + path[len(root) :]
        return path, _entry(store.place(files[path], full), full, files[path])

    placed = dict(in_threads(one, list(files), lambda path: sizes[files[path]]))
    ground.folder(root.rpartition("/")[0])
    try:
        os.rename(made, f"{data}/{root}")
    except OSError:  # somebody made something there in the meantime, so file by file
        for path in files:
            ground.folder(path.rpartition("/")[0])
            ground.clear(path)
            if os.path.lexists(f"{data}/{path}"):
                ground.away(path)
            os.rename(made + path[len(root) :], f"{data}/{path}")
    return placed


def _place_files(
    data: str,
    tmp: str,
    store: WorkStore,
    files: Mapping[str, str],
    sizes: Mapping[str, int],
    seen: Mapping[str, Stat],
    ground: _Ground,
) -> dict[str, Entry]:
    """Place `files` in folders that are there.

    A file that is not as it was `seen` by the scan (written to since, or ignored and so never looked at) is kept aside.
    """
    for folder in {path.rpartition("/")[0] for path in files}:
        ground.folder(folder)
    for path in files:
        ground.clear(path)
    numbers = {path: number for number, path in enumerate(files)}
    late: list[str] = []

    def one(path: str) -> tuple[str, Entry]:
        full, made = f"{data}/{path}", f"{tmp}/{numbers[path]}"
        entry = _entry(store.place(files[path], made), made, files[path])
        if _stat(full) in (None, seen.get(path)):
            os.rename(made, full)
        else:
            late.append(path)
        return path, entry

    placed = dict(in_threads(one, list(files), lambda path: sizes[files[path]]))
    for path in late:
        ground.away(path)
        os.rename(f"{tmp}/{numbers[path]}", f"{data}/{path}")
    return placed


def _stat(full: str) -> Stat | None:
    """What `gitpipe.scan` would note of the file at `full`, (-1, -1, -1) for what it would not, None for nothing."""
    try:
        status = os.stat(full)
    except OSError:
        return (-1, -1, -1) if os.path.lexists(full) else None
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def _prune(data: Path, folders: Iterable[str]) -> None:
    """Remove those of `folders` that are empty now, and the folders above them that become so."""
    for folder in sorted(folders, key=len, reverse=True):
        path = folder
        while path:
            try:
                os.rmdir(data / path)
            except OSError:
                break
            path = path.rpartition("/")[0]


# -- one at a time


@contextlib.contextmanager
def _locked(git_dir: Path) -> Iterator[None]:
    """One `add` or `bring` at a time in a working tree: the hook's, the runner's and the user's may meet."""
    import fcntl

    descriptor = os.open(git_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _tmp_dir(top: Path, git_dir: Path) -> Iterator[str]:
    """An empty folder on the file system of ``data/``; leftovers of a killed process are cleared (we hold the lock)."""
    beside = git_dir / "gitpipe-tmp"
    inside = top / DATA / TMP
    shutil.rmtree(inside, ignore_errors=True)
    folder = beside if os.stat(git_dir).st_dev == os.stat(top / DATA).st_dev else inside
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
