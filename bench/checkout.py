"""`git switch` between commits of a data repo with many files, whose hook brings ``data/``, against `dvc checkout`."""

from __future__ import annotations

import itertools
from pathlib import Path

from harness import Row, at_most, data_repo, dvc_repo, pairs, sh, small_files, timed

MOST = 0.3


def run(scratch: Path, rounds: int = 3, files: int = 10_000) -> list[Row]:
    peer = dvc_repo(scratch)
    sh("git branch empty && git switch -q -c full", peer)
    small_files(peer / "data", files)
    sh("dvc add -q data && git add . && git commit -q -m files && git switch -q -c other", peer)
    (peer / "data" / "class00" / "000000.txt").write_text("changed")
    sh("dvc add -q data && git commit -q -a -m change", peer)
    with data_repo(scratch, {}) as repo:
        small_files(repo.data, files)
        sh("gitpipe add data && git commit -q -m files && git branch -q empty HEAD~1 && git branch other", repo.src)
        sh("git switch -q other", repo.src)
        (repo.data / "class00" / "000000.txt").write_text("changed")
        sh("gitpipe add data && git commit -q -m change", repo.src)

        trash = itertools.count()

        def away(top: Path) -> None:
            """Files are moved, not deleted: ext4 looks long for inodes where many were deleted in the last minutes."""
            (top / "data").rename(scratch / f"trash-{next(trash)}")

        def ours(start: str, end: str) -> float:
            if start == "empty":
                away(repo.src)
            sh(f"git switch -q {start}", repo.src)
            return timed(f"git switch -q {end}", repo.src)

        def theirs(start: str, end: str) -> float:
            if start == "empty":
                away(peer)
            sh(f"git switch -q {start} && dvc checkout -q", peer)
            return timed(f"git switch -q {end} && dvc checkout -q", peer)

        sh("git switch -q src", repo.src)
        sh("git switch -q full && dvc checkout -q", peer)
        cold = pairs(rounds, lambda: ours("empty", "src"), lambda: theirs("empty", "full"))
        one = pairs(rounds, lambda: ours("other", "src"), lambda: theirs("other", "full"))
    return [
        at_most(f"git switch, {files:,} files come", "git switch && dvc checkout", *cold, MOST),
        at_most(f"git switch, one of {files:,} files changes", "git switch && dvc checkout", *one, MOST),
    ]
