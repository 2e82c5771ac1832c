"""The background process: what it must outlive, and when it hands over to the next one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gitpipe import nudges
from gitpipe import project as project_module
from gitpipe.executors import Executor, open_executor
from gitpipe.pipelines import SPEC_REF
from gitpipe.repo import BLOB, Entry, RefUpdate, Signature
from tests.lab import EPOCH, Lab


def test_jobs_that_begin_together_share_one_executor(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Executor] = []

    def slow(engine: str, address: str, scratch: Path) -> Executor:
        time.sleep(0.2)
        made.append(open_executor(engine, address, scratch))
        return made[-1]

    monkeypatch.setattr(project_module, "open_executor", slow)
    lab.data("a", {"x": "1"})
    for name in "pqr":
        lab.pipeline(name, {"a": "/"})
    lab.run()
    assert len(made) == 1


def test_changed_settings_count_from_the_next_job_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner may live for hours: who sets another engine meanwhile gets it, without a restart."""
    asked: list[str] = []

    def noted(engine: str, address: str, scratch: Path) -> Executor:
        asked.append(engine)
        return open_executor(engine, address, scratch)

    monkeypatch.setattr(project_module, "open_executor", noted)
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    scheduler = lab.project.make_scheduler()
    done: list[int] = []

    def tick() -> None:
        if lab.project.journal.first_unfinished():
            return
        if not done:
            lab.git("config", "gitpipe.engine", "auto")
            lab.data("a", {"x": "2"})
            lab.project.reconciler.plan()
        elif len(done) > 3:
            scheduler.stop()
        done.append(1)

    lab.git("config", "gitpipe.engine", "local")
    scheduler.loop(float("inf"), tick)
    assert asked == ["local", "auto"]
    assert lab.files("p") == {"x": "2"}


def test_a_broken_spec_does_not_end_the_runner(lab: Lab) -> None:
    """Jobs are queued, then `__spec__` breaks: whoever waits is told, and the jobs run once it is mended."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    lab.data("a", {"x": "2"})
    project = lab.project
    project.reconciler.plan()
    repo, head = project.repo, lab.head("__spec__")
    tree = repo.write_paths({"zz/spec.json": Entry(BLOB, repo.write_blob(b"{}"))}, head)
    broken = repo.write_commit(tree, [head], "broken", Signature("A <a@example.org>", EPOCH))
    assert repo.update_refs([RefUpdate(SPEC_REF, broken, head)], "test")
    token = nudges.add_nudge(repo.common, "wait")
    lab.project.make_scheduler().loop(None)
    assert not token.exists()
    assert "zz/spec.json" in project.journal.meta("trouble")
    assert repo.update_refs([RefUpdate(SPEC_REF, head, broken)], "test")
    lab.run()
    assert lab.files("p") == {"x": "2"}


def test_a_new_runner_waits_for_one_that_is_ending(lab: Lab) -> None:
    """I9: a commit while Ray comes down finds no mark and starts the next runner, which must not give up."""
    lab.git("config", "gitpipe.linger", "0.1")
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    common = lab.project.repo.common
    nudges.add_nudge(common, "post-commit")
    ending = nudges.Lock(common)
    assert ending.acquire()
    with subprocess.Popen([sys.executable, "-m", "gitpipe.runner", str(common)]) as runner:
        time.sleep(4.5)
        ending.release()
        assert runner.wait(60) == 0
    assert lab.files("p") == {"x": "1"}


def test_what_comes_while_a_run_ends_is_done(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I9: a hook that saw the mark of `gitpipe run` starts no runner; its word is looked for before the mark goes."""
    lab.data("a", {"x": "1"})
    lab.pipeline("p", {"a": "/"})
    lab.run()
    common = lab.project.repo.common
    said: list[str] = []
    real = nudges.pending

    def pending(where: Path) -> set[str]:
        found = real(where)
        if not said:  # the loop has just looked, and sees nothing
            said.append(lab.data("a", {"x": "2"}))
            nudges.add_nudge(where, "post-commit")
        return found

    project = lab.project
    project.reconciler.plan()
    monkeypatch.setattr(nudges, "pending", pending)
    nudges.mark(common)
    runner = project.make_scheduler()
    monkeypatch.setattr(runner, "_look", lambda names, look=runner._look: look(names) if names else None)
    runner.loop(None)
    assert lab.files("p") == {"x": "2"}


def test_a_signal_ends_the_loop_at_whatever_moment_it_comes(lab: Lab) -> None:
    """Its handler runs in the loop's own thread, between any two steps: also within a wait, with its lock held."""
    scheduler = lab.project.make_scheduler()
    inside = threading.Event()

    def looping() -> None:
        with scheduler._changed._cond:  # as in `Event.wait`
            scheduler.stop()
        inside.set()

    threading.Thread(target=looping, daemon=True).start()
    assert inside.wait(5)
    scheduler.loop(float("inf"))  # ends at once
