"""The same pipeline at 1,000, 10,000, 100,000 datums: what a change costs, in time, memory and bytes of git.

Not part of the usual run, as all datums have to run first: ``python bench/run.py scale --size 100000`` does one size.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import DataRepo, Row, data_repo, sh

SECONDS, MEGABYTES, KILOBYTES = 3.0, 500, 20
"""At most: one more datum beside the many; the runner's memory at its highest; what git gains by an output commit."""
PATIENCE = 7200.0


@dataclass
class Found:
    """What was measured at one size; seconds, megabytes, kilobytes."""

    size: int
    first: float = 0.0
    more: list[float] = field(default_factory=list)
    part: float = 0.0
    add: list[float] = field(default_factory=list)
    none: list[float] = field(default_factory=list)
    memory: float = 0.0
    git: list[float] = field(default_factory=list)


def run(scratch: Path, rounds: int = 3, files: int = 0) -> list[Row]:
    one = measure(scratch, 1, rounds)
    found = [measure(scratch, size, rounds) for size in ((files,) if files else (1_000, 10_000, 100_000))]
    print("| datums | from nothing | one more | 1 % other | `gitpipe add` | commit, nothing to run | runner | git |")
    print("|---|---|---|---|---|---|---|---|")
    for each in found:
        print(
            f"| {each.size:,} | {each.first:.0f} s, {each.size / each.first:.0f}/s | {mid(each.more):.2f} s | "
            f"{each.part:.2f} s | {mid(each.add):.2f} s | {mid(each.none):.2f} s | {each.memory:.0f} MB | "
            f"{max(each.git):.1f} kB |"
        )
    return [row for each in found for row in rows(each, one)]


def rows(found: Found, one: Found) -> list[Row]:
    """What is to hold at 100,000 is to hold below as well."""
    beyond = mid(found.more) - mid(one.more)
    what = f"beside {found.size:,} datums"
    return [
        Row(
            f"one more datum {what}",
            "beside 1",
            mid(found.more),
            mid(one.more),
            len(found.more),
            f"at most {SECONDS:g} s more",
            beyond <= SECONDS,
            f"+{beyond:.2f} s",
        ),
        Row(
            f"the runner's memory, {what}",
            "beside 1",
            mid(found.more),
            mid(one.more),
            1,
            f"at most {MEGABYTES} MB",
            found.memory <= MEGABYTES,
            f"{found.memory:.0f} MB",
        ),
        Row(
            f"git grows by an output commit, {what}",
            "beside 1",
            mid(found.more),
            mid(one.more),
            len(found.git),
            f"at most {KILOBYTES} kB",
            max(found.git) <= KILOBYTES,
            f"{max(found.git):.1f} kB",
        ),
    ]


def mid(values: list[float]) -> float:
    return statistics.median(values)


def measure(scratch: Path, size: int, rounds: int) -> Found:
    found = Found(size)
    with data_repo(scratch, {"one": "src"}) as repo:
        for number in range(size):
            write(repo, number, "first")
        sh("gitpipe add data", repo.src)
        found.first = repo.commit_and_wait("one", PATIENCE)
        check(repo, size, 0, size)
        for _ in range(rounds):
            repo.add()
            found.more.append(repo.commit_and_wait("one", PATIENCE))
            found.git.append(gained(repo))
        check(repo, 1, size, size + 1)
        some = max(1, size // 300)
        for number in range(some):
            write(repo, number, "changed")
            write(repo, size + number, "new")
            if size > 2 * some:
                path(repo, 2 * some + number).unlink()
        sh("gitpipe add data", repo.src)
        found.part = repo.commit_and_wait("one", PATIENCE)
        found.git.append(gained(repo))
        gone = some if size > 2 * some else 0
        check(repo, 2 * some, size + 1 - some - gone, size + 1 + some - gone)
        for number in range(rounds):
            path(repo, size + number % some).unlink(missing_ok=True)
            if number >= some:
                break
            started = time.perf_counter()
            sh("gitpipe add data", repo.src)
            found.add.append(time.perf_counter() - started)
            found.none.append(repo.commit_and_wait("one", PATIENCE))
            found.git.append(gained(repo))
        pid = (repo.top / ".git" / "gitpipe" / "runner.pid").read_text().split()[0]
        high = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        found.memory = int(high.split()[1]) / 1000
    return found


def path(repo: DataRepo, number: int) -> Path:
    return repo.data / f"{number:06}.txt"


def write(repo: DataRepo, number: int, text: str) -> None:
    path(repo, number).write_text(f"{text} {number}\n")


def check(repo: DataRepo, processed: int, skipped: int, total: int) -> None:
    """A figure of a run that did something else than it was to do would be none."""
    said = git(repo, "log", "-n", "1", "--format=%s", "refs/heads/one")
    expected = f"one: {processed} processed, {skipped} skipped of {total} datum{'' if total == 1 else 's'}"
    assert said == expected, f"{said!r}, not {expected!r}"


def gained(repo: DataRepo) -> float:
    """Kilobytes on disk of what the newest output commit brought into git."""
    objects = git(repo, "rev-list", "--objects", "refs/heads/one", "^refs/heads/one~1", "^refs/heads/src").splitlines()
    ids = "\n".join(line.split()[0] for line in objects) + "\n"
    sizes = git(repo, "cat-file", "--batch-check=%(objectsize:disk)", text=ids).split()
    return sum(map(int, sizes)) / 1000


def git(repo: DataRepo, *args: str, text: str = "") -> str:
    done = subprocess.run(["git", *args], cwd=repo.top, input=text, capture_output=True, encoding="utf-8", check=True)
    return done.stdout.rstrip("\n")
