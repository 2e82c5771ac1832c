"""`gitpipe add` of many small files that are new, against `dvc add` of the same."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import Row, at_most, data_repo, dvc_repo, informs, small_files, timed


def run(scratch: Path, rounds: int = 3, files: int = 10_000) -> list[Row]:
    first: tuple[list[float], list[float]] = ([], [])
    again: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        with data_repo(scratch, {}) as repo:
            peer = dvc_repo(scratch)
            for data in (repo.data, peer / "data"):
                small_files(data, files, number)
            both = [("gitpipe add data", repo.src, 0), ("dvc add -q data", peer, 1)]
            for times, change in ((first, False), (again, True)):
                if change:
                    for data in (repo.data, peer / "data"):
                        (data / "class00" / "000000.txt").write_text(f"changed {number}\n")
                for command, where, side in both if number % 2 else both[::-1]:
                    times[side].append(timed(command, where))
            shutil.rmtree(peer)
    return [
        at_most(f"gitpipe add, {files:,} new files", "dvc add", *first, 0.35),
        informs(f"gitpipe add, one of {files:,} files changed", "dvc add", *again),
    ]
