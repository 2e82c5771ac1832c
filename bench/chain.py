"""A chain of two trivial stages: from `git commit` to both output commits, against `dvc repro` of the same."""

from __future__ import annotations

from pathlib import Path

from harness import Row, at_most, data_repo, dvc_repo, informs, pairs, sh, timed

DVC_YAML = """stages:
  one:
    cmd: mkdir -p one && cp data/* one/
    deps: [data]
    outs: [one]
  two:
    cmd: mkdir -p two && cp one/* two/
    deps: [one]
    outs: [two]
"""
THEIRS = "dvc add -q data && dvc repro -q && git add data.dvc dvc.lock && git commit -q -m more"


def run(scratch: Path, rounds: int = 7) -> list[Row]:
    peer = dvc_repo(scratch)
    (peer / "data").mkdir()
    (peer / "dvc.yaml").write_text(DVC_YAML)
    sh("printf '/data\\n/one\\n/two\\n' >.gitignore && git add . && git commit -q -m stages", peer)
    count = 0

    def theirs() -> float:
        nonlocal count
        count += 1
        (peer / "data" / "x.csv").write_text(f"{count}\n")
        return timed(THEIRS, peer)

    with data_repo(scratch, {"one": "src", "two": "one"}) as repo:

        def warm() -> float:
            repo.add()
            return repo.commit_and_wait("two")

        def cold() -> float:
            repo.add()
            repo.stop_runner()
            return repo.commit_and_wait("two")

        warm_times = pairs(rounds, warm, theirs)
        cold_times = pairs(rounds, cold, theirs)
        adding = pairs(rounds, lambda: _with_add(repo), theirs)
    against = "dvc add && dvc repro && git commit"
    return [
        at_most("two stages, commit to results, runner warm", against, *warm_times, 0.3),
        at_most("two stages, commit to results, no runner", against, *cold_times, 0.8),
        informs("the same, warm, with `gitpipe add`", against, *adding),
    ]


def _with_add(repo) -> float:  # type: ignore[no-untyped-def]
    import time

    started = time.perf_counter()
    repo.add()
    repo.commit_and_wait("two")
    return time.perf_counter() - started
