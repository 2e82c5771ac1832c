"""What the stages of a job printed: one file of JSON lines a job, below the local state; disposable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from gitpipe.views import LogLine


class JobLogs:
    """The folder of log files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, seq: int) -> Path:
        return self.folder / f"{seq}.jsonl"

    def append(self, seq: int, datum: str, text: bytes) -> None:
        """Add what one datum printed; bytes that are not UTF-8 are shown as ``\\x..``."""
        if not text:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"datum": datum, "time": time.time(), "text": text.decode("utf-8", "backslashreplace")}
        with self._path(seq).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self, seq: int, job: str, pipeline: str, datum: str | None = None) -> Iterator[LogLine]:
        """The lines of one job, in the order in which its datums ended."""
        path = self._path(seq)
        if not path.exists():
            return
        with path.open(encoding="utf-8") as file:
            for text in file:
                try:
                    record = json.loads(text)
                except ValueError:
                    continue  # the runner was killed while it wrote this line
                if datum is None or record["datum"].startswith(datum):
                    for line in record["text"].splitlines():
                        yield LogLine(job, pipeline, record["datum"], record["time"], line)

    def forget(self, seq: int) -> None:
        """Remove a job's file, before it runs again."""
        self._path(seq).unlink(missing_ok=True)
