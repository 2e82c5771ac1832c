"""What the tests of stages and executors share: a cache, a code tree, and stages and tasks made of them."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from gitpipe.stage import Result, Stage, Task, TaskInput
from gitpipe.stage.sandbox import detect
from gitpipe.stage.worker import Worker

HAS_SANDBOX = detect("auto") == "bubblewrap"
needs_sandbox = pytest.mark.skipif(not HAS_SANDBOX, reason="bubblewrap does not work here")
both = pytest.mark.parametrize("sandbox", [pytest.param("auto", marks=needs_sandbox), "none"])


class Kit:
    """A place to run stages in."""

    def __init__(self, base: Path) -> None:
        self.cache, self.code, self.slots = base / "files/md5", base / "code", base / "slots"
        for folder in (self.cache, self.code, self.slots):
            folder.mkdir(parents=True, exist_ok=True)
        self.workers: list[Worker] = []

    def blob(self, data: bytes) -> str:
        md5 = hashlib.md5(data).hexdigest()
        path = self.cache / md5[:2] / md5[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o444)
        return md5

    def read(self, md5: str) -> bytes:
        return (self.cache / md5[:2] / md5[2:]).read_bytes()

    def script(self, name: str, text: str, mode: int = 0o755) -> None:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def stage(self, *cmd: str, sandbox: str = "auto", **more: object) -> Stage:
        fields = {"code_dir": self.code, "python": sys.executable, "cache_dir": self.cache, "slots_dir": self.slots}
        return Stage("p", cmd, **{**fields, "sandbox": sandbox, **more})  # type: ignore[arg-type]

    def worker(self, stage: Stage) -> Worker:
        worker = Worker(stage, self.slots / f"slot{len(self.workers)}")
        self.workers.append(worker)
        return worker

    def task(self, files: dict[str, bytes] | None = None, name: str = "in", datum: str = "d", **env: str) -> Task:
        entries = tuple(sorted((path, self.blob(data)) for path, data in (files or {}).items()))
        return Task(datum, (TaskInput(name, "/", "c" * 40, entries),), tuple(env.items()))

    def run(self, *cmd: str, files: dict[str, bytes] | None = None, **more: object) -> Result:
        """Run `cmd` as a stage on one datum."""
        return self.worker(self.stage(*cmd, **more)).run(self.task(files))  # type: ignore[arg-type]

    def sh(self, script: str, files: dict[str, bytes] | None = None, **more: object) -> Result:
        return self.run("sh", "-c", script, files=files, **more)

    def contents(self, result: Result) -> dict[str, bytes]:
        return {path: self.read(md5) for path, md5, _ in result.outputs}

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        assert list(self.slots.iterdir()) == [], "slots were left behind"


def seconds(number: int) -> str:
    """An argument for ``sleep`` by which this process's own sleepers can be told from everyone else's."""
    return f"{number}.{os.getpid()}"


def processes_with(text: str) -> list[int]:
    """The processes whose command line holds `text`, but for this one.  For text that is ours alone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def own_processes_with(text: str) -> list[int]:
    """Those of them that descend from this process: nobody else's is to be killed."""
    return [pid for pid in processes_with(text) if os.getpid() in ancestors(pid)]


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found
