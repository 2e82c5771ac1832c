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
from tests.scenarios.test_killed import PATIENCE, PIPELINES, Chain, Gate, chain, gate, processes, until

__all__ = ["chain", "gate"]  # the fixtures

pytestmark = pytest.mark.xdist_group("ray")

GATED = "test -e /pfs/src/a || {{ exec 3<>{word}; cat <&3; }}; "
"""The datum of the first file ends at once, the others wait."""

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
        self.head = self._start("--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=0")
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
            argv = ["ray", "start", *args, *general]
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


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def story(chain: Chain, gate: Gate, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The chain on the cluster: of its three slots, two wait at the gate."""
    monkeypatch.setenv("GITPIPE", "0")
    chain.config(engine="ray", rayAddress=cluster.address)
    update(chain, gate)
    return chain


def update(story: Chain, gate: Gate, more: str = "") -> None:
    pipelines = PIPELINES.replace("@GATE@", GATED.format(word=gate.word))
    pipelines = pipelines.replace('"constant": 2}', '"constant": 3}' + more)
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


def test_the_cluster_dies_amid_datums(story: Chain, gate: Gate, cluster: Cluster) -> None:
    """I5: `engine ray` fails in one line, and ends it when the cluster is back; `auto` goes on without."""
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
    until(lambda: gate.arrived == before + 4)
    gate.open()
    status, out, err = ended(running)
    assert status == 0, (out, err)
    (note,) = [note for note in open_project(story.repo).jobs.inspect("upper").notes if "Ray" in note]
    assert "going on with workers of this machine" in note
    story.outputs_are_right(("success", "failed", "unrunnable"))
    nothing_is_left(story)


def test_a_node_leaves_amid_datums(story: Chain, gate: Gate, cluster: Cluster) -> None:
    """I2: what ran there runs again elsewhere, once, whether workers reserve what they have or not."""
    for slots, more in ((3, ""), (2, ', "resource_requests": {"cpu": 1}')):
        update(story, gate, more)
        cluster.join()
        story.commit()
        before = gate.arrived
        running = begin(story)
        until(lambda: gate.waiting() == min(slots, 2))  # noqa: B023 - called here only
        cluster.kill(cluster.node)
        until(lambda: gate.waiting() < slots or gate.arrived > before + slots)  # noqa: B023
        gate.open()
        status, out, err = ended(running)
        assert (status, err) == (0, ""), (out, err)
        assert gate.arrived == before + 3, "what was lost ran again, and nothing else did"
        story.outputs_are_right()
        gate.shut()
    nothing_is_left(story)
