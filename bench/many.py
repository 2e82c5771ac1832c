"""One more file where many datums are done already: what does a commit cost beyond its own datum?

Not part of the usual run, as the first job has to run all datums: ``python bench/run.py many --size 100000``.
"""

from __future__ import annotations

import time
from pathlib import Path

from harness import Row, data_repo, informs, sh


def run(scratch: Path, rounds: int = 3, files: int = 10_000) -> list[Row]:
    times: dict[int, list[float]] = {}
    for size in (1, files):
        with data_repo(scratch, {"one": "src"}) as repo:
            for number in range(size):
                (repo.data / f"{number:06}.txt").write_text(f"{number}\n")
            sh("gitpipe add data", repo.src)
            started = time.perf_counter()
            repo.commit_and_wait("one", 3600)
            print(f"  the first {size:,} datums: {size / (time.perf_counter() - started):.0f} datums/s")
            times[size] = []
            for _ in range(rounds):
                repo.add()
                times[size].append(repo.commit_and_wait("one"))
    return [informs(f"one more datum beside {files:,}, commit to result", "beside 1", times[files], times[1])]
