"""How long the commands take that people type most, against the nearest of DVC's."""

from __future__ import annotations

from pathlib import Path

from harness import Row, data_repo, dvc_repo, informs, pairs, sh, timed

PAIRS = (
    ("gitpipe --help", "dvc --help"),
    ("gitpipe list-repo", "dvc list ."),
    ("gitpipe status", "dvc status"),
    ("gitpipe list-job", "dvc exp show"),
)


def run(scratch: Path, rounds: int = 7) -> list[Row]:
    peer = dvc_repo(scratch)
    (peer / "data").mkdir()
    (peer / "data" / "x.csv").write_text("1\n")
    sh("dvc add -q data && git add . && git commit -q -m data", peer)
    rows = []
    with data_repo(scratch, {"one": "src"}) as repo:
        repo.add()
        repo.commit_and_wait("one")
        for mine, other in PAIRS:
            times = pairs(rounds, lambda m=mine: timed(m, repo.top), lambda o=other: timed(o, peer))
            rows.append(informs(mine, other, *times))
    return rows
