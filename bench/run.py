"""Run benchmarks and print their table: ``make bench``, or ``python bench/run.py [NAME …] [--rounds N] [--size N]``.

Exit status 1 where a target was missed.  What the figures mean: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import tempfile
from pathlib import Path

from harness import Row, seal, table

USUAL = ("commit", "hooks", "chain", "add", "checkout", "datums", "python", "engines", "startup")
ALL = (*USUAL, "scale")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; by default all but scale")
    parser.add_argument("--rounds", type=int, help="pairs of runs that count")
    parser.add_argument("--size", type=int, help="files or datums, where a benchmark takes a number of them")
    given = parser.parse_args()
    for name in given.names:
        if name not in ALL:
            parser.error(f"no benchmark is called {name!r}: use {', '.join(ALL)}")
    rows: list[Row] = []
    for name in given.names or USUAL:
        print(f"{name} …", file=sys.stderr, flush=True)
        module = importlib.import_module(name)
        wanted = {"rounds": given.rounds, "files": given.size, "count": given.size}
        options = {k: v for k, v in wanted.items() if v and k in inspect.signature(module.run).parameters}
        with tempfile.TemporaryDirectory(prefix="gitpipe-bench-", ignore_cleanup_errors=True) as folder:
            seal(Path(folder))
            rows += module.run(Path(folder), **options)
    print(table(rows))
    return int(any(row.held is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
