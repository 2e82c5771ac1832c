"""Datums a second of a Python script that imports pandas and scikit-learn: forked, called, and a process for each."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from harness import Row, informs

from gitpipe.blobs.dvc import DvcStore
from gitpipe.executors.local import LocalExecutor
from gitpipe.stage import Stage, Task, TaskInput

SLOTS = 2
SCRIPT = """\
import os
import pandas as pd
from sklearn.linear_model import LinearRegression

table = pd.read_csv(f"/pfs/src/{os.environ['src'].rpartition('/')[2]}", header=None)
model = LinearRegression().fit(table[[0]], table[1])
with open("/pfs/out/" + os.environ["src"].rpartition("/")[2], "w") as file:
    file.write(repr(model.coef_.tolist()))
"""
CALLABLE = """\
import pandas as pd
from sklearn.linear_model import LinearRegression

def fit(inputs, out):
    table = pd.read_csv(inputs["src"], header=None)
    model = LinearRegression().fit(table[[0]], table[1])
    (out / inputs["src"].name).write_text(repr(model.coef_.tolist()))
"""
NOTHING = "import pandas, sklearn.linear_model\n\ndef nothing(inputs, out):\n    (out / 'x').write_text('')\n"


def run(scratch: Path, rounds: int = 3, count: int = 1000) -> list[Row]:
    """`count` datums each way; a process for each runs a twentieth of them, and seconds are a datum's."""
    code = scratch / "code"
    code.mkdir()
    (code / "fit.py").write_text(SCRIPT)
    (code / "stages.py").write_text(CALLABLE)
    (code / "nothing.py").write_text(NOTHING)
    blobs = DvcStore(scratch / "cache")
    tasks = []
    for number in range(count):
        rows = "".join(f"{x},{x * number}\n" for x in range(10))
        entry = ((f"{number}.csv", blobs.put_bytes(rows.encode())),)
        tasks.append(Task(f"{number:064}", (TaskInput("src", f"/{number}.csv", "0" * 40, entry),),
                          (("src", f"/pfs/src/{number}.csv"),)))  # fmt: skip
    blobs.sync()

    def stage(cmd: tuple[str, ...] = (), **more: object) -> Stage:
        fields = {"code_dir": code, "python": sys.executable, "cache_dir": blobs.files, **more}
        return Stage("bench", cmd, slots_dir=scratch / "cache" / "slots", **fields)  # type: ignore[arg-type]

    few = tasks[: max(2 * SLOTS, count // 20)]
    ways = {
        "single": (stage(("python", "fit.py"), preload=False), few),
        "forked": (stage(("python", "fit.py")), tasks),
        "called": (stage(callable="stages:fit"), tasks),
        "nothing": (stage(callable="nothing:nothing"), tasks),
    }
    executor = LocalExecutor()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number in range(rounds + 1):
            for name, (each, some) in ways.items():
                some = some if number else some[: 2 * SLOTS]  # the first round only warms the workers
                started = time.perf_counter()
                for result in executor.run(each, some, SLOTS):
                    assert result.ok, result
                if number:
                    seconds[name].append((time.perf_counter() - started) / len(some))
    finally:
        executor.close()
    one = min(seconds["single"])
    rows = []
    for name, what, target in (
        ("forked", "a script with pandas and scikit-learn, forked", 20),
        ("called", "the same work as a callable", 100),
        ("nothing", "a callable that does nothing", 0),
    ):
        row = informs(what, "a process for each datum", seconds[name], seconds["single"])
        figure = f"{one / min(seconds[name]):.0f}x the rate"
        held = one / min(seconds[name]) >= target if target else None
        rows.append(Row(row.what, row.against, row.ours, row.peer, rounds,
                        f"at least {target}x" if target else "", held, figure))  # fmt: skip
    return rows
