"""What a datum wrote to ``/pfs/out``, moved into the blob cache.

Knows the folder and the cache; not what ran.  The folder may hold anything that user code can make, so it is looked
at first, as a whole, and only then are its files moved: a datum that fails leaves no blob behind.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from gitpipe.commit import check_path
from gitpipe.errors import BadData
from gitpipe.faults import point

Output = tuple[str, str, int]
"""Path below ``/pfs/out``, md5, bytes."""

_CHUNK = 1 << 20
_ZEROS = memoryview(bytes(_CHUNK))
_MOST_LINKS = 40
_OF_DVC = frozenset({".dvc", ".dvcignore"})
"""Within data they change what DVC sees there, or end it with an error; all other names of its own are fine."""
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def collect(pfs: str, cache: str, inputs: Mapping[str, str], aliases: tuple[str, ...] = ()) -> tuple[Output, ...]:
    """Move the files of ``<pfs>/out`` into the cache.

    Args:
        pfs: the folder that the stage saw as ``/pfs``.
        cache: the blob cache's ``files/md5`` folder; the blobs are neither synced nor protected yet.
        inputs: ``<input>/<path>`` -> md5 of the inputs that are known to be unchanged; a link to one costs nothing.
        aliases: other absolute paths that lead to `pfs`, as they may stand in symlinks.

    Returns:
        The outputs, sorted by path.

    Raises:
        BadData: something that is no file, a name that cannot be recorded, a symlink that leads out of /pfs.
        OSError: the cache cannot be written.
    """
    survey = _Survey(pfs, ("/pfs", *aliases))
    try:
        survey.walk("out", "", ("out",))
    except RecursionError:
        raise BadData("/pfs/out: folders nested too deeply") from None
    blobs: dict[str, tuple[str, int]] = {}
    outputs = []
    for path, place in sorted(survey.found):
        if place not in blobs:
            md5 = inputs.get(place)
            blobs[place] = _known(md5, cache) if md5 else _store(f"{pfs}/{place}", cache, place.startswith("out/"))
        outputs.append((path, *blobs[place]))
    return tuple(outputs)


@dataclass
class _Survey:
    """Finds the files below ``out``, links followed.  `found`: (output path, the file's real place below pfs)."""

    pfs: str
    names: tuple[str, ...]
    found: list[tuple[str, str]] = field(default_factory=list)

    def walk(self, place: str, prefix: str, chain: tuple[str, ...]) -> None:
        """Record all files in the folder `place`, as output paths that begin with `prefix`."""
        for entry in _entries(f"{self.pfs}/{place}", prefix):
            path = prefix + entry.name
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except OSError as error:
                raise BadData(f"/pfs/out/{_shown(path)}: {error.strerror}") from None
            self.record(mode, f"{place}/{entry.name}", path, chain)

    def record(self, mode: int, place: str, path: str, chain: tuple[str, ...]) -> None:
        if stat.S_ISREG(mode):
            self.found.append((_checked(path), place))
        elif stat.S_ISDIR(mode):
            self.walk(place, path + "/", (*chain, place))
        elif stat.S_ISLNK(mode):
            target = self.resolve(place)
            if target in chain:
                raise BadData(f"/pfs/out/{_shown(path)} is a symlink to a folder that it lies in")
            self.record(os.lstat(f"{self.pfs}/{target}").st_mode, target, path, (*chain, target))
        else:
            kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
            raise BadData(f"/pfs/out/{_shown(path)} is {kind}; only files and folders can be outputs")

    def resolve(self, link: str) -> str:
        """Where a symlink leads in the end, below pfs; walked by hand, since /pfs is not there outside the sandbox."""
        shown = _shown(f"/pfs/{link}")
        target = os.readlink(f"{self.pfs}/{link}")
        todo = ["pfs", *link.split("/")][::-1]
        here: list[str] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del here[-1:]
                continue
            here.append(part)
            if here[0] != "pfs":
                raise BadData(f"{shown} is a symlink that leads out of /pfs: {_shown(target)}")
            real = "/".join((self.pfs, *here[1:]))
            try:
                mode = os.lstat(real).st_mode
            except OSError:
                raise BadData(f"{shown} is a symlink to something that does not exist: {_shown(target)}") from None
            if stat.S_ISLNK(mode):
                hops += 1
                if hops > _MOST_LINKS:
                    raise BadData(f"{shown} is a symlink that leads in a circle")
                step = os.readlink(real)
                here = [] if step.startswith("/") else here[:-1]
                todo += self._inside(step).split("/")[::-1]
        if len(here) < 2:
            raise BadData(f"{shown} is a symlink that leads out of /pfs: {_shown(target)}")
        return "/".join(here[1:])

    def _inside(self, target: str) -> str:
        """A link's text with any of the names of pfs replaced by ``/pfs``."""
        for name in self.names:
            if target == name or target.startswith(name + "/"):
                return "/pfs" + target[len(name) :]
        return target


def _entries(folder: str, prefix: str) -> list[os.DirEntry[str]]:
    for attempt in (1, 2):
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except PermissionError:
            if attempt == 2:
                raise BadData(f"/pfs/out/{_shown(prefix)}: permission denied") from None
            os.chmod(folder, 0o700)
        except OSError as error:
            raise BadData(f"/pfs/out/{_shown(prefix)[:200]}: {error.strerror}") from None
    return []


def _shown(path: str) -> str:
    """A path fit for a message of one line, whatever bytes it has."""
    return path.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")


def _checked(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BadData(f"/pfs/out/{_shown(path)}: the name is not UTF-8; rename the file") from None
    if not _OF_DVC.isdisjoint(path.split("/")):
        raise BadData(f"/pfs/out/{_shown(path)}: DVC would take it for settings of its own; rename it")
    try:
        return check_path(path)
    except BadData:
        raise BadData(f"/pfs/out/{_shown(path)}: a name that cannot be recorded; rename the file") from None


def _known(md5: str, cache: str) -> tuple[str, int]:
    return md5, os.stat(f"{cache}/{md5[:2]}/{md5[2:]}").st_size


def _store(path: str, cache: str, may_move: bool) -> tuple[str, int]:
    """Hash a file and make it a blob; (md5, bytes).  It is taken itself where nothing else has it, else copied."""
    fd = _open(path)
    try:
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        while data := os.read(fd, _CHUNK):
            digest.update(data)
            size += len(data)
        md5 = digest.hexdigest()
        blob = f"{cache}/{md5[:2]}/{md5[2:]}"
        if _has(blob, md5, size):
            return md5, size
        os.makedirs(f"{cache}/{md5[:2]}", exist_ok=True)
        # A second link would let user code change the blob afterwards, through the other name.
        if may_move and os.fstat(fd).st_nlink == 1:
            os.fchmod(fd, 0o644)
            source = path
        else:
            os.lseek(fd, 0, os.SEEK_SET)
            source = _copy(fd, f"{cache}/{md5[:2]}")
    finally:
        os.close(fd)
    _publish(source, blob, md5, size)
    return md5, size


def _open(path: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except PermissionError:
        os.chmod(path, 0o600)
        return os.open(path, flags)


def _has(blob: str, md5: str, size: int) -> bool:
    """Whether the cache has it already; a torn write is to be replaced.

    Read-only says that its bytes were made durable.  Else a power failure may have left another size, or zeros.
    """
    try:
        status = os.stat(blob)
        if status.st_size != size:
            return False
        return not status.st_mode & 0o222 or _digest(blob) == md5
    except FileNotFoundError:
        return False


def _digest(path: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _copy(fd: int, folder: str) -> str:
    """The file's bytes under a temporary name in `folder`; its holes, too, take no room."""
    out, name = tempfile.mkstemp(prefix=".gitpipe-", dir=folder)
    try:
        while data := os.read(fd, _CHUNK):
            view = memoryview(data)
            if data == _ZEROS[: len(data)]:
                os.lseek(out, len(data), os.SEEK_CUR)
                continue
            while view:
                view = view[os.write(out, view) :]
        os.ftruncate(out, os.lseek(out, 0, os.SEEK_CUR))
        os.fchmod(out, 0o644)
    except OSError:
        os.unlink(name)
        raise
    finally:
        os.close(out)
    return name


def _publish(source: str, blob: str, md5: str, size: int) -> None:
    """Give `source` its name in the cache; a good blob that another worker put there meanwhile is kept."""
    try:
        os.link(source, blob)
        point("blob-written")
        os.unlink(source)
    except FileExistsError:
        if _has(blob, md5, size):
            os.unlink(source)
        else:
            os.replace(source, blob)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        _publish_without_links(source, blob)


def _publish_without_links(source: str, blob: str) -> None:
    """The same on a file system without hard links, or with the slot on another one than the cache."""
    try:
        os.replace(source, blob)
    except OSError:
        fd = _open(source)
        try:
            os.replace(_copy(fd, os.path.dirname(blob)), blob)
        finally:
            os.close(fd)
        os.unlink(source)
