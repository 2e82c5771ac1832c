"""Datums a second in sandboxed workers, against starting the same bare processes without any isolation."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import Row, informs, pairs

from gitpipe.blobs.dvc import DvcStore
from gitpipe.executors.local import LocalExecutor
from gitpipe.stage import Stage, Task, TaskInput

SLOTS = 2


def run(scratch: Path, rounds: int = 3, count: int = 400) -> list[Row]:
    rows = []
    for what, inside, bare in (
        ("sh -c 'cp …'", ("sh", "-c", "cp /pfs/src/* /pfs/out/"), lambda n: ["sh", "-c", f"cp in/{n} out/"]),
        ("true", ("true",), lambda n: ["true"]),
    ):
        folder = scratch / what[:4].strip()
        for name in ("in", "out", "code"):
            (folder / name).mkdir(parents=True)
        blobs = DvcStore(folder / "cache")
        tasks = []
        for number in range(count):
            content = f"{what} {number}\n"
            (folder / "in" / str(number)).write_text(content)
            files = ((f"{number}", blobs.put_bytes(content.encode())),)
            tasks.append(Task(f"{number:064}", (TaskInput("src", f"/{number}", "0" * 40, files),)))
        blobs.sync()
        stage = Stage("bench", inside, folder / "code", "/usr/bin/python3", blobs.files, folder / "cache" / "slots")
        executor = LocalExecutor()

        def ours(stage: Stage = stage, tasks: list[Task] = tasks, executor: LocalExecutor = executor) -> float:
            started = time.perf_counter()
            for result in executor.run(stage, tasks, SLOTS):
                assert result.ok, result
            return time.perf_counter() - started

        def theirs(folder: Path = folder, bare=bare) -> float:  # type: ignore[no-untyped-def]
            started = time.perf_counter()
            with ThreadPoolExecutor(SLOTS) as pool:
                list(pool.map(lambda n: subprocess.run(bare(n), cwd=folder, check=True), range(count)))
            return time.perf_counter() - started

        one, two = pairs(rounds, ours, theirs)
        executor.close()
        row = informs(f"{count} datums of `{what}`, {SLOTS} sandboxed workers", "bare subprocess.run", one, two)
        rows.append(row)
        print(f"  {what}: {count / row.ours:.0f} datums/s sandboxed, {count / row.peer:.0f} bare processes/s")
    return rows
