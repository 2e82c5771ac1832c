"""What runs on a node of a cluster: a pool of workers, and a small cache where the node cannot see ours.

Knows nothing of Ray, which calls it, nor of which node it is on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path

from gitpipe.executors.local import WorkerPool
from gitpipe.stage import Result, Stage, Task
from gitpipe.stage.sandbox import inherited_environment

_GPUS = "CUDA_VISIBLE_DEVICES"


class Host:
    """Several worker slots; its methods are called from several threads at once."""

    def __init__(self, environ: dict[str, str], gpus: bool = False) -> None:
        """
        Args:
            environ: what user code inherits where this node is the one of the caller.
            gpus: whether GPUs were reserved; then Ray's choice of them is passed on.
        """
        self._own_gpus = {_GPUS: os.environ.get(_GPUS, "")} if gpus else {}
        self._pool = WorkerPool({**environ, **self._own_gpus}, "ray")
        self._base: Path | None = None

    def sees(self, marker: str, content: str) -> bool:
        """Whether the caller's file system is this node's too: `marker` is there and says `content`."""
        try:
            return Path(marker).read_text() == content
        except OSError:
            return False

    def run(self, stage: Stage, tasks: list[Task]) -> list[Result]:
        """Run the tasks on one worker, with the caller's cache."""
        results = []
        worker = None
        try:
            for task in tasks:
                if worker is None or not worker.alive:
                    if worker is not None:
                        self._pool.give(worker)
                    worker = self._pool.take(stage)
                results.append(worker.run(task))
        finally:
            if worker is not None:
                self._pool.give(worker)
        return results

    def abort(self, pipeline: str, datums: Collection[str] | None = None) -> None:
        """Kill what runs of a pipeline here, or some datums of it; the calls that wait for it get lost results."""
        self._pool.abort(pipeline, datums)

    # --- without a shared file system ---

    def prepare(self) -> None:
        """Make this node's own cache; user code gets this node's environment, since the caller's paths mean nothing."""
        if self._base is None:
            self._base = Path(tempfile.mkdtemp(prefix="gitpipe-host-"))
            for name in ("cache", "slots", "code"):
                (self._base / name).mkdir()
            self._pool = WorkerPool({**own_environment(), **self._own_gpus}, "ray")

    def lacks(self, md5s: list[str]) -> list[str]:
        """Those of `md5s` that have to be sent."""
        return [md5 for md5 in md5s if not self._blob(md5).exists()]

    def put(self, md5: str, part: str, data: bytes, last: bool) -> None:
        """Take the next bytes of a blob; `part` names this transfer, so that two of one blob do not mix."""
        blob = self._blob(md5)
        blob.parent.mkdir(exist_ok=True)
        partial = blob.with_name(f".{blob.name}-{part}")
        with partial.open("ab") as file:
            file.write(data)
        if last:
            partial.chmod(0o444)
            partial.replace(blob)

    def get(self, md5: str, offset: int, size: int) -> bytes:
        """Bytes of an output."""
        with self._blob(md5).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def has_code(self, digest: str) -> bool:
        return (self._own() / "code" / digest).exists()

    def put_code(self, digest: str, tar: bytes) -> None:
        """Unpack a code tree."""
        target = self._own() / "code" / digest
        fresh = Path(tempfile.mkdtemp(dir=target.parent))
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            archive.extractall(fresh)  # made by `pack` on the caller's side, who starts programs here anyway
        try:
            fresh.chmod(0o755)
            fresh.rename(target)
        except OSError:  # another slot was first
            shutil.rmtree(fresh, ignore_errors=True)

    def run_apart(self, stage: Stage, code: str, tasks: list[Task]) -> tuple[list[Result], dict[str, bytes]]:
        """The same as `run`, with this node's own cache and the code tree `code`; and live files as they ended."""
        own = self._own()
        python = stage.python if Path(stage.python).exists() else sys.executable
        here = dataclasses.replace(
            stage, code_dir=own / "code" / code, cache_dir=own / "cache", slots_dir=own / "slots", python=python
        )
        tasks = [dataclasses.replace(task, live=task.live and str(self._live(task.live))) for task in tasks]
        results = self.run(here, tasks)
        printed = {}
        for path in (Path(task.live) for task in tasks if task.live):
            with contextlib.suppress(FileNotFoundError):
                printed[path.name] = path.read_bytes()
                path.unlink()
        return results, printed

    def printed(self, known: dict[str, int]) -> dict[str, tuple[bytes, int]]:
        """What running datums have printed beyond the bytes that are known: live file -> (what is new, its size)."""
        found = {}
        for name, size in known.items():
            with contextlib.suppress(FileNotFoundError):
                data = self._live(name).read_bytes()
                found[name] = data[size if size <= len(data) else 0 :], len(data)
        return found

    def _live(self, name: str) -> Path:
        return self._own() / "live" / os.path.basename(name)

    def close(self) -> None:
        """End all workers, remove what is this node's own."""
        self._pool.close()
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)

    def _own(self) -> Path:
        assert self._base is not None, "prepare() comes first"
        return self._base

    def _blob(self, md5: str) -> Path:
        return self._own() / "cache" / md5[:2] / md5[2:]


def own_environment() -> dict[str, str]:
    """What user code inherits on a node: without what Ray sets for its own processes."""
    env = inherited_environment()
    for name in ("OMP_NUM_THREADS", _GPUS):  # Ray sets them by the CPUs and GPUs of the actor: mostly none
        env.pop(name, None)
    return env


def pack(code_dir: Path) -> bytes:
    """A code tree as a tar file, the same bytes for the same tree."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, folders, files in os.walk(code_dir):
            folders.sort()
            for name in sorted([*files, *folders]):
                path = Path(folder) / name
                info = archive.gettarinfo(path, str(path.relative_to(code_dir)))
                info.mtime = info.uid = info.gid = 0
                info.uname = info.gname = ""
                if info.isreg() or info.islnk():  # a second hard link is packed as a file, too
                    info.type, info.size = tarfile.REGTYPE, path.stat().st_size
                    with path.open("rb") as file:
                        archive.addfile(info, file)
                else:
                    archive.addfile(info)
    return buffer.getvalue()
