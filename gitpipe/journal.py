"""What this machine did and has still to do: queue, jobs, datums, workers.  One SQLite file, disposable (I1).

Knows nothing of git: commits are strings here.  Delete the file, and the next run finds out from refs and trailers what
is stale; only logs, timings and the list of failed jobs are lost.
"""

from __future__ import annotations

import contextlib
import enum
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gitpipe.errors import GitpipeError

Unwritable = sqlite3.OperationalError
"""Nothing was written, and later it may be: the disk is full, say."""
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sets (
  id INTEGER PRIMARY KEY AUTOINCREMENT, cause TEXT NOT NULL, sources TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, set_id INTEGER NOT NULL, pipeline TEXT NOT NULL, version TEXT NOT NULL,
  state TEXT NOT NULL, id TEXT NOT NULL DEFAULT '', output TEXT, started REAL, finished REAL,
  processed INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
  total INTEGER NOT NULL DEFAULT 0, bytes_in INTEGER NOT NULL DEFAULT 0, bytes_out INTEGER NOT NULL DEFAULT 0,
  restarts INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', notes TEXT NOT NULL DEFAULT '[]',
  inputs TEXT NOT NULL DEFAULT '[]', engine TEXT NOT NULL DEFAULT '', replay INTEGER NOT NULL DEFAULT 0,
  recovered INTEGER NOT NULL DEFAULT 0,
  UNIQUE (set_id, pipeline)
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, pipeline, set_id);
CREATE INDEX IF NOT EXISTS jobs_id ON jobs (id);
CREATE INDEX IF NOT EXISTS jobs_pipeline ON jobs (pipeline, set_id);
CREATE TABLE IF NOT EXISTS datums (
  pipeline TEXT NOT NULL, datum TEXT NOT NULL, line TEXT NOT NULL, committed INTEGER NOT NULL,
  PRIMARY KEY (pipeline, datum)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS indexed (pipeline TEXT PRIMARY KEY, head TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
  seq INTEGER NOT NULL, datum TEXT NOT NULL, ok INTEGER NOT NULL, tries INTEGER NOT NULL, seconds REAL NOT NULL,
  bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, error TEXT NOT NULL, recovered INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (seq, datum)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (
  pipeline TEXT NOT NULL, slot INTEGER NOT NULL, engine TEXT NOT NULL, state TEXT NOT NULL, datum TEXT NOT NULL,
  PRIMARY KEY (pipeline, slot)
);
CREATE TABLE IF NOT EXISTS places (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS ran_in (
  seq INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (seq, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS restarts (seq INTEGER NOT NULL, datum TEXT NOT NULL, PRIMARY KEY (seq, datum)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, id TEXT NOT NULL);
"""

ADDED = {"jobs": ("recovered",), "runs": ("recovered",)}
"""Columns, of whole numbers, that a journal of an earlier release lacks."""

JOB = """jobs.*, COALESCE((SELECT name FROM images WHERE images.seq = jobs.seq), '') AS image,
  COALESCE((SELECT images.id FROM images WHERE images.seq = jobs.seq), '') AS image_id"""
"""The images have a table of their own, as files that were written before have no such columns."""

MANY = 1000
"""Datums, from which on reading all is quicker than asking for them."""

FIRST_ASIDE = -(1 << 62)
"""The sets of jobs on chosen commits count up from here: below 0 for ever."""

ROOM = 1 << 16
"""Bytes that SQLite needs beside its file to open it at all."""


class JobState(str, enum.Enum):
    """Where a job stands."""

    QUEUED = "queued"  # waits for its upstream jobs, for the job before it, or for the runner
    RUNNING = "running"  # its datums are being worked on, or its commit is being written
    SUCCESS = "success"  # its output commit is on the output branch
    FAILED = "failed"  # a datum failed, its time was over, or its output could not be merged; nothing was published
    UNRUNNABLE = "unrunnable"  # an upstream job of the same set failed
    KILLED = "killed"  # stopped by a person
    SUPERSEDED = "superseded"  # passed over for a newer commit set, as `commits` is ``newest``; it has no output

    @property
    def over(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job of one commit set; see the views for the meaning of the counts."""

    seq: int
    set_id: int
    pipeline: str
    version: str
    state: JobState
    id: str = ""
    output: str | None = None
    started: float | None = None
    finished: float | None = None
    processed: int = 0
    skipped: int = 0
    failed: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    restarts: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    engine: str = ""
    replay: bool = False
    image: str = ""  # that the spec names
    image_id: str = ""  # what it stood for, or ``host`` where the host's programs were used
    recovered: int = 0

    @property
    def aside(self) -> bool:
        """Whether it runs on chosen commits, beside the commit sets: its result moves no branch."""
        return self.set_id < 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """One datum that a job has run, with its last try; a datum that was skipped has none.

    `recovered`: it failed, and ``err_cmd`` made good for that.
    """

    datum: str
    ok: bool
    tries: int = 1
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    error: str = ""
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """What has been turned into commit sets: source branch -> sha, and the head of ``__spec__``."""

    sources: dict[str, str] = field(default_factory=dict)  # the newest commit there that changed data
    versions: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)  # source branch of specs -> sha last looked at


class Journal:
    """The SQLite file; one connection a thread, WAL, so that readers never wait for the runner."""

    def __init__(self, path: Path) -> None:
        """Open or create; one that is damaged or of another version is set aside, as it holds nothing of value (I1).

        Where nothing can be written (disk full, read-only) what is there can still be read.

        Raises:
            GitpipeError: it is locked, or its place is taken by something else.
        """
        self.path = path
        self._local = threading.local()
        self._generation = 0
        self._frozen = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
        except (FileExistsError, NotADirectoryError) as error:
            raise GitpipeError(f"{path.parent} is not a folder: remove it, gitpipe makes its own there") from error
        except OSError:
            self._freeze()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise GitpipeError(f"{path} is locked by another process: try again") from error
            if self.hindrance():
                self._freeze()
            else:
                self._set_aside()
        except sqlite3.DatabaseError:
            self._set_aside()

    def hindrance(self) -> str:
        """Why no file can be made beside the journal, or ""; what SQLite says of a full disk differs."""
        try:
            with tempfile.TemporaryFile(dir=self.path.parent) as file:
                file.write(b"\0" * ROOM)
                file.flush()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _set_aside(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{self.path}{suffix}.damaged")
        self._local = threading.local()
        self._prepare()

    def _freeze(self) -> None:
        """Read from now on what is there, or nothing; SQLite refuses what would write."""
        self._local = threading.local()
        self._frozen = True

    def _prepare(self) -> None:
        with self.transaction() as db:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            for table, columns in ADDED.items():
                there = {column["name"] for column in db.execute(f"PRAGMA table_info({table})")}
                for name in columns:
                    if name not in there:
                        db.execute(f"ALTER TABLE {table} ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0")
            row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            if row is None:
                db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
                # A job that outlives the journal it began in must not be taken for another one in the next.
                start = time.time_ns() // 1_000_000
                db.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", [("jobs", start), ("sets", start)])
            elif row[0] != str(SCHEMA_VERSION):
                raise sqlite3.DatabaseError("another schema")
        self._file = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is None or self._local.generation != self._generation:
            found = (
                self._open_frozen() if self._frozen else sqlite3.connect(self.path, timeout=30, isolation_level=None)
            )
            found.row_factory = sqlite3.Row
            self._local.db, self._local.generation = found, self._generation
            if self._frozen:
                return found
            # The journal may be lost without harm (I1), so it need not wait for the disk.
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = OFF")
        return found

    def _open_frozen(self) -> sqlite3.Connection:
        try:
            # Immutable: SQLite neither locks nor needs the files beside it that it could not make.
            found = sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)
            found.execute("SELECT 1 FROM images")
        except sqlite3.DatabaseError:
            found = sqlite3.connect(":memory:", isolation_level=None)
            found.executescript(SCHEMA)
            found.execute("PRAGMA query_only = ON")
        return found

    def vanished(self) -> bool:
        """Whether the file was deleted since it was opened, be it that another process made a new one already.

        What is written to the old one is lost.
        """
        return self._identity() != self._file

    def reopen(self) -> None:
        """Begin anew after `vanished`; connections of other threads follow at their next use."""
        self._generation += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._prepare()

    def meta(self, key: str) -> str:
        """A remembered text, or ""."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def set_meta(self, key: str, value: str) -> None:
        """Remember a text."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; one within another is part of it."""
        db = self.db
        if db.in_transaction:  # part of a larger one
            yield db
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")  # may fail, too: the disk is full
        except BaseException:
            if db.in_transaction:  # else SQLite took it back by itself
                db.execute("ROLLBACK")
            raise

    # -- cursor and sets ---------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor | None:
        """What was last enqueued, or None where nothing ever was (a new or deleted journal)."""
        row = self.db.execute("SELECT value FROM meta WHERE key = 'cursor'").fetchone()
        return Cursor(**json.loads(row[0])) if row else None

    def set_cursor(self, cursor: Cursor) -> None:
        value = json.dumps({"sources": cursor.sources, "versions": cursor.versions, "code": cursor.code})
        self.db.execute("INSERT OR REPLACE INTO meta VALUES ('cursor', ?)", (value,))

    def add_set(self, cause: str, sources: Mapping[str, str], jobs: Iterable[tuple[str, str]], replay: bool) -> int:
        """One more commit set with its jobs, (pipeline, version) in order; its id.  Call inside `transaction`."""
        cur = self.db.execute(
            "INSERT INTO sets (cause, sources, created) VALUES (?, ?, ?)",
            (cause, json.dumps(dict(sources)), time.time()),
        )
        set_id = int(cur.lastrowid or 0)
        self.db.executemany(
            "INSERT INTO jobs (set_id, pipeline, version, state, replay) VALUES (?, ?, ?, ?, ?)",
            [(set_id, name, version, JobState.QUEUED.value, int(replay)) for name, version in jobs],
        )
        return set_id

    def add_aside(self, cause: str, sources: Mapping[str, str], pipeline: str, version: str) -> None:
        """Queue a job on chosen commits, in a set of its own that comes before all others and counts for none."""
        with self.transaction() as db:
            row = db.execute("SELECT COALESCE(MAX(id), ?) FROM sets WHERE id < 0", (FIRST_ASIDE,)).fetchone()
            db.execute(
                "INSERT INTO sets (id, cause, sources, created) VALUES (?, ?, ?, ?)",
                (row[0] + 1, cause, json.dumps(dict(sources)), time.time()),
            )
            db.execute(
                "INSERT INTO jobs (set_id, pipeline, version, state) VALUES (?, ?, ?, ?)",
                (row[0] + 1, pipeline, version, JobState.QUEUED.value),
            )

    def sources(self, set_id: int) -> dict[str, str]:
        """The source branches of a set: branch -> sha."""
        row = self.db.execute("SELECT sources FROM sets WHERE id = ?", (set_id,)).fetchone()
        return dict(json.loads(row[0])) if row else {}

    def set_cause(self, set_id: int) -> str:
        """The commit that made the set, worded."""
        row = self.db.execute("SELECT cause FROM sets WHERE id = ?", (set_id,)).fetchone()
        return str(row[0]) if row else ""

    def newest_set(self) -> int:
        """The id of the newest set, 0 where there is none."""
        return int(self.db.execute("SELECT COALESCE(MAX(id), 0) FROM sets WHERE id > 0").fetchone()[0])

    # -- jobs --------------------------------------------------------------------------------------------------------

    def jobs(self, where: str = "1", args: Iterable[Any] = (), tail: str = "ORDER BY seq") -> list[JobRow]:
        """Jobs that fulfil an SQL condition (own constants only, never a user's text)."""
        try:
            rows = self.db.execute(f"SELECT {JOB} FROM jobs WHERE {where} {tail}", tuple(args)).fetchall()
        except UnicodeEncodeError:
            return []  # asked for something that is not UTF-8: no job has such a name
        return [_job(row) for row in rows]

    def job(self, seq: int) -> JobRow | None:
        rows = self.jobs("seq = ?", [seq])
        return rows[0] if rows else None

    def unfinished(self) -> list[JobRow]:
        """Queued and running jobs, in order."""
        return self.jobs("state IN ('queued', 'running')", tail="ORDER BY set_id, seq")

    def unfinished_aside(self) -> list[JobRow]:
        """Queued and running jobs on chosen commits, in order."""
        return self.jobs("state IN ('queued', 'running') AND set_id < 0", tail="ORDER BY set_id")

    def queue(self, pipeline: str) -> list[JobRow]:
        """The jobs of a pipeline in the commit sets that are not over, the oldest first."""
        return self.jobs(
            "pipeline = ? AND state IN ('queued', 'running') AND set_id > 0", [pipeline], "ORDER BY set_id, seq"
        )

    def newest(self, pipeline: str) -> JobRow | None:
        """The job of a pipeline in the newest of the commit sets that it has a part in."""
        rows = self.jobs("pipeline = ? AND set_id > 0", [pipeline], "ORDER BY set_id DESC LIMIT 1")
        return rows[0] if rows else None

    def first_unfinished(self) -> dict[str, JobRow]:
        """Pipeline -> its oldest job in the sets that is not over: the only one there that may run (k-1 before k)."""
        rows = self.jobs(
            "seq IN (SELECT seq FROM (SELECT seq, MIN(set_id) FROM jobs WHERE state IN ('queued', 'running') "
            "AND set_id > 0 GROUP BY pipeline))",
            tail="ORDER BY set_id, seq",
        )
        return {row.pipeline: row for row in rows}

    def update_job(self, seq: int, **values: Any) -> None:
        """Set columns of one job."""
        for key in ("notes", "inputs"):
            if key in values:
                values[key] = json.dumps(list(values[key]))
        if isinstance(values.get("state"), JobState):
            values["state"] = values["state"].value
        names = ", ".join(f"{name} = ?" for name in values)
        self.db.execute(f"UPDATE jobs SET {names} WHERE seq = ?", (*values.values(), seq))

    def set_image(self, seq: int, name: str, image_id: str) -> None:
        """Note what a job of a pipeline with an image runs in."""
        self.db.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (seq, name, image_id))

    def pass_over(self, jobs: Iterable[JobRow], reason: str) -> None:
        """End queued jobs in favour of a newer one; those that are over meanwhile stay as they are."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE jobs SET state = 'superseded', finished = ?, reason = ? "
                "WHERE seq = ? AND state IN ('queued', 'running')",
                [(time.time(), reason, job.seq) for job in jobs],
            )

    def passed_over(self, job: JobRow) -> int:
        """How many jobs of its pipeline were passed over since the one before `job` that was not."""
        row = self.db.execute(
            "SELECT COUNT(*) FROM jobs WHERE pipeline = ? AND state = 'superseded' AND set_id < ? AND set_id > "
            "COALESCE((SELECT MAX(set_id) FROM jobs WHERE pipeline = ? AND set_id < ? AND state != 'superseded'), 0)",
            (job.pipeline, job.set_id, job.pipeline, job.set_id),
        ).fetchone()
        return int(row[0])

    def drop_job(self, seq: int) -> None:
        """Forget a job that turned out to have nothing to do."""
        with self.transaction() as db:
            db.execute("DELETE FROM jobs WHERE seq = ?", (seq,))
            db.execute("DELETE FROM runs WHERE seq = ?", (seq,))
            db.execute("DELETE FROM ran_in WHERE seq = ?", (seq,))
            db.execute("DELETE FROM images WHERE seq = ?", (seq,))

    def kill_job(self, seq: int, reason: str) -> bool:
        """Mark a job as stopped by a person; False where it was over already.  Whoever runs it sees that soon."""
        done = self.db.execute(
            "UPDATE jobs SET state = 'killed', finished = ?, reason = ? "
            "WHERE seq = ? AND state IN ('queued', 'running')",
            (time.time(), reason, seq),
        )
        return done.rowcount > 0

    def ask_restarts(self, seq: int, datums: Iterable[str]) -> None:
        """Have whoever runs a job begin these datums again."""
        with self.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO restarts VALUES (?, ?)", [(seq, datum) for datum in datums])

    def take_restarts(self, seq: int) -> set[str]:
        """The datums of a job that were asked to be begun again since the last time."""
        if not self.db.execute("SELECT 1 FROM restarts WHERE seq = ?", (seq,)).fetchone():
            return set()  # without a lock: it is asked for all the time
        with self.transaction() as db:
            found = {str(row[0]) for row in db.execute("SELECT datum FROM restarts WHERE seq = ?", (seq,))}
            db.execute("DELETE FROM restarts WHERE seq = ?", (seq,))
        return found

    def last_good(self, pipeline: str, set_id: int) -> str | None:
        """The output commit of `pipeline` as of a set: that of its newest successful job at or before it."""
        row = self.db.execute(
            "SELECT output FROM jobs WHERE pipeline = ? AND set_id BETWEEN 1 AND ? AND state = 'success' "
            "AND output IS NOT NULL ORDER BY set_id DESC, seq DESC LIMIT 1",
            (pipeline, set_id),
        ).fetchone()
        return str(row[0]) if row else None

    def newest_over(self, pipeline: str, set_id: int) -> JobRow | None:
        """The newest job of `pipeline` that is over, at or before a set."""
        rows = self.jobs(
            "pipeline = ? AND set_id BETWEEN 1 AND ? AND state NOT IN ('queued', 'running')",
            [pipeline, set_id],
            "ORDER BY set_id DESC, seq DESC LIMIT 1",
        )
        return rows[0] if rows else None

    def newest_ended(self) -> list[JobRow]:
        """The newest job of each pipeline that is over, in the commit sets."""
        return self.jobs(
            "seq IN (SELECT MAX(seq) FROM jobs WHERE state NOT IN ('queued', 'running', 'superseded') AND set_id > 0"
            " GROUP BY pipeline)"
        )

    def forget_pipeline(self, pipeline: str) -> None:
        """Drop all that is known of a pipeline."""
        with self.transaction() as db:
            for table in ("runs", "ran_in", "images"):
                db.execute(f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM jobs WHERE pipeline = ?)", (pipeline,))
            for table in ("jobs", "datums", "indexed", "workers"):
                db.execute(f"DELETE FROM {table} WHERE pipeline = ?", (pipeline,))

    # -- datums ------------------------------------------------------------------------------------------------------

    def known_datums(self, pipeline: str, ids: Iterable[str]) -> dict[str, tuple[str, bool]]:
        """Datum id -> (index line as JSON text, whether an output commit holds it), of those that are known."""
        wanted = set(ids)
        found: dict[str, tuple[str, bool]] = {}
        todo = list(wanted)
        if len(todo) >= MANY:  # in one pass, if not most of what is there is something else
            held = self.db.execute("SELECT COUNT(*) FROM datums WHERE pipeline = ?", (pipeline,)).fetchone()[0]
            if held <= 4 * len(todo):
                rows = self.db.execute("SELECT datum, line, committed FROM datums WHERE pipeline = ?", (pipeline,))
                return {row[0]: (row[1], bool(row[2])) for row in rows if row[0] in wanted}
        for start in range(0, len(todo), 500):
            part = todo[start : start + 500]
            marks = ",".join("?" * len(part))
            for row in self.db.execute(
                f"SELECT datum, line, committed FROM datums WHERE pipeline = ? AND datum IN ({marks})",
                (pipeline, *part),
            ):
                found[row[0]] = (row[1], bool(row[2]))
        return found

    def known_before(self, job: JobRow, ids: Iterable[str]) -> dict[str, int | None]:
        """Datum id -> seq of the job that had finished it when `job` ended, be that `job` itself or an earlier one.

        None where it is known, and no record is left of who ran it; what later jobs alone have run is left out.
        """
        found: dict[str, int | None] = dict.fromkeys(self.known_datums(job.pipeline, ids))
        later: set[str] = set()
        todo = list(found)
        for start in range(0, len(todo), 500):
            part = todo[start : start + 500]
            rows = self.db.execute(
                "SELECT runs.datum, runs.seq FROM jobs JOIN runs ON runs.seq = jobs.seq WHERE jobs.pipeline = ? "
                f"AND runs.ok AND runs.datum IN ({','.join('?' * len(part))}) ORDER BY runs.seq",
                (job.pipeline, *part),
            )
            for datum, seq in rows:
                if seq <= job.seq:
                    found[datum] = seq
                else:
                    later.add(datum)
        return {datum: seq for datum, seq in found.items() if seq is not None or datum not in later}

    def remember_datums(self, pipeline: str, lines: Iterable[tuple[str, str]], committed: bool) -> None:
        """Keep (datum id, index line); one that a commit holds stays so."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO datums VALUES (?, ?, ?, ?) ON CONFLICT (pipeline, datum) DO UPDATE SET "
                "line = excluded.line, committed = MAX(committed, excluded.committed)",
                [(pipeline, datum, line, int(committed)) for datum, line in lines],
            )

    def uncommit(self, pipeline: str) -> None:
        """The output branch is another one now (reset, deleted): no commit holds what is known, as far as is known."""
        with self.transaction() as db:
            db.execute("UPDATE datums SET committed = 0 WHERE pipeline = ?", (pipeline,))
            db.execute("DELETE FROM indexed WHERE pipeline = ?", (pipeline,))

    def indexed_head(self, pipeline: str) -> str | None:
        """The output commit up to which the pipeline's datum indexes have been read in."""
        row = self.db.execute("SELECT head FROM indexed WHERE pipeline = ?", (pipeline,)).fetchone()
        return str(row[0]) if row else None

    def set_indexed_head(self, pipeline: str, head: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO indexed VALUES (?, ?)", (pipeline, head))

    # -- what a job has run ------------------------------------------------------------------------------------------

    def add_runs(self, seq: int, rows: Iterable[RunRow]) -> None:
        """Note datums that a job has run; a later try takes the place of an earlier one."""
        with self.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO runs (seq, datum, ok, tries, seconds, bytes_in, bytes_out, error, recovered) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (seq, r.datum, int(r.ok), r.tries, r.seconds, r.bytes_in, r.bytes_out, r.error, int(r.recovered))
                    for r in rows
                ],
            )

    def runs(self, seq: int) -> dict[str, RunRow]:
        """Datum id -> what became of it, of all datums that a job has run."""
        rows = self.db.execute(
            "SELECT datum, ok, recovered, tries, seconds, bytes_in, bytes_out, error FROM runs WHERE seq = ?", (seq,)
        )
        return {
            row["datum"]: RunRow(**{**dict(row), "ok": bool(row["ok"]), "recovered": bool(row["recovered"])})
            for row in rows
        }

    def add_places(self, seq: int, places: Iterable[Mapping[str, str]]) -> None:
        """Note what datums of a job ran in; the same for many jobs is kept once."""
        with self.transaction() as db:
            for place in places:
                text = json.dumps(dict(place), sort_keys=True)
                db.execute("INSERT OR IGNORE INTO places (text) VALUES (?)", (text,))
                db.execute("INSERT OR IGNORE INTO ran_in SELECT ?, id FROM places WHERE text = ?", (seq, text))

    def places(self, job: JobRow) -> list[dict[str, str]]:
        """What datums of a job ran in, in earlier attempts at it too: what these finished is part of its result."""
        rows = self.db.execute(
            "SELECT DISTINCT places.id, text FROM ran_in JOIN places ON places.id = place WHERE seq = ? OR "
            "(? != '' AND seq IN (SELECT seq FROM jobs WHERE id = ? AND seq <= ?)) ORDER BY places.id",
            (job.seq, job.id, job.id, job.seq),
        )
        return [json.loads(row[1]) for row in rows]

    # -- workers -----------------------------------------------------------------------------------------------------

    def set_workers(self, pipeline: str, slots: int, engine: str) -> None:
        """A pipeline has just so many slots, all idle."""
        with self.transaction() as db:
            db.execute("DELETE FROM workers WHERE pipeline = ? AND slot >= ?", (pipeline, slots))
            db.executemany(
                "INSERT OR IGNORE INTO workers VALUES (?, ?, ?, 'idle', '')",
                [(pipeline, slot, engine) for slot in range(slots)],
            )

    def set_worker(self, pipeline: str, slot: int, engine: str, state: str, datum: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?)", (pipeline, slot, engine, state, datum))

    def workers(self) -> list[tuple[str, int, str, str, str]]:
        """(pipeline, slot, engine, state, datum) of all slots."""
        return [tuple(row) for row in self.db.execute("SELECT * FROM workers ORDER BY pipeline, slot")]

    def clear_workers(self) -> None:
        self.db.execute("DELETE FROM workers")


def _job(row: sqlite3.Row) -> JobRow:
    values = dict(row)
    values["state"] = JobState(values["state"])
    values["notes"] = tuple(json.loads(values["notes"]))
    values["inputs"] = tuple(json.loads(values["inputs"]))
    values["replay"] = bool(values["replay"])
    return JobRow(**values)
