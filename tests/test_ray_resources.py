"""Workers that reserve CPUs, GPUs and memory on Ray: a Ray with two CPUs and two GPUs, whatever there is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stagekit import Kit

from gitpipe.errors import StageFailed
from gitpipe.executors.auto import AutoExecutor
from gitpipe.executors.ray import RayExecutor
from gitpipe.stage import Result, Task

# A process has one Ray, and two cores do not start two at once in time.
pytestmark = pytest.mark.xdist_group("ray")

COPY = "cp /pfs/in/* /pfs/out/"


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2, "GPU": 2, "memory": 4000000000}')
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        executor = RayExecutor(None, tmp_path_factory.mktemp("scratch"))
        executor.wait_ready()
        yield executor
        executor.close()


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 180
    while not true():
        assert time.monotonic() < end, f"not within three minutes: {what}"
        time.sleep(0.05)


def tasks(kit: Kit, count: int) -> list[Task]:
    return [kit.task({f"f{n}": str(n).encode()}, datum=f"d{n}") for n in range(count)]


def check(kit: Kit, results: list[Result], count: int) -> None:
    assert sorted(result.datum for result in results) == sorted(f"d{n}" for n in range(count))
    for result in results:
        assert result.ok, result
        assert kit.contents(result) == {f"f{result.datum[1:]}": result.datum[1:].encode()}


def all_is_free() -> bool:
    import ray

    free = ray.available_resources()
    return (free.get("CPU"), free.get("GPU")) == (2, 2)


def running(kit: Kit) -> int:
    return len(list(kit.slots.iterdir()))


def test_without_requests_nothing_is_reserved(kit: Kit, on_ray: RayExecutor) -> None:
    """Ten slots on two CPUs, all at work at once: each waits for the ten files of all."""
    meet = kit.slots.parent / "meet"
    meet.mkdir()
    wait = f"touch {meet}/$(ls /pfs/in); until [ $(ls {meet} | wc -l) = 10 ]; do sleep 0.05; done; {COPY}"
    stage = kit.stage("sh", "-c", wait, sandbox="none", timeout=180)
    check(kit, list(on_ray.run(stage, tasks(kit, 10), 10)), 10)
    assert all_is_free() and not on_ray._reserved


def test_each_worker_reserves_its_own(kit: Kit, on_ray: RayExecutor) -> None:
    """Ten slots that want a CPU each, where there are two: two work at once, none waits for ever."""
    stage = kit.stage("sh", "-c", COPY, cpus=1.0)
    most = 0
    results = []
    for result in on_ray.run(stage, tasks(kit, 30), 10):
        results.append(result)
        most = max(most, len(on_ray._reserved))
    check(kit, results, 30)
    assert 1 <= most <= 2
    assert not on_ray._reserved
    until(all_is_free, "what was reserved is given back")
    assert running(kit) == 0


def test_two_jobs_share_what_there_is(kit: Kit, on_ray: RayExecutor) -> None:
    """Each wants both CPUs for one worker, and more slots than there can be: one after the other."""
    found: dict[int, list[Result]] = {}

    def job(number: int) -> None:
        found[number] = list(on_ray.run(kit.stage("sh", "-c", COPY, cpus=1.5), tasks(kit, 5), 3))

    threads = [threading.Thread(target=job, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        check(kit, results, 5)
    assert len(found) == 2
    until(all_is_free, "what was reserved is given back")


def test_gpus_are_shown_to_the_stage(kit: Kit, on_ray: RayExecutor) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES > /pfs/out/gpus"
    seen = []
    for gpus in (0, 1, 2):
        (result,) = on_ray.run(kit.stage("sh", "-c", script, gpus=gpus), tasks(kit, 1), 1)
        assert result.ok, result
        seen.append(kit.contents(result)["gpus"].decode().strip())
    assert seen[1] in ("0", "1") and sorted(seen[2].split(",")) == ["0", "1"]
    assert seen[0] == ""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"cpus": 64.0},
            r"pipeline p asks for 64 CPUs for each worker, and the nodes of the Ray cluster have 2 CPUs: ",
        ),
        ({"gpus": 3, "cpus": 0.5}, r"asks for 0.5 CPUs, 3 GPUs for each worker, and .* have 2 CPUs, 2 GPUs"),
        ({"memory": 10**12}, r"asks for 1e\+03 GB of memory for each worker, and .* have 4 GB of memory"),
    ],
)
def test_what_no_node_has_fails_in_one_line(kit: Kit, on_ray: RayExecutor, asked: dict[str, float], said: str) -> None:
    with pytest.raises(StageFailed, match=said) as error:
        list(on_ray.run(kit.stage("true", **asked), tasks(kit, 3), 2))
    assert "\n" not in str(error.value)
    until(all_is_free, "nothing is left waiting")


def test_stopping_while_it_waits(kit: Kit, on_ray: RayExecutor) -> None:
    """A job that waits for what another one holds can be stopped, and the other one goes on."""
    flag = kit.slots.parent / "go"
    busy = kit.stage("sh", "-c", f"until [ -e {flag} ]; do sleep 0.05; done; {COPY}", sandbox="none", cpus=2.0)
    found: list[Result] = []
    holder = threading.Thread(target=lambda: found.extend(on_ray.run(busy, tasks(kit, 1), 1)))
    holder.start()
    until(lambda: bool(on_ray._reserved), "the first has its CPUs")
    assert list(on_ray.run(kit.stage("true", cpus=1.0), tasks(kit, 3), 2, stopped=lambda: True)) == []
    asked = iter([False] * 5)
    waits = on_ray.run(kit.stage("false", cpus=1.0), tasks(kit, 3), 2, stopped=lambda: next(asked, True))
    assert list(waits) == []
    flag.touch()
    holder.join()
    check(kit, found, 1)


def test_an_actor_that_dies_is_replaced(kit: Kit, on_ray: RayExecutor) -> None:
    import ray

    on_ray.wait_ready()
    flag = kit.slots.parent / "began"
    stage = kit.stage("sh", "-c", f"touch {flag}; grep -q 0 /pfs/in/* && sleep 600; {COPY}", sandbox="none", cpus=2.0)

    def kill() -> None:
        until(flag.exists, "it runs")
        ray.kill(next(iter(on_ray._reserved)).handle)

    killer = threading.Thread(target=kill)
    killer.start()
    results = {result.datum: result for result in on_ray.run(stage, tasks(kit, 3), 1)}
    killer.join()
    assert results["d0"].lost and results["d1"].ok and results["d2"].ok
    assert not on_ray._reserved


def test_auto_does_without_what_is_not_there(kit: Kit, on_ray: RayExecutor, tmp_path: Path) -> None:
    """Where Ray could never give it, `auto` stays with workers of this machine; else it goes to Ray."""
    executor = AutoExecutor(None, tmp_path / "scratch")
    executor.ray = on_ray
    for cpus, engine in ((64.0, "local"), (1.0, "ray")):
        results = list(executor.run(kit.stage("sh", "-c", COPY, cpus=cpus), tasks(kit, 6), 2))
        check(kit, results, 6)
        assert {result.environment["engine"] for result in results} == {engine}
    executor._local.close()
