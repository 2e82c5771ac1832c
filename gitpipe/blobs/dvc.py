"""Blobs in a DVC cache folder: ``<cache>/files/md5/ab/cdef…``, as DVC itself lays them out.

Writing and reading are done here with plain system calls (DVC takes seconds for what takes tenths); DVC is imported
only to `fetch` from a remote or to `push` to one.  Knows nothing of git, branches or working trees.

Mode 0444 is a promise: DVC, and this module, take such a blob as whole without hashing it.  So a blob gets it only
after `DvcStore.sync` has made its bytes durable.
"""
# Hot path, thousands of files: pathlib costs as much as the system calls themselves.

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from gitpipe.blobs.config import Sections, format_config, read_config, remote_names, remote_settings
from gitpipe.blobs.listing import DIR, decode_listing, encode_listing, md5_hex
from gitpipe.blobs.place import can_reflink, clone, copy, flush, place, umask
from gitpipe.commit import Listing
from gitpipe.errors import BadData, GitpipeError
from gitpipe.faults import point

_OID = re.compile(r"[0-9a-f]{32}(?:\.dir)?\Z")
_PROTECTED = 0o444
_MANY = 16  # blobs of one folder, from which on a look at the whole folder is cheaper
_SMALL = 1 << 20  # files up to this size are read whole: one read, one write, no second look
_CHUNK = 1 << 20
_LISTINGS = 8  # parsed listings kept; the newest of each input of a busy pipeline
_TMP = "gitpipe-tmp"
OWN_REMOTE = "gitpipe"  # the name, in DVC's words, of the remote that git config `gitpipe.remote` gives the URL of


class DvcStore:
    """A `BlobStore` in a DVC cache folder; safe to use from many threads and processes at once.

    Args:
        cache: DVC's ``cache.dir``; made when first written to.
        cache_types: DVC's ``cache.type``, how `place` puts files into a working tree.
        shared: DVC's ``cache.shared = group``: folders get mode 2775.
        fetch_root: the folder whose ``.dvc/config`` and ``.dvc/config.local`` name the remotes; None for no remotes.
        trusted: take all settings of a remote from ``.dvc/config``, not its URL alone.  A config that came by fetch
            may name a command to run (``bearer_token_command``), so this is off unless someone vouched for it.
        remote: URL or folder of one more remote, the default one where the configuration names none.
    """

    def __init__(
        self,
        cache: Path,
        *,
        cache_types: tuple[str, ...] = ("reflink", "copy"),
        shared: bool = False,
        fetch_root: Path | None = None,
        trusted: bool = False,
        remote: str = "",
    ) -> None:
        self.cache = Path(os.path.abspath(cache))
        self.files = self.cache / "files" / "md5"
        self.cache_types = cache_types
        self.shared = shared
        self.fetch_root = fetch_root
        self.trusted = trusted
        self.remote = remote
        self._root = str(self.files)
        self._tmp_dir = str(self.cache / _TMP)
        self._tmp_prefix = f"{os.uname().nodename}.{os.getpid()}"
        self._pid = os.getpid()
        self._counter = itertools.count()
        self._mode = 0o664 if shared else 0o666 & ~umask()
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._pending: set[str] = set()
        self._listings: OrderedDict[str, Listing] = OrderedDict()

    # -- what is here

    def path_of(self, md5: str) -> str:
        """Where the blob `md5` lies, or would lie.

        Raises:
            BadData: `md5` is not 32 lower-case hex digits, with or without ``.dir``.
        """
        if not _OID.match(md5):
            raise BadData(f"not the name of a blob: {md5!r} (expected 32 hex digits)")
        return f"{self._root}/{md5[:2]}/{md5[2:]}"

    def _find(self, md5: str) -> tuple[str, os.stat_result] | None:
        path = self.path_of(md5)
        # Second place: where DVC 2 kept blobs; DVC 3 still reads those.
        for candidate in (path, f"{self.cache}/{md5[:2]}/{md5[2:]}"):
            try:
                return candidate, os.stat(candidate)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def _need(self, md5: str) -> tuple[str, os.stat_result]:
        found = self._find(md5)
        if found is None:
            raise BadData(f"blob {md5} is not in the cache {self.cache}: {self.advice()}")
        return found

    def has(self, md5: str) -> bool:
        """Whether the blob is here."""
        return self._find(md5) is not None

    def size(self, md5: str) -> int | None:
        """Bytes, or None where the blob is not here."""
        found = self._find(md5)
        return found[1].st_size if found else None

    def missing(self, md5s: Iterable[str]) -> list[str]:
        """Those of `md5s` that are not here, in order, each once."""
        found = dict.fromkeys(md5s)
        wanted: dict[str, list[str]] = {}
        for md5 in found:
            wanted.setdefault(md5[:2], []).append(md5)
        there: set[str] = set()
        for prefix, group in wanted.items():
            if len(group) >= _MANY:  # one look at the folder instead of one at each
                with contextlib.suppress(OSError):
                    there.update(prefix + name for name in os.listdir(f"{self._root}/{prefix}"))
        return [md5 for md5 in found if not (md5 in there and _OID.match(md5)) and self._find(md5) is None]

    def read(self, md5: str) -> bytes:
        """The whole blob.

        Raises:
            BadData: it is not here, or cannot be read.
        """
        path = self._need(md5)[0]
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as exc:
            raise BadData(f"cannot read blob {md5} in {self.cache}: {exc.strerror}") from exc

    def oids(self) -> Iterator[str]:
        """All blobs and listings that lie in the cache, in no order."""
        try:
            prefixes = os.listdir(self._root)
        except FileNotFoundError:
            return
        for prefix in prefixes:
            with contextlib.suppress(NotADirectoryError):
                yield from (prefix + name for name in os.listdir(f"{self._root}/{prefix}") if _OID.match(prefix + name))

    def remove(self, md5: str) -> None:
        """Delete a blob; one that is not here is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path_of(md5))
        with self._lock:
            self._listings.pop(md5, None)
            self._pending.discard(md5)

    def verify(self, md5: str) -> bool:
        """Whether the blob's bytes have the md5 that it is named by (reads all of it).

        Raises:
            BadData: it is not here.
        """
        path = self._need(md5)[0]
        with open(path, "rb") as file:
            return _digest(file.fileno()) == md5.removesuffix(DIR)

    # -- writing

    def put_bytes(self, data: bytes) -> str:
        """Store `data`; its md5.  Not durable before `sync`."""
        md5 = md5_hex(data)
        with self._storing("bytes"):
            self._put(data, md5)
        return md5

    def put_file(self, path: Path | str, *, move: bool = False) -> tuple[str, int]:
        """Store the file at `path`; (md5, bytes).  Not durable before `sync`.

        With ``move`` the file itself becomes the blob where that is possible: same file system, no other link to it.

        Raises:
            BadData: no regular file, or unreadable.
            GitpipeError: the cache cannot be written to.
        """
        source = os.fspath(path)
        try:
            # O_NONBLOCK: opening a pipe would else wait for a writer that never comes.
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise BadData(f"cannot read {source}: {exc.strerror}") from exc
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadData(f"cannot store {source}: it is not a regular file")
            with self._storing(source):
                if move:
                    return self._take(source, descriptor, status)
                if status.st_size <= _SMALL:
                    data = _read_all(descriptor, status.st_size)
                    md5 = md5_hex(data)
                    self._put(data, md5)
                    return md5, len(data)
                return self._stream(descriptor, status)
        finally:
            os.close(descriptor)

    def put_listing(self, listing: Listing) -> str:
        """Store a listing as DVC's ``.dir`` object; its ``<md5>.dir``.  Not durable before `sync`."""
        oid, data = encode_listing(listing)
        with self._storing("a listing"):
            self._put(data, oid)
        self._remember(oid, dict(sorted(listing.items())))
        return oid

    def _put(self, data: bytes, md5: str) -> None:
        path = self.path_of(md5)
        if self._keep(path, md5, len(data)):
            return
        tmp = self._tmp_name()  # before the file is there: Ctrl-C may come at any moment
        try:
            descriptor = self._open_tmp(tmp)
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
            self._publish(tmp, path, md5)
        except BaseException:
            _discard(tmp)
            raise

    def _stream(self, source: int, status: os.stat_result) -> tuple[str, int]:
        """A big file: hashed while it is copied, or hashed after its blocks were shared (reflink)."""
        tmp = self._tmp_name()  # before the file is there: Ctrl-C may come at any moment
        try:
            descriptor = self._open_tmp(tmp)
            try:
                md5, size = self._clone_or_copy(source, descriptor, status)
            finally:
                os.close(descriptor)
            path = self.path_of(md5)
            if self._keep(path, md5, size):
                _discard(tmp)
            else:
                self._publish(tmp, path, md5)
        except BaseException:
            _discard(tmp)
            raise
        return md5, size

    def _clone_or_copy(self, source: int, target: int, status: os.stat_result) -> tuple[str, int]:
        if can_reflink(status.st_dev):
            with contextlib.suppress(OSError):
                clone(source, target)
                return _digest(target), os.fstat(target).st_size
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        os.lseek(source, 0, os.SEEK_SET)
        while chunk := os.read(source, _CHUNK):
            digest.update(chunk)
            _write_all(target, chunk)
            size += len(chunk)
        return digest.hexdigest(), size

    def _take(self, source: str, descriptor: int, status: os.stat_result) -> tuple[str, int]:
        """Hash a file where it lies, then move it in.  One with other links is copied: they could still write to it."""
        if status.st_nlink > 1:
            result = self._stream(descriptor, status)
            os.unlink(source)
            return result
        md5 = _digest(descriptor)
        path = self.path_of(md5)
        if self._keep(path, md5, status.st_size):
            os.unlink(source)
            return md5, status.st_size
        os.fchmod(descriptor, self._mode)
        try:
            self._publish(source, path, md5)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            md5, _ = self._stream(descriptor, status)
            os.unlink(source)
        return md5, status.st_size

    def _keep(self, path: str, md5: str, size: int) -> bool:
        """Whether the blob is here already, whole.  Not yet protected: `sync` sees to it.

        Protected says that its bytes were made durable.  Else a crash or a full disk may have left another size, or
        zeros: then it is to be replaced.
        """
        try:
            status = os.stat(path)
            if status.st_size != size:
                return False
            if stat.S_IMODE(status.st_mode) != _PROTECTED:
                if md5 not in self._pending and _digest_of(path) != md5.removesuffix(DIR):
                    return False
                with self._lock:
                    self._pending.add(md5)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _publish(self, tmp: str, path: str, md5: str) -> None:
        try:
            os.rename(tmp, path)
        except FileNotFoundError:
            self._make_dir(os.path.dirname(path))
            os.rename(tmp, path)
        with self._lock:
            self._pending.add(md5)

    def _tmp_name(self) -> str:
        if self._pid != os.getpid():  # forked: the counter is shared no longer
            self._pid = os.getpid()
            self._tmp_prefix = f"{os.uname().nodename}.{self._pid}"
        return f"{self._tmp_dir}/{self._tmp_prefix}.{id(self):x}.{next(self._counter)}"

    def _open_tmp(self, tmp: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            descriptor = os.open(tmp, flags, self._mode)
        except FileNotFoundError:
            self._make_dir(self._root)
            self._make_dir(self._tmp_dir)
            descriptor = os.open(tmp, flags, self._mode)
        if self.shared:
            os.fchmod(descriptor, self._mode)
        return descriptor

    def _make_dir(self, path: str) -> None:
        if not self.shared:
            os.makedirs(path, exist_ok=True)
            return
        made = []
        while not os.path.isdir(path):
            made.append(path)
            path = os.path.dirname(path)
        for folder in reversed(made):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
                os.chmod(folder, 0o2775)  # mkdir's own mode is cut by the umask

    @contextlib.contextmanager
    def _storing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise GitpipeError(f"cannot store {what} in the cache {self.cache}: {exc.strerror}") from exc

    def sweep_tmp(self, older_than: float = 3600.0) -> int:
        """Remove half-written files that a killed process left behind; how many there were.

        Files younger than `older_than` seconds stay, and those of living processes of this host for a day: another
        process may be writing them.
        """
        host, now, swept = os.uname().nodename, time.time(), 0
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._tmp_dir):
                with contextlib.suppress(OSError):
                    age = abs(now - entry.stat().st_mtime)  # the clock may have been put back
                    limit = older_than if _dead(entry.name, host) else max(older_than, 86400.0)
                    if age >= limit:
                        if entry.is_dir(follow_symlinks=False):  # of a fetch
                            shutil.rmtree(entry.path)
                        else:
                            os.unlink(entry.path)
                        swept += 1
        return swept

    # -- durability

    def adopt(self, md5s: Iterable[str]) -> None:
        """Count blobs that a worker wrote into the cache among those that the next `sync` makes durable.

        Raises:
            BadData: one of them is not here.
        """
        for md5 in dict.fromkeys(md5s):
            path, status = self._need(md5)
            if stat.S_IMODE(status.st_mode) != _PROTECTED and path == self.path_of(md5):
                with self._lock:
                    self._pending.add(md5)

    def sync(self) -> None:
        """Make all that was put durable with one ``syncfs``, then protect it (mode 0444).

        Returns only when also what another thread is syncing is durable: the caller publishes a pointer next.

        Raises:
            GitpipeError: the disk reported an error; nothing may be published.
            BadData: a blob vanished in the meantime.
        """
        with self._sync_lock:
            with self._lock:
                batch, self._pending = self._pending, set()
            if not batch:
                return
            try:
                flush(self._root)
                for md5 in batch:
                    self._protect(md5)
                    point("blob-protected")
            except BaseException as exc:
                with self._lock:
                    self._pending |= batch
                if isinstance(exc, OSError):
                    raise GitpipeError(f"cannot write the cache {self.cache} to disk: {exc.strerror}") from exc
                raise

    def _protect(self, md5: str) -> None:
        try:
            os.chmod(self.path_of(md5), _PROTECTED)
        except FileNotFoundError:
            raise BadData(f"blob {md5} vanished from the cache {self.cache}; is `dvc gc` running?") from None
        except PermissionError:
            pass  # another user's blob in a shared cache; DVC lets that pass as well

    # -- listings

    def read_listing(self, oid: str) -> Listing:
        """The listing of a ``<md5>.dir`` object, checked; the caller's own copy.

        Raises:
            BadData: not here, damaged, malformed or hostile.
        """
        with self._lock:
            listing = self._listings.get(oid)
            if listing is not None:
                self._listings.move_to_end(oid)
        if listing is None:
            if not oid.endswith(DIR):
                raise BadData(f"{oid} names a file, not a folder's listing")
            listing = decode_listing(oid, self.read(oid))
            self._remember(oid, listing)
        return dict(listing)

    def _remember(self, oid: str, listing: Listing) -> None:
        with self._lock:
            self._listings[oid] = listing
            while len(self._listings) > _LISTINGS:
                self._listings.popitem(last=False)

    # -- files made from blobs

    def link(self, md5: str, target: Path) -> None:
        """Make `target` a read-only file with the blob's bytes: a hard link where possible, else a copy.

        A file at `target` is replaced.

        Raises:
            BadData: the blob is not here.
        """
        path, status = self._need(md5)
        goal = os.fspath(target)
        # A blob that is not protected yet must not become so by way of a link to it: it is copied.
        if stat.S_IMODE(status.st_mode) & 0o222 or not _try_link(path, goal):
            _discard(goal)
            copy(path, goal)
            os.chmod(goal, _PROTECTED)

    def place(self, md5: str, target: str) -> os.stat_result:
        """Make the new file `target` by the configured cache type; its ``lstat``.

        Raises:
            BadData: the blob is not here.
            OSError: `target` exists, or cannot be written.
        """
        copied = self._copy_small(self.path_of(md5), target)
        if copied is None:
            place(self._need(md5)[0], target, self.cache_types)
        return copied or os.lstat(target)

    def _copy_small(self, source: str, target: str) -> os.stat_result | None:
        """Copy a small blob with one read and one write; None where that is not what the cache type asks for."""
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None  # perhaps where DVC 2 kept it
        try:
            status = os.fstat(descriptor)
            if status.st_size > _SMALL or not self._copies(status.st_dev):
                return None
            data = _read_all(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, data)
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _copies(self, device: int) -> bool:
        first = self.cache_types[0] if self.cache_types else "copy"
        return first == "copy" or (
            first == "reflink" and not can_reflink(device) and self.cache_types[1:2] in ((), ("copy",))
        )

    def links_files(self) -> bool:
        """Whether `place` makes links into the cache (cache type hardlink or symlink) rather than copies."""
        return next((kind for kind in self.cache_types if kind != "reflink"), "copy") in ("hardlink", "symlink")

    def md5_of_link(self, destination: str) -> str | None:
        """The md5 of the blob that a symbolic link to the absolute path `destination` names, or None."""
        prefix, _, rest = destination.rpartition("/")
        folder, _, start = prefix.rpartition("/")
        if not _OID.match(start + rest) or folder not in (self._root, os.path.realpath(self._root)):
            return None
        return start + rest

    # -- remotes

    def advice(self, branch: str = "") -> str:
        """What people can do about a blob that is not here; `branch` is one that has it."""
        if self.fetch_root is not None:
            return "bring it with `dvc fetch`" + (f" on {branch}" if branch else "")
        if self.remote:
            return f"`dvc push` it to {self.remote} from where it is"
        return "a bare repository has no `dvc fetch`: `git config gitpipe.remote URL` names the DVC remote that has it"

    def _remotes(self) -> Sections:
        """The settings of all remotes."""
        settings = remote_settings(self.fetch_root / ".dvc", trusted=self.trusted) if self.fetch_root else {}
        if self.remote:
            settings[f'remote "{OWN_REMOTE}"'] = {"url": self.remote}
            settings.setdefault("core", {}).setdefault("remote", OWN_REMOTE)
        return settings

    def fetch(self, md5s: Iterable[str]) -> list[str]:
        """Try to bring missing blobs from the configured remotes; the ones still missing, in order.

        What arrives is hashed before it counts.  DVC is imported only where something is missing and a remote is
        configured.

        Raises:
            GitpipeError: blobs are still missing and a remote could not be read.
        """
        missing = self.missing(md5s)
        if not missing:
            return missing
        settings = self._remotes()
        names = remote_names(settings)
        if not names:
            return missing
        self._make_dir(self._tmp_dir)
        # Quarantine: DVC protects what it downloads without hashing it, and what a remote holds is not to be trusted.
        quarantine = tempfile.mkdtemp(prefix=f"{self._tmp_prefix}.fetch-", dir=self._tmp_dir)
        try:
            problems = [self._fetch_from(name, settings, quarantine, missing) for name in names]
            self.sync()
        finally:
            shutil.rmtree(quarantine, ignore_errors=True)
        missing = self.missing(missing)
        problem = next((problem for problem in problems if problem), "")
        if missing and problem:
            raise GitpipeError(problem)
        return missing

    def _fetch_from(self, remote: str, settings: Sections, quarantine: str, oids: list[str]) -> str:
        """Bring what `remote` has of `oids`; one line on what went wrong (not: that it lacks some), or ""."""
        oids = self.missing(oids)
        problem = _download(quarantine, settings, remote, oids) if oids else ""
        self._admit(quarantine)
        return f"cannot fetch from remote {remote}: {problem}" if problem else ""

    def push_remote(self) -> str:
        """The remote that `push` brings blobs to: DVC's default, else the only one; "" where there is no such."""
        settings = self._remotes()
        names = remote_names(settings)
        default = settings.get("core", {}).get("remote", "")
        return default if default in names else names[0] if len(names) == 1 and not default else ""

    def push(self, md5s: Iterable[str], legacy: Container[str] = ()) -> int:
        """Bring blobs to the remote `push_remote`, listings after what they list; how many it lacked before.

        Nothing is done where there is no such remote, or nothing to bring: then DVC is not imported.

        Args:
            md5s: blobs and listings; those that a listing names are to be among them.
            legacy: those of them that are to lie where DVC 2 looks for them.

        Raises:
            BadData: some are neither here nor there, or are not what their name says.
            GitpipeError: the remote could not be read or written.
        """
        oids = sorted(dict.fromkeys(md5s), key=lambda oid: (oid.endswith(DIR), oid))
        remote = self.push_remote() if oids else ""
        if not remote:
            return 0
        settings = self._remotes()
        self._make_dir(self._tmp_dir)
        folder = tempfile.mkdtemp(prefix=f"{self._tmp_prefix}.push-", dir=self._tmp_dir)
        try:
            with _opened(folder, settings, remote) as repo:
                there = repo.cloud.get_remote(remote)
                old = [oid for oid in oids if oid in legacy]
                new = [oid for oid in oids if oid not in legacy]
                count = self._upload(there.odb, new, remote, verify=True)
                # DVC 2 named text files by their content with other line ends: not to be verified here.
                return count + self._upload(there.legacy_odb, old, remote, verify=False)
        except GitpipeError:
            raise
        except Exception as exc:  # DVC and its file systems raise any kind
            said = read_config(self.fetch_root / ".dvc").remotes.get(remote, {}) if self.fetch_root else {}
            unused = sorted(key for key in said if key not in settings.get(f'remote "{remote}"', {}))
            hint = f" (`{unused[0]}` in .dvc/config does not count before it is set with --local)" if unused else ""
            raise GitpipeError(f"cannot push to DVC remote {remote}: {_in_words(exc)}{hint}") from exc
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _upload(self, target: Any, oids: list[str], remote: str, *, verify: bool) -> int:
        """Bring what the object store `target` lacks of `oids`, in their order where that matters."""
        if not oids:
            return 0
        there = set(target.oids_exist(oids))
        lacking = [oid for oid in oids if oid not in there]
        gone = self.missing(lacking)
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise BadData(f"blob {gone[0]}{more} is neither in the cache {self.cache} nor on DVC remote {remote}")
        from dvc_objects.fs.local import localfs

        errors: list[BaseException] = []
        # Files first: who finds a listing there may count on what it lists.
        for listings in (False, True):
            batch = [oid for oid in lacking if oid.endswith(DIR) is listings]
            damaged = next((oid for oid in batch if verify and not self.verify(oid)), None)
            if damaged:  # of a truncated blob DVC would notice nothing, as its mode says that it is whole
                raise BadData(f"blob {damaged} in {self.cache} is damaged: delete it and bring it with `dvc fetch`")
            if batch:
                paths = [self._need(oid)[0] for oid in batch]
                target.add(paths, localfs, batch, check_exists=False, on_error=lambda _oid, exc: errors.append(exc))
            if errors:
                raise GitpipeError(f"cannot push to DVC remote {remote}: {_in_words(errors[0])}")
        return len(lacking)

    def _admit(self, quarantine: str) -> None:
        """Move downloaded blobs into the cache, those apart whose bytes are not what their name says."""
        for folder, _, names in os.walk(f"{quarantine}/cache/files/md5"):
            for name in names:
                path, oid = f"{folder}/{name}", os.path.basename(folder) + name
                with open(path, "rb") as file:
                    whole = _OID.match(oid) and _digest(file.fileno()) == oid.removesuffix(DIR)
                if not whole:
                    os.unlink(path)
                elif oid.endswith(DIR):
                    with open(path, "rb") as file, self._storing(oid):
                        self._put(file.read(), oid)
                else:
                    self.put_file(path, move=True)


def _download(folder: str, settings: Sections, remote: str, oids: list[str]) -> str:
    """Bring what `remote` has of `oids` into ``<folder>/cache`` through DVC; the first error in words, or "".

    DVC works in a repo of its own made in `folder`, see `_opened`.
    """
    errors: list[BaseException] = []
    try:
        from dvc_data.hashfile import db

        open_store: Any = db.get_odb
        with _opened(folder, settings, remote) as repo:
            source, cache = repo.cloud.get_remote(remote), repo.cache.local
            for blobs in (source.odb, source.legacy_odb):
                # A store without DVC's hash database, which would look up blobs that did not come.
                _copy_blobs(blobs, open_store(cache.fs, cache.path), oids, errors)
    except Exception as exc:  # DVC and its file systems raise any kind; none is a reason to fail a checkout
        errors.append(exc)
    real = [error for error in errors if not isinstance(error, FileNotFoundError)]
    return _in_words(real[0]) if real else ""


@contextlib.contextmanager
def _opened(folder: str, settings: Sections, remote: str) -> Iterator[Any]:
    """A DVC repo of its own made in `folder`, whose default remote is `remote`.

    The user's is neither locked nor touched, and of its config nothing counts but `settings`.
    """
    dvc_dir = Path(folder, ".dvc")
    dvc_dir.mkdir(exist_ok=True)
    own = {"core": {"no_scm": "true", "analytics": "false", "remote": remote}, "cache": {"dir": f"{folder}/cache"}}
    (dvc_dir / "config").write_text(format_config({**settings, **own}), encoding="utf-8")
    from dvc.repo import Repo

    with contextlib.closing(Repo(folder)) as repo:
        yield repo


def _in_words(exc: BaseException) -> str:
    return " ".join(f"{exc} ({type(exc).__name__})".split())[:200]


def _copy_blobs(source: Any, target: Any, oids: list[str], errors: list[BaseException]) -> None:
    """Between two of DVC's object stores; what went wrong with single blobs goes to `errors`."""
    wanted = [oid for oid in oids if not os.path.exists(target.oid_to_path(oid))]
    if wanted:
        paths = [source.oid_to_path(oid) for oid in wanted]
        target.add(paths, source.fs, wanted, check_exists=False, on_error=lambda _oid, exc: errors.append(exc))


def _dead(name: str, host: str) -> bool:
    """Whether the tmp file `name` belongs to a process of this host that has ended."""
    owner, _, rest = name.removeprefix(host + ".").partition(".")
    if not name.startswith(host + ".") or not owner.isdigit() or not rest:
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _try_link(source: str, target: str) -> bool:
    """Hard-link, replacing `target`; False where hard links do not work here."""
    try:
        os.link(source, target)
    except FileExistsError:
        os.unlink(target)
        return _try_link(source, target)
    except OSError as exc:
        if exc.errno in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def _discard(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    parts = [data]  # the file is growing or shrinking under us: whatever is read now is what gets stored
    while data := os.read(descriptor, _CHUNK):
        parts.append(data)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _digest(descriptor: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, _CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _digest_of(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _digest(descriptor)
    finally:
        os.close(descriptor)
