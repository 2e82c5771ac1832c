"""What the hooks add to `git commit`, with a runner that lives and with one that has to be started."""

from __future__ import annotations

from pathlib import Path

from harness import Row, data_repo, pairs, timed

MOST = 0.010  # seconds that the hooks may add
COMMIT = "git commit -q --allow-empty -m more"
BARE = "git -c core.hooksPath=/dev/null commit -q --allow-empty -m more"


def run(scratch: Path, rounds: int = 30) -> list[Row]:
    with data_repo(scratch, {"one": "src"}) as repo:
        repo.add()
        repo.commit_and_wait("one")

        def settled(command: str) -> float:
            repo.settle()
            return timed(command, repo.src)

        alive = pairs(rounds, lambda: settled(COMMIT), lambda: settled(BARE))

        def starting() -> float:
            repo.stop_runner()
            return timed(COMMIT, repo.src)

        def bare() -> float:
            repo.stop_runner()
            return timed(BARE, repo.src)

        dead = pairs(max(3, rounds // 3), starting, bare)
    return [_row("git commit, runner alive", alive), _row("git commit, runner to be started", dead)]


def _row(what: str, times: tuple[list[float], list[float]]) -> Row:
    # A difference in milliseconds, unlike a ratio, grows with whatever else the machine does: the fastest runs count.
    ours, peer = (min(each) for each in times)
    return Row(
        what,
        "the same without hooks",
        ours,
        peer,
        len(times[0]),
        "at most 10 ms more",
        ours - peer <= MOST,
        f"{(ours - peer) * 1000:+.1f} ms",
    )
