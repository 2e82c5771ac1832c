"""What the hooks add to each action of git that fires one and finds nothing to do but leave word: in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import DataRepo, Row, data_repo, pairs, sh, timed

MOST = 0.010  # seconds that the hooks may add
QUIET = "export GITPIPE=0; "


@dataclass(frozen=True)
class Action:
    """One action of git, what has to be made ready for it, and whether it happens in the worktree of a data repo."""

    what: str
    hooks: str
    prepare: str
    do: str
    data: bool = True


MORE = "git commit -q --allow-empty -m more"
ACTIONS = (
    Action("commit", "pre-commit, commit-msg, post-commit", "", MORE),
    Action("commit --amend", "post-rewrite too", "", "git commit -q --amend --allow-empty --no-edit"),
    Action("merge, fast-forward", "post-merge", f"{MORE} && git branch -f on && git reset -q HEAD~", "git merge -q on"),
    Action(
        "am",
        "post-applypatch",
        "date +%N >f && git add f && git commit -qm f && git format-patch -q -1 --stdout >../p; git reset -q --hard @~",
        "git am -q ../p",
    ),
    Action("switch, no data", "post-checkout", "git switch -q main", "git switch -q other", data=False),
    Action("push, no data", "pre-push", MORE, "git push -q far HEAD", data=False),
    Action("push to there", "post-receive", MORE, "git push -q --no-verify there HEAD", data=False),
)


def run(scratch: Path, rounds: int = 15) -> list[Row]:
    with data_repo(scratch, {"one": "src"}) as repo:
        repo.add()
        repo.commit_and_wait("one")
        sh(QUIET + "git branch other && git init -q --bare ../far && git remote add far ../far", repo.top)
        for name in ("there", "bare"):  # the one with hooks, the other without
            sh(QUIET + f"git clone -q --bare . ../{name} && git remote add {name} ../{name}", repo.top)
        sh("cp -p .git/hooks/* ../there/hooks/", repo.top)
        return [_row(action, repo, rounds) for action in ACTIONS]


def _row(action: Action, repo: DataRepo, rounds: int) -> Row:
    where = repo.src if action.data else repo.top

    def once(do: str) -> float:
        if action.prepare:
            sh(QUIET + action.prepare, where)
        repo.settle()
        return timed(do, where)

    without = action.do.replace("git ", "git -c core.hooksPath=/dev/null ", 1).replace(" there ", " bare ")
    ours, peer = (min(each) for each in pairs(rounds, lambda: once(action.do), lambda: once(without)))
    # As in `commit`: of a difference in milliseconds the fastest runs count.
    figure, held = f"{(ours - peer) * 1000:+.1f} ms", ours - peer <= MOST
    return Row(
        f"git {action.what} ({action.hooks})", "no hooks", ours, peer, rounds, "at most 10 ms more", held, figure
    )
