"""A Ray cluster that others started (`gitpipe.rayAddress`) dies, or one of its nodes leaves, while datums run there.

The cluster is the test's own, and its driver, `gitpipe run`, a process of its own: no Ray that others use is met.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitpipe.project import open_project
from gitpipe.stage.slot import sweep
from tests.conftest import ROOT
from tests.scenarios.test_killed import PATIENCE, PIPELINES, Chain, Gate, chain, gate, processes, until
from tests.stagekit import Kit

__all__ = ["chain", "gate"]  # the fixtures

pytestmark = pytest.mark.xdist_group("ray")

GATED = "exec 3<>{word}; cat <&3; "

IMPATIENT = """
import sys
from gitpipe.executors import auto, ray
ray._SILENCE, ray._LOOK = 4.0, 0.5
wake = auto.AutoExecutor._wake_ray
def wait(self, tasks):
    if not self.ray.failed:  # `auto` has all of a job on Ray, as from the second job on
        self.ray.wait_ready()
    return wake(self, tasks)
auto.AutoExecutor._wake_ray = wait
from gitpipe.cli import main
sys.argv[0] = "gitpipe"
main()
"""

WAITS = """
import sys, time
from ray._raylet import GcsClient
address, nodes = sys.argv[1], int(sys.argv[2])
while True:
    try:
        found = GcsClient(address=address).get_all_node_info(timeout=5).values()
        if sum(info.state == 0 for info in found) == nodes:
            break
    except Exception:
        pass
    time.sleep(0.1)
"""
"""Asked in a process of its own: this one may have had a Ray with another kind of authentication."""

SLOTS = """
import sys
from pathlib import Path
from gitpipe.executors.ray import RayExecutor
from tests.stagekit import Kit
kit = Kit(Path(sys.argv[2]))
executor = RayExecutor(sys.argv[1], kit.slots.parent / "scratch")
for line in sys.stdin:
    tasks = [kit.task({"x": b"1"}, datum=f"d{n}") for n in range(20)]
    results = list(executor.run(kit.stage("sleep", "0.1"), tasks, 2))
    print(sum(result.ok for result in results), len(executor._hosts), flush=True)
executor.close()
"""
"""For each line, twenty datums in two slots: how many succeeded, how many nodes were ever used."""


class Cluster:
    """A Ray cluster on this machine: a head, and a node that may join it, each with one CPU."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gp-", dir="/tmp"))  # paths of sockets are short
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.head: subprocess.Popen[bytes] | None = None
        self.node: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the head where it does not run."""
        if self.head is None or self.head.poll() is not None:
            self.head = self._start(
                "--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=0"
            )
        self.has(1)

    def join(self) -> None:
        self.node = self._start(f"--address={self.address}", "--node-ip-address=127.0.0.2")
        self.has(2)

    def _start(self, *args: str) -> subprocess.Popen[bytes]:
        """Begin one of its machines; what that has started ends with it."""
        general = ["--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
        general += ["--min-worker-port=0", "--max-worker-port=0"]  # they would get into each other's way
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environ |= {"RAY_AUTH_MODE": "disabled", "RAY_health_check_period_ms": "1000"}
        with (self.folder / "said").open("ab") as said:
            argv = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *args, *general]
            return subprocess.Popen(argv, env=environ, stdout=said, stderr=said, start_new_session=True)

    def has(self, nodes: int) -> None:
        """Wait until as many can be worked on."""
        environ = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        argv = [sys.executable, "-c", WAITS, self.address, str(nodes)]
        subprocess.run(argv, env=environ, check=True, capture_output=True, timeout=PATIENCE)

    def kill(self, machine: subprocess.Popen[bytes] | None) -> None:
        """As if its cable was pulled."""
        if machine is not None:
            machine.kill()
            machine.wait()

    def close(self) -> None:
        self.kill(self.node)
        self.kill(self.head)
        until(lambda: not processes(str(self.folder)))
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(one_cluster: Cluster) -> Cluster:
    """The cluster with its head alone."""
    one_cluster.kill(one_cluster.node)
    one_cluster.start()
    return one_cluster


@pytest.fixture
def story(chain: Chain, gate: Gate, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The chain on the cluster, nothing run yet."""
    monkeypatch.setenv("GITPIPE", "0")
    chain.config(engine="ray", rayAddress=cluster.address)
    return chain


def update(story: Chain, script: str, more: str = "") -> None:
    """Have `script` run in three slots before each datum of `upper`."""
    pipelines = PIPELINES.replace("@GATE@", script).replace('"constant": 2}', '"constant": 3}' + more)
    (story.repo / "pipes" / "chain.json").write_text(pipelines)
    story.command("update-pipeline", "-f", "pipes/chain.json")


def begin(story: Chain) -> subprocess.Popen[str]:
    """`gitpipe run`, which gives up a cluster that is silent for four seconds."""
    argv = [sys.executable, "-c", IMPATIENT, "run"]
    return subprocess.Popen(
        argv, cwd=story.repo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=PATIENCE)
    return running.returncode, out, err


def nothing_is_left(story: Chain) -> None:
    """What a killed node has left of its slots the next one sweeps away."""
    slots = story.common / "dvc" / "cache" / ".gitpipe-slots"
    until(lambda: not sweep(slots) and not list(slots.iterdir()))
    story.nothing_is_left()


def test_slots_fall_to_the_nodes_that_are_there(kit: Kit, cluster: Cluster) -> None:
    """A node that came is used by the next job, one that left is not tried: no datum is lost for it."""
    argv = [sys.executable, "-c", SLOTS, cluster.address, str(kit.slots.parent / "inner")]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as driver:

        def jobs() -> str:
            assert driver.stdin and driver.stdout
            driver.stdin.write("go\n")
            driver.stdin.flush()
            return driver.stdout.readline()

        try:
            assert jobs() == "20 1\n"
            cluster.join()
            assert jobs() == "20 2\n"
            cluster.kill(cluster.node)
            cluster.has(1)
            assert jobs() == "20 2\n"
            assert driver.stdin
            driver.stdin.close()
            assert driver.wait(PATIENCE) == 0
        finally:
            driver.kill()


def test_a_node_leaves_amid_datums(story: Chain, gate: Gate, cluster: Cluster) -> None:
    """I2: what ran there runs again elsewhere, once, whether workers reserve what they have or not."""
    wait = GATED.format(word=gate.word)
    for most, script, more in ((3, wait, ""), (2, f"{wait}: ; ", ', "resource_requests": {"cpu": 1}')):
        update(story, script, more)
        cluster.join()
        before = gate.arrived
        running = begin(story)
        until(lambda: gate.waiting() == most)  # noqa: B023 - called here only
        cluster.kill(cluster.node)
        until(lambda: gate.waiting() < most or gate.arrived > before + most)  # noqa: B023
        gate.open()
        status, out, err = ended(running)
        assert (status, err) == (0, ""), (out, err)
        assert "upper: 3 + 0 / 3 success\n" in out
        assert gate.arrived - before in (4, 5), "what was lost ran again, nothing else did"
        project = open_project(story.repo)
        assert story.files(project, "upper") == story.results
        assert story.files(project, "total") == {"all": "".join(story.results.values())}
        gate.shut()
    for name in ("upper", "total"):
        jobs = story.git("log", "--format=%(trailers:key=Job,valueonly,separator=%x20)", name, "--").split()
        assert len(jobs) == len(set(jobs)) == 2, "nothing is published twice"
    nothing_is_left(story)


def test_the_cluster_dies_amid_datums(story: Chain, gate: Gate, cluster: Cluster) -> None:
    """I5: `engine ray` fails in one line, and ends it when the cluster is back; `auto` goes on without."""
    update(story, f"test -e /pfs/src/a || {{ {GATED.format(word=gate.word)}}}; ")  # the first ends at once
    running = begin(story)
    until(lambda: gate.waiting() == 2)
    until(lambda: any(datum.state == "success" for datum in open_project(story.repo).datums.list("upper")))
    cluster.kill(cluster.head)
    status, out, err = ended(running)
    assert status == 3, (out, err)
    assert f"nothing answers at gitpipe.rayAddress {cluster.address}; set gitpipe.engine to local" in err
    assert err.startswith("gitpipe: ") and err.count("\n") == 1, err
    assert not story.git("branch", "--list", "upper")
    until(lambda: not gate.waiting())
    gate.open()
    cluster.start()
    assert "upper: 2 + 1 / 3 success\n" in story.command("run")
    story.outputs_are_right(("success", "failed", "unrunnable"))

    gate.shut()
    story.config(engine="auto")
    story.commit()
    before = gate.arrived
    running = begin(story)
    until(lambda: gate.waiting() == 2)
    cluster.kill(cluster.head)
    until(lambda: gate.arrived > before + 2)  # here; the other one may have to wait for it
    gate.open()
    status, out, err = ended(running)
    assert status == 0, (out, err)
    journal = open_project(story.repo).journal
    newest = max(journal.jobs("pipeline = 'upper'"), key=lambda job: job.seq)
    assert {place["engine"] for place in journal.places(newest)} == {"local"}
    assert [note for note in newest.notes if "going on with workers of this machine" in note], newest.notes
    story.outputs_are_right(("success", "failed", "unrunnable"))
    nothing_is_left(story)
