"""What the stages of a job printed: one file of JSON lines a job, below the local state; disposable."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitpipe.views import LogLine

MAX_JOB = 256 << 20
"""Bytes of a job's file from which on only the last `BRIEF` bytes of each datum are kept: there may be 100,000."""
BRIEF = 2048
CHUNK = 1 << 20


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
        with self._path(seq).open("a", encoding="utf-8") as file:
            if file.tell() > MAX_JOB and len(text) > BRIEF:
                left_out = len(text) - BRIEF
                text = b"[... %d bytes left out, as the job has printed much ...]\n" % left_out + text[-BRIEF:]
            record = {"datum": datum, "time": time.time(), "text": text.decode("utf-8", "backslashreplace")}
            file.write(json.dumps(record) + "\n")

    def read(self, seq: int, job: str, pipeline: str, datum: str | None = None, start: int = 0) -> Iterator[LogLine]:
        """The lines of one job, in the order in which its datums ended.

        Args:
            datum: only what this one printed; the first digits of its id.
            start: where in the file to begin, in bytes, as `tail` says.
        """
        path = self._path(seq)
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(start)
            for data in file:
                found = _record(data, datum)
                for text in _lines(found["text"]) if found else ():
                    yield LogLine(job, pipeline, found["datum"], found["time"], text)

    def tail(self, seq: int, count: int, datum: str | None = None) -> tuple[int, int]:
        """Where to begin to `read` for the last `count` lines: (offset in bytes, how many lines there are from it on).

        Reads no more of the file than it has to, from its end, and keeps nothing of it.
        """
        path, lines, start = self._path(seq), 0, 0
        for offset, data in _backwards(path) if path.exists() else ():
            start, found = offset, _record(data, datum)
            lines += len(_lines(found["text"])) if found else 0
            if lines >= count:
                break
        return start, lines

    def forget(self, seq: int) -> None:
        """Remove a job's file, before it runs again."""
        self._path(seq).unlink(missing_ok=True)


def _record(data: bytes, datum: str | None) -> dict[str, Any]:
    """One line of the file; {} if it is of another datum, or cut off as the runner was killed while it wrote."""
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError:
        return {}
    return found if datum is None or found["datum"].startswith(datum) else {}


def _lines(text: str) -> list[str]:
    """Not splitlines: what the code printed is to stay as it is, and only a line feed ends a line of a log."""
    return text.removesuffix("\n").split("\n")


def _backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the file's lines, the last one first."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest = b""  # the beginning of a line whose own beginning was not read yet
        while end:
            begin = max(0, end - CHUNK)
            file.seek(begin)
            pieces = (file.read(end - begin) + rest).split(b"\n")
            at = begin + sum(map(len, pieces)) + len(pieces) - 1
            for piece in pieces[:0:-1]:
                at -= len(piece)
                if piece:
                    yield at, piece
                at -= 1
            rest, end = pieces[0], begin
        if rest:
            yield 0, rest
