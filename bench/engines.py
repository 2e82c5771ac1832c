"""Twenty datums of 0.2 s on ten slots: Ray's actors, cold and warm, against the threads of the runner."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness import Row, informs

from gitpipe.blobs.dvc import DvcStore
from gitpipe.executors import Executor, open_executor
from gitpipe.stage import Stage, Task, TaskInput

SLOTS = 10
DATUMS = 20
SECONDS = "0.2"


def run(scratch: Path, rounds: int = 3) -> list[Row]:
    (scratch / "code").mkdir()
    blobs = DvcStore(scratch / "cache")
    entry = (("x", blobs.put_bytes(b"x")),)
    blobs.sync()
    stage = Stage("bench", ("sleep", SECONDS), scratch / "code", "/usr/bin/python3", blobs.files, scratch / "slots")
    tasks = [Task(f"{number:064}", (TaskInput("src", "/x", "0" * 40, entry),)) for number in range(DATUMS)]

    def timed(executor: Executor) -> float:
        started = time.perf_counter()
        for result in executor.run(stage, tasks, SLOTS):
            assert result.ok, result
        return time.perf_counter() - started

    def cold(engine: str) -> Callable[[], float]:
        def once() -> float:
            executor = open_executor(engine, "", scratch / engine)
            try:
                return timed(executor)
            finally:
                executor.close()

        return once

    seconds: dict[str, list[float]] = {"local cold": [], "ray cold": [], "local warm": [], "ray warm": []}
    for _ in range(rounds):
        for engine in ("local", "ray"):
            seconds[f"{engine} cold"].append(cold(engine)())
    executors = {engine: open_executor(engine, "", scratch / engine) for engine in ("local", "ray")}
    try:
        for executor in executors.values():
            timed(executor)
        for _ in range(rounds):
            for engine, executor in executors.items():
                seconds[f"{engine} warm"].append(timed(executor))
    finally:
        for executor in executors.values():
            executor.close()
    what = f"{DATUMS} datums of {SECONDS} s, ten slots, Ray"
    return [informs(f"{what} {how}", f"local, {how}", seconds[f"ray {how}"], seconds[f"local {how}"])
            for how in ("cold", "warm")]  # fmt: skip
