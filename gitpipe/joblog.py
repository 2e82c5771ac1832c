"""What the stages of a job printed: one file of JSON lines a job, below the local state; disposable.

::

    logs/<job>.jsonl            a line for each datum that has ended, with all that is kept of what it printed
         removed                up to which job logs were removed to make room
         <job>.live/<name>      what a datum that runs has printed so far; it goes when the datum's line is there
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gitpipe.views import LogLine

MAX_JOB = 256 << 20
"""Bytes of a job's file from which on only the last `BRIEF` bytes of each datum are kept: there may be 100,000."""
BRIEF = 2048
CHUNK = 1 << 20
REMOVED = "removed"
"""A file with the number of the newest job whose log was removed to make room."""
NEW = ".new"
"""What the name of a live file ends in that is not complete."""
SETTLE_SECONDS = 5.0
"""For what a job that was stopped still has to write."""
LONG_LINE = 1 << 16
"""Characters of a line without an end that are shown before it has come."""
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept: of so many of the newest jobs, for so many days, and so many bytes in all."""

    jobs: int = 1000
    days: float = 90.0
    size: int = 1 << 30


class JobLogs:
    """The folder of log files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, seq: int) -> Path:
        return self.folder / f"{seq}.jsonl"

    def _live(self, seq: int) -> Path:
        return self.folder / f"{seq}.live"

    def live_file(self, seq: int, datum: str) -> str:
        """The path of a new file for what a datum prints while it runs; whoever has something to write makes it."""
        return str(self._live(seq) / f"{time.time_ns():x}-{next(_counter)}.{datum}")

    def append(self, seq: int, datum: str, text: bytes, live: str = "") -> None:
        """Add what one datum printed; bytes that are not UTF-8 are shown as ``\\x..``.

        Args:
            live: its live file, if there is one: what it holds is taken where `text` is empty, as the worker was lost.
        """
        shown = bool(live) and os.path.exists(live)
        if shown and not text:
            with contextlib.suppress(OSError):
                text = Path(live).read_bytes()
        if text:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._path(seq).open("a", encoding="utf-8") as file:
                if file.tell() > MAX_JOB and len(text) > BRIEF:
                    left_out = len(text) - BRIEF
                    text = b"[... %d bytes left out, as the job has printed much ...]\n" % left_out + text[-BRIEF:]
                record = {"datum": datum, "time": time.time(), "text": text.decode("utf-8", "backslashreplace")}
                if shown:
                    record["live"] = os.path.basename(live)
                file.write(json.dumps(record) + "\n")
        if shown:
            Path(live).unlink(missing_ok=True)

    def settle(self, seq: int) -> None:
        """Keep what datums had printed that did not come to their end: nothing of the job runs any more."""
        for path in live_files(self._live(seq)):
            with contextlib.suppress(OSError):
                self.append(seq, datum_of(path.name), b"", str(path))
        shutil.rmtree(self._live(seq), ignore_errors=True)

    def read(self, seq: int, job: str, pipeline: str, datum: str | None = None, start: int = 0) -> Iterator[LogLine]:
        """The lines of one job, in the order in which its datums ended; last those of datums that still run.

        Args:
            datum: only what this one printed; the first digits of its id.
            start: where in the file to begin, in bytes, as `tail` says.
        """
        running = self._running(seq, datum)  # first: a datum that ends meanwhile is in the file
        path = self._path(seq)
        if path.exists():
            with path.open("rb") as file:
                file.seek(start)
                for data in file:
                    found = _record(data, datum)
                    running.pop(found.get("live", ""), None)
                    for text in _lines(found["text"]) if found else ():
                        yield LogLine(job, pipeline, found["datum"], found["time"], text)
        for name, (when, said) in running.items():
            for text in _lines(said) if said else ():
                yield LogLine(job, pipeline, datum_of(name), when, text)

    def _running(self, seq: int, datum: str | None) -> dict[str, tuple[float, str]]:
        """Live file -> (when it was written last, what it holds)."""
        found = {}
        for path in live_files(self._live(seq), datum):
            with contextlib.suppress(OSError):
                found[path.name] = path.stat().st_mtime, path.read_bytes().decode("utf-8", "backslashreplace")
        return found

    def runs(self, seq: int, datum: str) -> bool:
        """Whether a datum whose id begins so runs, and has printed something."""
        return bool(live_files(self._live(seq), datum))

    def follow(self, seq: int, job: str, pipeline: str, datum: str | None = None, start: int = 0) -> Following:
        """The lines of one job as they come, from `start` on."""
        return Following(self._path(seq), self._live(seq), job, pipeline, datum, start)

    def tail(self, seq: int, count: int, datum: str | None = None) -> tuple[int, int]:
        """Where to begin to `read` for the last `count` lines: (offset in bytes, how many lines there are from it on).

        Reads no more of the file than it has to, from its end, and keeps nothing of it.
        """
        path = self._path(seq)
        lines = sum(len(_lines(said)) for _, said in self._running(seq, datum).values() if said)
        start = path.stat().st_size if path.exists() else 0
        for offset, data in _backwards(path) if start and lines < count else ():
            start, found = offset, _record(data, datum)
            lines += len(_lines(found["text"])) if found else 0
            if lines >= count:
                break
        return start, lines

    def forget(self, seq: int) -> None:
        """Remove a job's file, before it runs again."""
        self._path(seq).unlink(missing_ok=True)
        shutil.rmtree(self._live(seq), ignore_errors=True)

    def prune(self, limits: Limits, spare: Container[int]) -> None:
        """Remove the logs of old jobs, the oldest first, until what is left keeps the limits.

        Args:
            spare: jobs that are not over.
        """
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.folder):
                name, _, kind = entry.name.partition(".")
                with contextlib.suppress(OSError, ValueError):
                    if kind == "jsonl" and int(name) not in spare:
                        found.append((int(name), entry.stat().st_size, entry.stat().st_mtime))
                    elif kind == "live" and int(name) not in spare:
                        shutil.rmtree(entry.path, ignore_errors=True)
        oldest = time.time() - limits.days * 86400
        size = 0
        for place, (seq, count, written) in enumerate(sorted(found, reverse=True)):
            size += count
            if place >= limits.jobs or size > limits.size or written < oldest:
                self.forget(seq)
                self._note_removed(seq)

    def _note_removed(self, seq: int) -> None:
        with contextlib.suppress(OSError):
            if seq > self._removed():
                (self.folder / REMOVED).write_text(str(seq))

    def _removed(self) -> int:
        try:
            return int((self.folder / REMOVED).read_text())
        except (OSError, ValueError):
            return 0

    def removed(self, seq: int) -> bool:
        """Whether a job has no file, and `prune` has removed those of jobs of its age."""
        return not self._path(seq).exists() and seq <= self._removed()


class Following:
    """One job's log as it grows: what datums print while they run, and each line once."""

    def __init__(self, path: Path, live: Path, job: str, pipeline: str, datum: str | None, start: int) -> None:
        self.job, self._path, self._live, self._pipeline = job, path, live, pipeline
        self._datum, self._offset = datum, start
        self._readers: dict[str, _Reader] = {}
        self._done: set[str] = set()
        self._over = 0.0  # when it was first seen to be, by the monotonic clock

    def more(self, over: bool = False) -> Iterator[LogLine]:
        """What came since the last call; where the job is over, what has no end of line yet, too."""
        for found in self._records():
            name = found.get("live", "")
            reader = self._readers.pop(name, None)
            if reader is not None:  # all of it was written before the record was
                for text in reader.rest():
                    yield self._line(found["datum"], found["time"], text)
                reader.close()
            else:
                for text in _lines(found["text"]):
                    yield self._line(found["datum"], found["time"], text)
            if name:
                self._done.add(name)
        for path in live_files(self._live, self._datum):
            if path.name not in self._done and path.name not in self._readers:
                with contextlib.suppress(OSError):
                    self._readers[path.name] = _Reader(path)
        for name, reader in self._readers.items():
            for text in reader.rest() if over else reader.lines():
                yield self._line(datum_of(name), time.time(), text)

    def _line(self, datum: str, when: float, text: str) -> LogLine:
        return LogLine(self.job, self._pipeline, datum, when, text)

    def _records(self) -> list[dict[str, Any]]:
        """The whole lines that were added to the file; from its begin where it was made anew."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return [found for line in data.splitlines() if (found := _record(line, self._datum))]

    def ended(self) -> bool:
        """Whether nothing more comes of a job that is over; a runner that was killed leaves its files as they are."""
        self._over = self._over or time.monotonic()
        return not self._live.exists() or time.monotonic() - self._over > SETTLE_SECONDS

    def close(self) -> None:
        """Let go of what is open."""
        for reader in self._readers.values():
            reader.close()


class _Reader:
    """A live file as it grows.  Open, so that its end can be read when it is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._begun = b""

    def lines(self) -> list[str]:
        """The lines that were completed since the last call."""
        self._read()
        whole, feed, self._begun = self._begun.rpartition(b"\n")
        if len(self._begun) > LONG_LINE:
            whole, feed, self._begun = whole + feed + self._begun, b"\n", b""
        return _lines(whole.decode("utf-8", "backslashreplace")) if feed else []

    def rest(self) -> list[str]:
        """All that is left, as nothing follows."""
        self._read()
        text, self._begun = self._begun, b""
        return _lines(text.decode("utf-8", "backslashreplace")) if text else []

    def _read(self) -> None:
        self._begun += self._file.read()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino != os.fstat(self._file.fileno()).st_ino:  # it had become large
                fresh = self._path.open("rb")
                self._begun += self._file.read() + fresh.read()
                self._file.close()
                self._file = fresh

    def close(self) -> None:
        self._file.close()


def live_files(folder: Path, datum: str | None = None) -> list[Path]:
    """The files of datums that run, the one that began first at the top; with `datum`, the first digits of an id."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [folder / name for name in names if not name.endswith(NEW) and datum_of(name).startswith(datum or "")]


def datum_of(name: str) -> str:
    """The datum whose live file has this name."""
    return name.partition(".")[2]


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
