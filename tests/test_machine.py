"""A state machine over all that may happen to a repository, against "recompute everything from the start".

Hypothesis draws commits, amends, reverts, resets, put-files, updates of pipelines, datums that fail, kills, a lost
``.git/gitpipe``, garbage collection, working trees; `Oracle` says in plain Python which files each output commit must
have, `tests/invariants.py` looks at I1 to I8 after each run.  A twin repository is done the same to but for what must
not matter (kills, lost state, garbage collection, another user and time zone): its commits have to be the same to the
last bit (I1, I2, I4).

For a long run::

    GITPIPE_MACHINE=200 python -m pytest tests/test_machine.py           # so many sequences of 30 steps
    GITPIPE_MACHINE=200 python -m pytest tests/test_machine.py --hypothesis-seed=7

Steps and sequences are counted; ``-s`` shows the counts at the end.
"""

from __future__ import annotations

import collections
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gitpipe import faults
from gitpipe.provenance import read_origin
from tests import invariants
from tests.lab import EPOCH, Lab, new_lab
from tests.oracle import Files, Oracle, Stage

SOURCES = ("a", "b")
# Pipeline -> what it may read; the first is what it reads as long as nobody chose.  In the order of the graph.
READS: dict[str, tuple[tuple[str, ...], ...]] = {
    "up": (("a",),),
    "tot": (("up",), ("a",), ("left",)),
    "left": (("a",), ("b",)),
    "right": (("a",), ("up",)),
    "join": (("left", "right"),),
    "mix": (("up", "b"), ("tot", "b")),
}
ORDER = ("up", "left", "tot", "right", "join", "mix")
POINTS = [name for name in faults.POINTS if name != "before-tick"]
COUNT = collections.Counter[str]()


@dataclass
class Standing:
    """How a pipeline has to stand after a run: `files` at `key`; None: nothing may be there for that key."""

    key: tuple[str, tuple[tuple[str, str], ...]] | None
    files: Files | None = None


# -- the machine -------------------------------------------------------------------------------------------------------

paths = st.sampled_from(["x", "y", "d/z", "d/w"])
texts = st.sampled_from(["1\n", "2\n", "3\n", "4\n", "bad\n"])
contents = st.dictionaries(paths, texts, min_size=1)
branches = st.sampled_from(SOURCES)


class Machine(RuleBasedStateMachine):
    """Two repositories: the one that everything happens to, and its twin."""

    def __init__(self) -> None:
        super().__init__()
        COUNT["sequences"] += 1
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.lab = self.twin = new_lab(self.folder / "lab")
        self.oracle = Oracle(self.lab)
        self.specs: dict[str, Stage] = {}
        self.stopped: set[str] = set()
        self.trees: dict[str, Path] = {}
        self.changed: dict[str, str] = {}  # output branch whose working tree has a changed file -> its text
        self.time = 0
        self.odd = False  # what the two would make of it now may differ, and both be right
        self.shifted = False  # since the last run something moved other than forward
        self.forgotten = False
        self.fresh = False  # whether there was a run since what it left was lost
        for branch in SOURCES:
            self._data(branch, {"x": f"first of {branch}\n", "d/z": "1\n"})
        for name in ORDER:
            self._put(name, Stage(tuple((each, "/*") for each in READS[name][0])))
        self.lab.project.pipelines.create([str(self.lab.root / "specs" / f"{n}.json") for n in ORDER])
        self._note_versions()
        self.twin = self._copy()
        self._mess()

    def _copy(self) -> Lab:
        """A twin: the same repository, but for the working trees, which are where they are."""
        folder = self.folder / "twin"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.lab.root, folder, symlinks=True)
        shutil.rmtree(folder / ".git" / "worktrees", ignore_errors=True)
        return Lab(folder)

    def _mess(self) -> None:
        """Leave the main working tree as people do: changed, staged and untracked files."""
        (self.lab.root / "README").write_text("scratch, changed\n")
        (self.lab.root / "staged").write_text("staged\n")
        self.lab.git("add", "staged")
        (self.lab.root / "staged").write_text("staged, then changed\n")

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def both(self) -> tuple[Lab, ...]:
        return (self.lab, self.twin) if self.twin is not self.lab else (self.lab,)

    def _step(self, what: str) -> None:
        note(what)
        COUNT["steps"] += 1
        COUNT[what.split()[0]] += 1
        self.time += 60

    def _data(self, branch: str, files: Files, parent: str | None = None) -> None:
        shas = {lab.data(branch, files, parent=parent, when=self.time) for lab in self.both}
        assert len(shas) == 1
        self.oracle.data[shas.pop()] = dict(files)

    def _chain(self, branch: str) -> list[str]:
        return self.lab.git("rev-list", "--first-parent", branch).split() if self.lab.head(branch) else []

    # -- what people do ------------------------------------------------------------------------------------------------

    @initialize(point=st.sampled_from(POINTS), count=st.integers(1, 4), forget=st.booleans())
    def begin(self, point: str, count: int, forget: bool) -> None:
        """First results, with a kill on the way; then something is lost."""
        self.kill(point, count, True)
        self.lose(forget)

    @rule(branch=branches, files=contents, times=st.integers(1, 2))
    def commit(self, branch: str, files: Files, times: int) -> None:
        self._step(f"commit {branch} {files} x{times}")
        for number in range(times):
            self._data(branch, files if number == 0 else {**files, "x": f"{self.time}\n"})
            self.time += 60

    @rule(branch=branches, remove=st.booleans(), path=paths, text=texts)
    def change(self, branch: str, remove: bool, path: str, text: str) -> None:
        """One file is changed, added or removed."""
        head = self.lab.head(branch)
        files = dict(self.oracle.data.get(head, {}))
        if remove and path in files and head:
            del files[path]
        else:
            files[path] = text
        self._step(f"change {branch} {'-' if path not in files else ''}{path} {text!r}")
        self._data(branch, files)

    @rule(branch=branches, files=contents)
    def amend(self, branch: str, files: Files) -> None:
        chain = self._chain(branch)
        if len(chain) > 1:
            self._step(f"amend {branch} {files}")
            self.shifted = True
            self._data(branch, files, parent=chain[1])

    @rule(branch=branches, back=st.integers(1, 3))
    def revert(self, branch: str, back: int) -> None:
        """A new commit with the files of an older one."""
        chain = self._chain(branch)
        if chain:
            self._step(f"revert {branch} {back}")
            self._data(branch, self.oracle.data[chain[min(back, len(chain) - 1)]])

    @rule(branch=branches, back=st.integers(1, 3))
    def reset(self, branch: str, back: int) -> None:
        chain = self._chain(branch)
        if len(chain) > 1:
            self._step(f"reset {branch} {back}")
            self.shifted = True
            for lab in self.both:
                lab.git("update-ref", f"refs/heads/{branch}", chain[min(back, len(chain) - 1)])

    @rule(branch=branches, path=paths, text=texts)
    def put_file(self, branch: str, path: str, text: str) -> None:
        if not self.lab.head(branch):
            return
        self._step(f"put-file {branch} {path} {text!r}")
        files = {**self.oracle.data[self.lab.head(branch)], path: text}
        source = self.folder / "put"
        source.write_text(text)
        date = f"{EPOCH + self.time} +0000"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GIT_COMMITTER_DATE", date)
            shas = {lab.project.data.put_file([branch, path], [str(source)]) for lab in self.both}
        assert len(shas) == 1
        self.oracle.data[shas.pop()] = files

    @rule(
        name=st.sampled_from(ORDER),
        kind=st.sampled_from(["each", "each", "all", "one"]),
        word=st.sampled_from("uvw"),
        picky=st.booleans(),
        globs=st.tuples(st.sampled_from(["/", "/*"]), st.sampled_from(["/", "/*"])),
        reads=st.integers(0, 2),
    )
    def pipeline(self, name: str, kind: str, word: str, picky: bool, globs: tuple[str, str], reads: int) -> None:
        """Other code, other globs, other inputs."""
        names = READS[name][reads % len(READS[name])]
        stage = Stage(tuple(zip(names, globs, strict=False)), kind, word, picky)
        self._step(f"pipeline {name} {stage}")
        self._put(name, stage)
        self.shifted = True
        for lab in self.both:
            lab.pipeline(name, dict(stage.reads), stage.script(), parallelism_spec={"constant": 2})
        self._note_versions()

    def _put(self, name: str, stage: Stage) -> None:
        self.lab.write_spec(name, dict(stage.reads), stage.script(), parallelism_spec={"constant": 2})
        self.specs[name] = stage

    def _note_versions(self) -> None:
        for name, stage in self.specs.items():
            versions = {lab.git("rev-parse", f"__spec__:{name}") for lab in self.both}
            assert len(versions) == 1
            self.oracle.stages[versions.pop()] = stage

    @rule(name=st.sampled_from(ORDER), start=st.booleans())
    def stop_or_start(self, name: str, start: bool) -> None:
        if name in self.stopped:
            self._step(f"start {name}")
            self.stopped.discard(name)
            self.shifted = True
            for lab in self.both:
                lab.project.pipelines.start(name)
        elif not start:
            self._step(f"stop {name}")
            self.stopped.add(name)
            for lab in self.both:
                lab.project.pipelines.stop(name)

    @rule(name=st.sampled_from(ORDER), back=st.integers(1, 2))
    def move_output(self, name: str, back: int) -> None:
        """Somebody moves an output branch back, or deletes it."""
        chain = self._chain(name)
        if not chain or name in self.trees or name in self.stopped:
            return
        self._step(f"move-output {name} {back}")
        self.shifted = True
        for lab in self.both:
            if back < len(chain):
                lab.git("update-ref", f"refs/heads/{name}", chain[back])
            else:
                lab.git("update-ref", "-d", f"refs/heads/{name}")

    @rule(name=st.sampled_from(ORDER), dirty=st.booleans())
    def working_tree(self, name: str, dirty: bool) -> None:
        """An output branch is checked out, or its tree is changed, or removed."""
        if name in self.trees:
            top = self.trees[name]
            if dirty and name not in self.changed:
                self._step(f"edit {name}")
                self.changed[name] = f"mine {self.time}\n"
                (top / "data").mkdir(exist_ok=True)  # hooks are off here: it comes with the next run
                (top / "data" / "mine").write_text(self.changed[name])
            else:
                self._step(f"remove-tree {name}")
                self.lab.git("worktree", "remove", "--force", str(top))
                del self.trees[name]
                self.changed.pop(name, None)
        elif self.lab.head(name):
            self._step(f"tree {name}")
            self.trees[name] = self.folder / f"tree-{name}-{self.time}"
            self.lab.git("worktree", "add", "-q", str(self.trees[name]), name)

    # -- what must not matter ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.fresh)
    @rule(forget=st.booleans())
    def lose(self, forget: bool) -> None:
        """I1, I8: .git/gitpipe is deleted, or git forgets what no ref names."""
        self.fresh = False
        if not forget:
            self._step("gc")
            self.lab.prune()
            invariants.provenance_resolves(self.lab)
            return
        self._step("forget")
        self.lab.forget()
        self.forgotten = True

    @rule(point=st.sampled_from(POINTS), count=st.integers(1, 4), again=st.booleans())
    def kill(self, point: str, count: int, again: bool) -> None:
        """I2: a run dies at a point of its own; it is started again, now or later."""
        self._step(f"kill {point}:{count}{' run' if again else ''}")
        COUNT["killed"] += self.lab.killed(f"{point}:{count}")
        if again:
            self.run()
        else:
            self.odd = True

    # -- run, and look at everything -----------------------------------------------------------------------------------

    @rule(number=st.integers(0, 2))
    def commit_and_run(self, number: int) -> None:
        """What is done most, so that there is a history."""
        branch = SOURCES[number % 2]
        self.change(branch, False, "x", f"{self.time}\n")
        self.run()

    @rule()
    def run(self) -> None:
        self._step("run")
        before = {top: invariants.look(top) for top in [self.lab.root]}
        heads = invariants.refs(self.lab, "refs/heads")
        note(f"  {self.lab.ran()}")
        for top, seen in before.items():
            invariants.hands_off(seen, top)
        self._heads_are_right(heads)
        self._history_is_right()
        invariants.exactly_once(self.lab)
        invariants.consistent_provenance(self.lab)
        invariants.failed_publishes_nothing(self.lab)
        invariants.blobs_are_whole(self.lab, SOURCES)
        for name, top in self.trees.items():
            if name in self.changed:
                assert (top / "data" / "mine").read_text() == self.changed[name]
            else:
                invariants.follows(self.lab, top, name)
        invariants.nothing_left_to_do(self.lab)
        self._same_as_twin()
        self.odd = self.shifted = self.forgotten = False
        self.fresh = True

    def _same_as_twin(self) -> None:
        """I4; where that is not to be expected, the twin is made anew as a copy.

        Without the journal nobody knows on which commit a pipeline was changed, stopped, or a branch moved back: there
        may be an output commit more or less on the way to the same result.
        """
        if self.odd or (self.forgotten and (self.shifted or self.stopped)):
            self.twin = self._copy()
            COUNT["copied"] += 1
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", "Pacific/Kiritimati")
            patch.setenv("GIT_COMMITTER_NAME", "Somebody Else")
            self.twin.run()
        here, there = (invariants.refs(lab, "refs/heads") for lab in self.both)
        here.pop("refs/heads/__spec__", None), there.pop("refs/heads/__spec__", None)
        assert here == there
        COUNT["compared"] += 1

    def _heads_are_right(self, before: Mapping[str, str]) -> None:
        """I1, I5: each output branch is where the sources' heads and the pipelines of now say."""
        standing: dict[str, Standing | None] = {}
        for name in ORDER:
            head = self.lab.head(name)
            if name in self.stopped:
                assert head == before.get(f"refs/heads/{name}", ""), f"{name} is stopped, and moved"
                continue
            expected = self._expected(name, standing)
            standing[name] = expected
            found = self._key(head)
            if expected is None:
                continue
            assert expected.key is not None
            if expected.files is None:
                assert found != expected.key, f"{name} has published what must fail"
                continue
            assert found == expected.key, f"{name} stands on {found}, not on {expected.key}"
            assert self.lab.files(name) == expected.files

    def _key(self, sha: str) -> tuple[str, tuple[tuple[str, str], ...]] | None:
        if not sha:
            return None
        origin = read_origin(self.lab.git("log", "-1", "--format=%B", sha) + "\n")
        return origin.version, tuple((ref.branch, ref.sha) for ref in origin.provenance)

    def _expected(self, name: str, standing: Mapping[str, Standing | None]) -> Standing | None:
        """None: there is no job that could succeed now; what stands before it stays."""
        stage = self.specs[name]
        closure: dict[str, str] = {}
        inputs: dict[str, Files] = {}
        for read, _ in stage.reads:
            if read in SOURCES:
                sha = self.oracle.position(read) if self.lab.head(read) else ""
                above: tuple[tuple[str, str], ...] = ()
            else:
                above_standing = standing.get(read)
                if read not in self.stopped and (above_standing is None or above_standing.files is None):
                    return None
                sha = self.lab.head(read)
                key = self._key(sha)
                above = key[1] if key else ()
            if not sha:
                return None
            for branch, commit in ((read, sha), *above):
                if closure.setdefault(branch, commit) != commit:
                    return None
            inputs[read] = self.oracle.of(sha)
        version = self.lab.git("rev-parse", f"__spec__:{name}")
        return Standing((version, tuple(sorted(closure.items()))), stage.results(inputs))

    def _history_is_right(self) -> None:
        """Each output commit there is has the files that its provenance says."""
        for name, commits in invariants.history(self.lab).items():
            for made in commits:
                expected = self.oracle.commit(made)
                assert expected is not None, f"{name} {made.sha} is of a job that must fail"
                assert self.lab.files_of(made.sha) == expected, f"{name} {made.sha}"


LONG = int(os.environ.get("GITPIPE_MACHINE", "0"))


def test_whatever_happens_the_result_is_as_if_all_was_computed_from_the_start(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1 to I8."""
    monkeypatch.setenv("GITPIPE", "0")
    chosen: dict[str, Any] = (
        {"max_examples": LONG, "stateful_step_count": 30}
        if LONG
        else {"max_examples": 2, "stateful_step_count": 9, "derandomize": True}
    )
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                **chosen,
                phases=[Phase.generate],  # a failure names its steps; to make them fewer would take an hour
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        print(f"\n{dict(COUNT)}")
    assert COUNT["run"] and COUNT["compared"] and COUNT["kill"]
