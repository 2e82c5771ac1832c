"""The tree of a data branch and the listing it stands for: read anything that DVC tracks, write one-directory form.

Knows nothing of refs, pipelines or working trees.  What gitpipe writes is ``data.dvc`` beside the four files that make
the branch a complete DVC repository; what it reads below ``data/`` may also be nested ``.dvc`` files and plain files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gitpipe.blobs import BlobStore
from gitpipe.blobs.pointers import (
    CONFIG,
    DVC_GITIGNORE,
    DVCIGNORE,
    GITIGNORE,
    Out,
    read_pointer,
    write_pointer,
)
from gitpipe.commit import Listing, check_listing
from gitpipe.errors import BadData
from gitpipe.repo import BLOB, EXE, LINK, TREE, Entry, Repo

POINTER = "data.dvc"
DATA = "data"


@dataclass(frozen=True, slots=True)
class DataKey:
    """What identifies a commit's data: the ids of ``data.dvc`` and of the folder ``data`` in git; either may lack."""

    pointer: str | None
    folder: str | None

    def __bool__(self) -> bool:
        return self.pointer is not None or self.folder is not None


def data_key(repo: Repo, treeish: str) -> DataKey:
    """The `DataKey` of a commit or tree; falsy where it holds no data."""
    tree = repo.tree(treeish)
    pointer, folder = tree.get(POINTER), tree.get(DATA)
    return DataKey(
        pointer.sha if pointer and pointer.mode in (BLOB, EXE) else None,
        folder.sha if folder and folder.mode == TREE else None,
    )


def read_listing(repo: Repo, blobs: BlobStore, treeish: str) -> Listing:
    """The files of a commit (empty where it holds no data).

    Raises:
        BadData: a malformed pointer or listing, or one that is missing and cannot be fetched.
    """
    try:
        return _read_listing(repo, blobs, treeish)
    except BadData as error:
        raise BadData(f"commit {treeish[:12]}: {error}") from error


def data_size(repo: Repo, blobs: BlobStore, commit: str) -> tuple[int | None, int]:
    """(bytes, files) of a commit; the former None where they cannot be read."""
    key = data_key(repo, commit)
    if key.pointer and not key.folder:
        outs = _outs_or_none(repo.blob(key.pointer))
        if outs and outs[0].size is not None and outs[0].nfiles is not None:
            return outs[0].size, outs[0].nfiles
    try:
        listing = read_listing(repo, blobs, commit)
    except BadData:
        return None, 0  # a damaged repo must not hide the others; whoever reads its files is told
    return sum(blobs.size(md5) or 0 for md5 in listing.values()), len(listing)


def is_data(repo: Repo, sha: str) -> bool:
    """Whether a commit counts as data: the empty first commit that `create-repo` makes does not."""
    if not data_key(repo, sha):
        return False
    if repo.commit(sha).parents:
        return True
    entry = repo.entry(sha, POINTER)
    return entry is None or b"nfiles: 0" not in repo.blob(entry.sha)


def _outs_or_none(pointer: bytes) -> list[Out]:
    try:
        return read_pointer(pointer.decode("utf-8", "replace"), POINTER)
    except BadData:
        return []


def _read_listing(repo: Repo, blobs: BlobStore, treeish: str) -> Listing:
    key = data_key(repo, treeish)
    found: Listing = {}
    if key.pointer:
        for path, md5 in _outs(repo, blobs, key.pointer, POINTER, ""):
            found[path] = md5
    if key.folder:
        for path, entry in repo.walk(key.folder):
            folder, _, name = path.rpartition("/")
            if name == ".gitignore":
                continue
            if name.endswith(".dvc"):
                for inner, md5 in _outs(repo, blobs, entry.sha, f"{DATA}/{path}", folder):
                    found[inner] = md5
            elif entry.mode in (BLOB, EXE):
                # A plain file in git becomes a blob like any other, so that stages see one kind of file.
                found[path] = blobs.put_bytes(repo.blob(entry.sha))
            elif entry.mode == LINK:
                raise BadData(f"{DATA}/{path} is a symbolic link in git: add the file itself")
    return check_listing(found) if key.folder else found


def _outs(repo: Repo, blobs: BlobStore, sha: str, pointer: str, folder: str) -> list[tuple[str, str]]:
    """(path below data, md5) of all that one ``.dvc`` file points to, which lies in `folder` below ``data``."""
    found: list[tuple[str, str]] = []
    for out in read_pointer(repo.blob(sha), pointer):
        # The top pointer's path is `data` itself; a nested one's is relative to its own folder.
        base = "" if pointer == POINTER else f"{folder}/{out.path}".strip("/")
        if pointer == POINTER and out.path != DATA:
            continue
        if out.isdir:
            if not blobs.has(out.md5):
                blobs.fetch([out.md5])
            listing = blobs.read_listing(out.md5)
            found += [(f"{base}/{path}".strip("/"), md5) for path, md5 in listing.items()]
        elif base:
            found.append((base, out.md5))
    return found


def write_tree(
    repo: Repo,
    blobs: BlobStore,
    listing: Listing,
    *,
    base: str | None = None,
    config: bytes | None = None,
    extra: Mapping[str, Entry] | None = None,
    size: int | None = None,
) -> str:
    """Write the tree of a data branch that holds `listing`; its sha.  Neither git objects nor blobs are synced yet.

    Args:
        base: an earlier tree or commit of the branch: what else it holds (a README) stays.
        config: the ``.dvc/config`` to write where `base` has none or an empty one.
        extra: further entries by path.
        size: the bytes of all files together, where that is known; else each blob is asked.
    """
    oid = blobs.put_listing(listing)
    if size is None:
        size = sum(blobs.size(md5) or 0 for md5 in listing.values())
    files = {POINTER: Entry(BLOB, repo.write_blob(write_pointer(DATA, oid, size, len(listing))))}
    there = repo.tree(base) if base else {}
    for path, content in (
        (".dvc/config", config if config is not None else CONFIG),
        (".dvc/.gitignore", DVC_GITIGNORE),
        (".dvcignore", DVCIGNORE),
        (".gitignore", GITIGNORE),
    ):
        entry = repo.entry(base, path) if base else None
        if entry is None or (path == ".dvc/config" and content and not repo.blob(entry.sha)):
            files[path] = Entry(BLOB, repo.write_blob(content))
    files.update(extra or {})
    if base is not None:
        # The one-directory form replaces whatever `data` was in git before.
        kept = {name: entry for name, entry in there.items() if name != DATA}
        return repo.write_paths(files, repo.write_tree(kept))
    return repo.write_paths(files)
