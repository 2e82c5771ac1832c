"""How long `add` takes for N small files, beside `dvc add` on the same files: medians, and their ratio.

python bench/add.py [N] [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def make_repo(folder: Path, files: int) -> Path:
    folder.mkdir()
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    for number in range(files):
        path = folder / "data" / f"class{number % 20}" / f"{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000))
    os.sync()
    return folder


ADD = """
import sys
from pathlib import Path
from gitpipe.blobs.dvc import DvcStore
from gitpipe.workdata import add
top = Path.cwd()
print(add(top, top / ".git", DvcStore(top / ".dvc" / "cache"), ["data"], "training").oid)
"""


def timed(command: list[str], cwd: Path) -> float:
    """Wall seconds of a whole process, its start included."""
    started = time.perf_counter()
    subprocess.run(
        command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": sys.path[0]}
    )
    return time.perf_counter() - started


def main(files: int, rounds: int) -> None:
    commands = {
        "dvc add": [sys.executable, "-m", "dvc", "add", "-q", "data"],
        "gitpipe add": [sys.executable, "-c", ADD],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DVC_NO_ANALYTICS"] = "1"
        os.environ["DVC_SITE_CACHE_DIR"] = f"{scratch}/site"
        for number in range(rounds):
            for name, command in commands.items():
                repo = make_repo(Path(scratch, f"{name.split()[0]}{number}"), files)
                seconds[name].append(timed(command, repo))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:6.2f} s   ({files} files, {rounds} rounds)")
    print(f"ratio        {medians['gitpipe add'] / medians['dvc add']:6.2f}")


if __name__ == "__main__":
    main(*(int(value) for value in (sys.argv[1:] + ["10000", "3"][len(sys.argv) - 1 :])))
