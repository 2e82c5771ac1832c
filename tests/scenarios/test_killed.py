"""Killed half-way, at every named point and at some that have no name: the next look at the refs puts it right.

After each kill `whole` looks at everything: one output commit a job (I2), consistent provenance (I3), the right files
(I7), `git fsck`, no lock, slot or process left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gitpipe import faults, nudges
from gitpipe.project import Project, open_project
from gitpipe.stage.sandbox import detect
from gitpipe.stage.slot import sweep
from tests.conftest import Shell

NAMES = ("a", "b", "c")
JOB_POINTS = [name for name in faults.POINTS if name != "before-tick"]  # that one: tests/test_cron.py
GITPIPE = [sys.executable, "-I", "-m", "gitpipe"]
PATIENCE = 180.0  # reached only by a failure, whatever else the machine does

PIPELINES = """[
 {"pipeline": {"name": "upper"}, "transform": {"cmd": ["bash", "-c",
  "@GATE@cd /pfs/src; for f in *; do tr a-z A-Z <$f >../out/$f; done"]},
  "input": {"pfs": {"repo": "src", "glob": "/*"}}, "parallelism_spec": {"constant": 2}},
 {"pipeline": {"name": "total"}, "transform": {"cmd": ["sh", "-c", "cat /pfs/upper/* > /pfs/out/all"]},
  "input": {"pfs": {"repo": "upper", "glob": "/"}}}
]"""


def until(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `what()` is true; the test fails if that takes too long."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def processes(word: str) -> set[int]:
    """The living processes that have `word` in their command line, but for this one."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.add(int(entry))
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Gate:
    """Where stages stop until the test lets them pass: each holds a connection for as long as it lives.

    So the test knows, without looking at processes, when a stage is at work and when all of it is dead.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._held: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_open = False
        self.arrived = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def word(self) -> str:
        """Stands in the command line of every stage that comes here."""
        return f"/dev/tcp/127.0.0.1/{self.port}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                held, _ = self._listener.accept()
                held.setblocking(False)
                with self._lock:
                    self.arrived += 1
                    if self._is_open:
                        held.close()
                    else:
                        self._held.append(held)

    def waiting(self) -> int:
        """How many stages stand before the gate and are alive."""
        with self._lock:
            self._held = [held for held in self._held if self._lives(held)]
            return len(self._held)

    def _lives(self, held: socket.socket) -> bool:
        try:
            return held.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def open(self) -> None:
        with self._lock:
            self._is_open = True
            for held in self._held:
                held.close()
            self._held = []

    def shut(self) -> None:
        with self._lock:
            self._is_open = False

    def close(self) -> None:
        self._listener.close()
        self.open()


@dataclass
class Chain:
    """A repository with `src` -> upper (a datum a file) -> total (one datum), and a working tree of `src`."""

    repo: Path
    sh: Shell
    commits: int = 0
    content: dict[str, str] = field(default_factory=dict)

    @property
    def common(self) -> Path:
        return self.repo / ".git"

    @property
    def src(self) -> Path:
        return self.repo.parent / "src"

    @property
    def results(self) -> dict[str, str]:
        """The files that `upper` has to make."""
        return {name: self.content[name].upper() for name in NAMES}

    def git(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(["git", *args], cwd=self.repo, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"git {args}: {done.stderr}"
        return done.stdout

    def config(self, **values: object) -> None:
        for key, value in values.items():
            self.git("config", f"gitpipe.{key}", str(value))

    def commit(self, *, kill_at: str = "", nudge: bool = True) -> None:
        """Change all files but the first, and commit; with `kill_at` for the runner that the hook starts."""
        number = self.commits + 1
        for name in NAMES if number == 1 else NAMES[1:]:
            self.content[name] = f"{name} {number}\n"
            (self.src / "data").mkdir(exist_ok=True)
            path = self.src / "data" / name
            path.unlink(missing_ok=True)
            path.write_text(self.content[name])
        open_project(self.src).checkouts.add(["data"], self.src)
        env = {**os.environ, "GITPIPE_KILL_AT": kill_at} | ({} if nudge else {"GITPIPE": "0"})
        subprocess.run(["git", "commit", "-qm", f"Number {number}"], cwd=self.src, env=env, check=True)
        self.commits = number

    def command(self, *args: str, status: int | None = 0, **env: str) -> str:
        """Run gitpipe as a person would; a negative status is the signal that it died of."""
        done = subprocess.run(
            [*GITPIPE, *args],
            cwd=self.repo,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert status is None or done.returncode == status, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Begin a gitpipe command, in a session of its own."""
        return subprocess.Popen(
            [*GITPIPE, *args],
            cwd=self.repo,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self) -> None:
        """`gitpipe wait`, in this process; all jobs have to succeed."""
        jobs = open_project(self.repo).wait(timeout=PATIENCE)
        assert {job.state for job in jobs} <= {"success"}, jobs

    def runner(self) -> int | None:
        """The pid of the living runner."""
        return nudges.marked(self.common) if nudges.runner_lives(self.common) else None

    def running(self) -> int:
        until(self.runner)
        pid = self.runner()
        assert pid
        return pid

    def no_runner(self) -> None:
        until(lambda: not nudges.runner_lives(self.common))

    def whole(self) -> None:
        """Everything is as if nobody had been killed."""
        self.outputs_are_right()
        self.nothing_is_left()

    def outputs_are_right(self, states: Collection[str] = ("success",)) -> None:
        """One output commit for each commit of data, each with its provenance, the newest with the right files.

        Args:
            states: that jobs may have ended in.
        """
        data = self.git("log", "--first-parent", "--format=%H", "src", "--", "data.dvc").split()
        data = data[: self.commits]
        uppers = self.outputs("upper")
        assert [ref["src"] for ref in uppers] == data
        totals = self.outputs("total")
        assert [(ref["src"], ref["upper"]) for ref in totals] == [(ref["src"], ref["commit"]) for ref in uppers]
        project = open_project(self.repo)
        assert self.files(project, "upper") == self.results
        assert self.files(project, "total") == {"all": "".join(self.results.values())}
        assert {job.state.value for job in project.jobs.since(0)} <= set(states)

    def outputs(self, pipeline: str) -> list[dict[str, str]]:
        """The output commits, the newest first: {branch of provenance: sha, "commit": its own}; no job has two."""
        form = "%H" + "".join(f"%x00%(trailers:key={key},valueonly,separator=%x20)" for key in ("Job", "Provenance"))
        found, seen = [], []
        for line in self.git("log", "--first-parent", f"--format={form}", pipeline, "--").splitlines():
            sha, job, provenance = line.split("\0")
            found.append({"commit": sha} | dict(word.split("@") for word in provenance.split()))
            seen += [job, provenance]
        assert len(seen) == len(set(seen)), f"{pipeline}: a job has two output commits"
        return found

    def files(self, project: Project, repo: str) -> dict[str, str]:
        """The files of a repo by what its commit says, each blob checked and protected."""
        _, listing = project.data._files([repo])
        for md5 in listing.values():
            assert project.blobs.verify(md5)
            assert os.stat(project.blobs.path_of(md5)).st_mode & 0o777 == 0o444
        return {path: project.blobs.read(md5).decode() for path, md5 in listing.items()}

    def locks(self) -> list[str]:
        """Names of lock files; slots, whose folders come and go, have none."""
        found = []
        for folder, below, names in os.walk(self.common):
            below[:] = [name for name in below if name != ".gitpipe-slots"]
            found += [name for name in names if name.endswith(".lock") and os.path.exists(f"{folder}/{name}")]
        return found

    def nothing_is_left(self) -> None:
        """No broken object, no lock of git's, nor a slot, process or mark of one that was killed."""
        done = subprocess.run(["git", "fsck", "--strict", "--full"], cwd=self.repo, capture_output=True, text=True)
        assert done.returncode == 0 and "error" not in done.stderr, done.stderr
        self.no_runner()
        # gitpipe's own is a file to flock: the lock itself ends with its owner.
        assert set(self.locks()) <= {"gitpipe-data.lock"}
        until(lambda: not processes(str(self.repo)), 20)
        slots = self.common / "dvc" / "cache" / ".gitpipe-slots"
        assert not slots.exists() or not list(slots.iterdir())
        assert nudges.marked(self.common) is None
        assert not nudges.pending(self.common)


@pytest.fixture
def chain(scratch: Path, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chain]:
    """The repository with its first results; runners end as soon as they have nothing to do."""
    story = Chain(scratch, sh)
    make(story, PIPELINES.replace("@GATE@", ""))
    before = signal.getsignal(signal.SIGTERM)
    yield story
    signal.signal(signal.SIGTERM, before)
    pid = story.runner()
    if pid and pid != os.getpid():
        kill(pid)


def make(story: Chain, pipelines: str) -> None:
    (story.repo / "pipes").mkdir()
    (story.repo / "pipes" / "chain.json").write_text(pipelines)
    story.sh("gitpipe init && git config gitpipe.engine local && git config gitpipe.linger 0", cwd=story.repo)
    os.environ["GITPIPE"] = "0"
    try:
        project = open_project(story.repo)
        project.data.create_repo("src")
        story.git("worktree", "add", "-q", "../src", "src")
        project.pipelines.create([str(story.repo / "pipes" / "chain.json")])
        story.commit()
    finally:
        del os.environ["GITPIPE"]


SECOND = {"job-recorded": 2, "datum-before": 2, "blobs-written": 2, "before-ref": 2, "after-ref": 2, "datum-after": 2}


def test_killed_in_the_foreground_at_every_point(chain: Chain) -> None:
    """I2, I7: `gitpipe run` is killed at each point; the next one ends with one right commit a job."""
    for point in JOB_POINTS:
        chain.command("run", status=-signal.SIGKILL, GITPIPE_KILL_AT=point)
        open_project(chain.repo).run()
        chain.whole()
        chain.commit(nudge=False)
    chain.command("run", status=-signal.SIGKILL, GITPIPE_KILL_AT="before-ref:2")
    chain.command("run", status=-signal.SIGKILL, GITPIPE_KILL_AT="after-ref")
    chain.command("run")
    chain.whole()


def test_killed_in_the_background_at_every_point(chain: Chain) -> None:
    """I2, I9: the runner that a commit's hook started is killed at each point; a plain `wait` ends it all."""
    chain.wait()
    for point in JOB_POINTS:
        count = SECOND.get(point, 1)
        chain.commit(kill_at=f"{point}:{count}")
        until(lambda: nudges.marked(chain.common) and not nudges.runner_lives(chain.common))
        chain.wait()
        chain.whole()


@pytest.fixture
def gate() -> Iterator[Gate]:
    barrier = Gate()
    yield barrier
    barrier.close()


@pytest.fixture
def gated(chain: Chain, gate: Gate) -> Chain:
    """The chain with first results, and the gate shut for the datums of `upper` that come next."""
    pipelines = PIPELINES.replace("@GATE@", f"exec 3<>{gate.word}; cat <&3; ")
    (chain.repo / "pipes" / "chain.json").write_text(pipelines)
    gate.open()
    open_project(chain.repo).pipelines.update([str(chain.repo / "pipes" / "chain.json")])
    chain.wait()
    chain.whole()
    gate.shut()
    return chain


def test_stage_or_worker_killed(gated: Chain, gate: Gate) -> None:
    """I2: a stage, the agent that runs it, and the sandbox around both are killed in the middle of a datum."""
    gated.commit()
    runner = gated.running()
    where = "inside" if detect("auto") == "bubblewrap" else "outside"
    victims: list[Callable[[], set[int]]] = [
        lambda: processes(gate.word),
        lambda: processes(f"{where}\0{runner}\0") - processes("bwrap"),
        lambda: processes(f"{where}\0{runner}\0") & processes("bwrap"),
    ]
    if where == "outside":
        victims.pop()
    for find in victims:
        until(lambda: gate.waiting() == 2)
        before = gate.arrived
        until(lambda: len(find()) == 2)  # noqa: B023 - a shell that just forked is there twice for a moment
        for pid in find():
            kill(pid)
        until(lambda: gate.arrived == before + 2)  # noqa: B023 - called here only
    gate.open()
    gated.wait()
    assert gated.runner() in (runner, None)
    gated.whole()


def test_runner_killed_amid_a_datum(gated: Chain, gate: Gate) -> None:
    """I2: the runner is killed twice in a row, then told to end (SIGTERM); all its stages die with it each time."""
    gated.commit()
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        until(lambda: gate.waiting() == 2)
        kill(gated.running(), number)
        until(lambda: not nudges.runner_lives(gated.common), 10)
        until(lambda: gate.waiting() == 0, 5)
        assert {job.state.value for job in open_project(gated.repo).journal.unfinished()} <= {"queued", "running"}
        open_project(gated.repo).nudge()
    until(lambda: gate.waiting() == 2)
    pid = gated.running()
    kill(pid, signal.SIGHUP)  # the terminal that it was started from is closed
    gate.open()
    gated.wait()
    gated.whole()


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP does what it does by default: under nohup it is ignored, also by all that the tests start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_interrupted(gated: Chain, gate: Gate) -> None:
    """^C ends `wait` but not the runner; it ends `run` with all its stages, and the next one goes on."""
    gated.commit()
    until(lambda: gate.waiting() == 2)
    runner = gated.running()
    waiting = gated.start("wait")
    assert waiting.stdout
    waiting.stdout.readline()
    kill(waiting.pid, signal.SIGINT)
    said, _ = waiting.communicate(timeout=90)
    assert waiting.returncode == 130 and "Traceback" not in said, said
    assert gated.runner() == runner and gate.waiting() == 2
    kill(runner, signal.SIGTERM)
    gated.no_runner()
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, None), (signal.SIGHUP, None)):
        running = gated.start("run")
        until(lambda: gate.waiting() == 2)
        kill(running.pid, number)
        said, _ = running.communicate(timeout=90)
        assert "Traceback" not in said, said
        assert running.returncode != 0 and status in (None, running.returncode), said
        until(lambda: gate.waiting() == 0, 5)
        gated.no_runner()
    gate.open()
    gated.command("run")
    gated.whole()


def test_what_an_ended_run_printed_stays(scratch: Path, sh: Shell, gate: Gate) -> None:
    """A job that goes on keeps the logs of the datums that it does not run again."""
    chain = Chain(scratch, sh)
    hold = f"[ ! -e /pfs/src/c ] || {{ exec 3<>{gate.word}; cat <&3; }}; echo did; "
    make(chain, PIPELINES.replace("@GATE@", hold))

    def printed() -> set[str]:
        lines = chain.command("logs", "--pipeline", "upper", "--raw").splitlines()
        return {json.loads(line)["datum"] for line in lines}

    running = chain.start("run")
    until(lambda: gate.waiting() == 1 and len(printed()) == 2)
    before = printed()
    kill(running.pid, signal.SIGTERM)
    running.communicate(timeout=PATIENCE)
    gate.open()
    chain.command("run")
    assert len(printed()) == 3 and before < printed()
    assert chain.command("logs", "--pipeline", "upper").count("did") == 3, "nothing ran twice"
    chain.outputs_are_right()


def test_state_deleted_under_the_runner(gated: Chain, gate: Gate) -> None:
    """I1: .git/gitpipe is deleted while a job runs; there is one runner, and it finds out anew what is to be done."""
    gated.commit()
    until(lambda: gate.waiting() == 2)
    runner = gated.running()
    shutil.rmtree(gated.common / "gitpipe")
    waiting = gated.start("wait")
    until(lambda: nudges.marked(gated.common) == runner)
    # The one that `wait` started finds the lock held and ends.
    until(lambda: processes("gitpipe.runner\0" + str(gated.common)) == {runner})
    gate.open()
    said, _ = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0, said
    gated.wait()
    gated.whole()


def test_torn_blobs_are_not_trusted(chain: Chain) -> None:
    """I7: what a killed run left unsynced, and a power failure cut short or filled with zeros, is made again."""
    for harm in (lambda data: data[:-1], lambda data: b"", lambda data: bytes(len(data))):
        chain.command("run", status=-signal.SIGKILL, GITPIPE_KILL_AT="blobs-written")
        torn = [
            p for p in (chain.common / "dvc/cache/files/md5").rglob("*") if p.is_file() and p.stat().st_mode & 0o200
        ]
        assert len(torn) >= 2
        for path in torn:
            path.write_bytes(harm(path.read_bytes()))
        chain.command("run")
        chain.whole()
        chain.commit(nudge=False)


def test_killed_between_the_branch_and_its_working_tree(chain: Chain) -> None:
    """I6: a clean working tree of an output branch that a kill left behind catches up at the next run."""
    chain.command("run")
    chain.git("worktree", "add", "-q", "../out", "upper")
    out = chain.repo.parent / "out"
    for again in ("run", "wait"):
        chain.commit(nudge=False)
        chain.command("run", status=-signal.SIGKILL, GITPIPE_KILL_AT="after-ref")
        chain.command(again)
        assert chain.git("-C", str(out), "status", "--porcelain") == ""
        assert {name: (out / "data" / name).read_text() for name in NAMES} == chain.results
        chain.whole()
    assert "up to date" in chain.sh("dvc status", cwd=out)
    chain.sh("dvc get -q ../src data --rev total -o got", cwd=chain.repo)
    assert (chain.repo / "got" / "all").read_text() == "".join(chain.results.values())


def test_commands_killed_at_random(scratch: Path, sh: Shell) -> None:
    """I7: `create-pipeline`, `put-file`, `add`, `finish-commit` are killed; nothing is broken, and they work."""
    chain = Chain(scratch, sh)
    make(chain, PIPELINES.replace("@GATE@", ""))
    spec = chain.repo / "pipes" / "chain.json"
    big = chain.repo.parent / "big"
    big.mkdir()
    chance = random.Random(7)

    def hit(*command: str, cwd: Path | None = None, done: Callable[[], bool] = lambda: False) -> None:
        """Kill the command twice somewhere in its life, then let it end, unless it had come to its end before."""
        for last in (False, False, True):
            running = subprocess.Popen(
                [*GITPIPE, *command], cwd=cwd or chain.repo, env={**os.environ, "GITPIPE": "0"}, stdout=subprocess.PIPE
            )
            if not last:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(seconds * chance.uniform(0.5, 1.0))
                running.kill()
            running.communicate()
            # A git that it had started goes on for a moment.
            until(lambda: set(chain.locks()) <= {"gitpipe-data.lock"}, 20)
            chain.git("fsck", "--strict")
            if done():
                return
        assert running.returncode == 0

    def count() -> int:
        return int(chain.git("rev-list", "--count", "src"))

    start = time.monotonic()
    chain.command("list-repo")
    seconds = 1.5 * (time.monotonic() - start)
    for number in range(400):
        (big / f"f{number}").write_text(f"{number}\n")
    hit("put-file", "src", "-r", "-o", "-f", str(big))
    assert len(chain.files(open_project(chain.repo), "src")) == 403
    opened = chain.command("start-commit", "src", GITPIPE="0").strip()
    hit("put-file", "src", opened, "-f", str(spec))
    before = count()
    hit("finish-commit", "src", opened, done=lambda: count() == before + 1)
    assert count() == before + 1
    assert len(chain.files(open_project(chain.repo), "src")) == 404
    for number in range(400):
        (chain.src / "data" / f"g{number}").write_text(f"g {number}\n")
    hit("add", "data", cwd=chain.src)
    sh("git commit -qm More", cwd=chain.src)
    assert "up to date" in sh("dvc status", cwd=chain.src)
    assert len(chain.files(open_project(chain.repo), "src")) == 804
    spec.write_text(PIPELINES.replace("@GATE@", "").replace('"upper"', '"upper2"').replace('"total"', '"total2"'))

    def names() -> set[str]:
        return {info.name for info in open_project(chain.repo).pipelines.list()}

    hit("create-pipeline", "-f", str(spec), done=lambda: len(names()) > 2)
    assert names() == {"upper", "total", "upper2", "total2"}, "all of a file's pipelines or none"


@pytest.mark.xdist_group("ray")
def test_ray_killed(chain: Chain, gate: Gate) -> None:
    """I2: Ray's raylet, then its gcs, are killed amid a datum; Ray is started again and the datum runs again."""
    chain.config(engine="ray", linger=60)
    pipelines = PIPELINES.replace("@GATE@", f"exec 3<>{gate.word}; cat <&3; ")
    (chain.repo / "pipes" / "chain.json").write_text(pipelines)
    open_project(chain.repo).pipelines.update([str(chain.repo / "pipes" / "chain.json")])
    runner = chain.running()

    def mine(program: str) -> set[int]:
        return processes(program) & processes(ray_of(runner))

    for victim in ("raylet/raylet", "gcs_server"):
        until(lambda: gate.waiting() == 2)
        before = gate.arrived
        until(lambda: len(mine(victim)) == 1)  # noqa: B023 - called here only
        kill(mine(victim).pop())
        until(lambda: gate.arrived > before)  # noqa: B023 - called here only
        gate.open()
        chain.wait()
        chain.outputs_are_right()
        gate.shut()
        if victim == "raylet/raylet":
            chain.commit()
    assert chain.runner() == runner
    kill(runner, signal.SIGTERM)
    chain.no_runner()
    until(lambda: not processes(ray_of(runner)), 20)
    # An actor whose raylet was killed under it outlives the runner by a moment; the next job sweeps its slots away.
    slots = chain.common / "dvc" / "cache" / ".gitpipe-slots"
    until(lambda: not sweep(slots) and not list(slots.iterdir()), 30)
    chain.nothing_is_left()


def ray_of(pid: int) -> str:
    """What stands in the command lines of the Ray of a runner."""
    return f"gitpipe-ray-{pid}-"
