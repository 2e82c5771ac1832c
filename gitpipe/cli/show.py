"""How values look: sizes, ages, tables, JSON, trees.  Knows the values of `gitpipe.views`, and nothing of commands.

A table is plain aligned text in a pipe, complete and without colours.  In a terminal that is too narrow for it, ids
are shortened to what git would need, and only what is still too wide is fitted by rich (which takes 0.14 s to load).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from gitpipe.commit import DEFAULT_BRANCH, CommitRef, git_branch
from gitpipe.views import (
    CommitInfo,
    DatumDetails,
    DatumFile,
    FileDetails,
    FileLineage,
    JobInfo,
    Lineage,
    LogLine,
    Making,
    PipelineInfo,
    Progress,
    RepoInfo,
    StatusInfo,
    few,
)

T = TypeVar("T")
SHORT, SHORTEST = 12, 7
LONG_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32,}(?![0-9a-f])")
SHORT_ID = re.compile(r"(?:^|@)[0-9a-f]{7,}$")
MAX_WORD = 12
"""A longer word in a table may be broken where the terminal is too narrow."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

MINUTE, HOUR, DAY = 60, 3600, 86400
# (below this many of the unit, seconds in the unit, its name), as docker and pachctl round ages.
STEPS = (
    (60 * MINUTE, MINUTE, "minutes"),
    (48 * HOUR, HOUR, "hours"),
    (14 * DAY, DAY, "days"),
    (60 * DAY, 7 * DAY, "weeks"),
    (730 * DAY, 30 * DAY, "months"),
)

# ---------------------------------------------------------------- single values


def size(count: int | None) -> str:
    """Bytes with four significant digits: ``16B``, ``4.444KiB``; ``-`` where the size is unknown."""
    if count is None:
        return "-"
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g}{UNITS[unit]}"


def duration(seconds: float) -> str:
    """A length of time in words: ``Less than a second``, ``2 seconds``, ``About a minute``, ``3 hours``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < MINUTE:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < 2 * MINUTE:
        return "About a minute"
    if whole >= HOUR:  # hours are rounded, not cut: 90 minutes are 2 hours
        whole = (whole + HOUR // 2) // HOUR * HOUR
        if whole == HOUR:
            return "About an hour"
    for limit, unit, name in STEPS:
        if whole < limit:
            return f"{whole // unit} {name}"
    return f"{int(seconds) // (365 * DAY)} years"


def ago(then: float | None, now: float | None = None) -> str:
    """``3 minutes ago``; ``-`` for a time that is not yet."""
    if then is None:
        return "-"
    return f"{duration((time.time() if now is None else now) - then)} ago"


def oneline(text: str, limit: int | None = None) -> str:
    """`text` on one line: line breaks and what else a terminal would obey are escaped, and at most `limit` is kept."""
    if limit is not None and len(text) > limit:
        text = f"{text[: limit * 2 // 3]} … {text[-limit // 3 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def short(oid: str) -> str:
    """The first digits of an id, as git would shorten it."""
    return oid[:SHORT]


def commit(branch: str, sha: str | None) -> str:
    """``model@<sha>``; ``model@-`` while there is no commit."""
    return f"{branch}@{sha or '-'}"


def refs(commits: Iterable[CommitRef]) -> str:
    """Commits side by side, two blanks between them, as pachctl prints provenance."""
    return "  ".join(map(str, commits))


def progress(processed: int, skipped: int, recovered: int, total: int) -> str:
    """``processed + skipped / total``, in datums; ``processed + skipped + recovered / total`` where some were."""
    return f"{processed} + {skipped}{f' + {recovered}' if recovered else ''} / {total}"


# ---------------------------------------------------------------- JSON


def plain(value: object) -> Any:
    """`value` in JSON's terms: dataclasses as objects, a commit as ``branch@sha``, tuples as arrays."""
    if isinstance(value, CommitRef):
        return str(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def raw(values: Iterable[object]) -> None:
    """Print one JSON document a line."""
    for value in values:
        print(json.dumps(plain(value)))


# ---------------------------------------------------------------- tables

Columns = Sequence[tuple[str, Callable[[Any], str]]]
"""Heading and what stands under it."""

REPO: Columns = (
    ("NAME", lambda r: r.name),
    ("CREATED", lambda r: ago(r.created)),
    ("SIZE", lambda r: size(r.size)),
)
FILE: Columns = (
    ("NAME", lambda f: f.name),
    ("TYPE", lambda f: f.type),
    ("SIZE", lambda f: size(f.size)),
)
BRANCH: Columns = (
    ("BRANCH", lambda b: b.branch),
    ("HEAD", lambda b: b.head),
    ("TRIGGER", lambda b: b.trigger or "-"),
)
COMMIT: Columns = (
    ("REPO", lambda c: c.repo),
    ("BRANCH", lambda c: c.branch),
    ("COMMIT", lambda c: c.sha),
    ("PARENT", lambda c: c.parent or "-"),
    ("FINISHED", lambda c: ago(c.finished)),
    ("SIZE", lambda c: size(c.size)),
)
PIPELINE: Columns = (
    ("NAME", lambda p: p.name),
    ("VERSION", lambda p: short(p.version)),
    ("INPUT", lambda p: p.input),
    ("CREATED", lambda p: ago(p.created)),
    ("STATE", lambda p: p.state),
)
JOB: Columns = (
    ("ID", lambda j: j.id or "-"),
    ("OUTPUT COMMIT", lambda j: commit(j.pipeline, j.output)),
    ("STARTED", lambda j: ago(j.started)),
    ("DURATION", lambda j: job_duration(j)),
    ("RESTART", lambda j: str(j.restarts)),
    ("PROGRESS", lambda j: progress(j.processed, j.skipped, j.recovered, j.total)),
    ("DL", lambda j: size(j.bytes_in)),
    ("UL", lambda j: size(j.bytes_out)),
    ("STATE", lambda j: j.state),
)
DATUM: Columns = (
    ("ID", lambda d: d.id),
    ("FILES", lambda d: few(d.files)),
    ("STATUS", lambda d: d.state),
    ("TIME", lambda d: "-" if d.seconds is None else duration(d.seconds)),
)
WORKER: Columns = (
    ("PIPELINE", lambda w: w.pipeline),
    ("SLOT", lambda w: str(w.slot)),
    ("ENGINE", lambda w: w.engine),
    ("STATE", lambda w: w.state),
    ("DATUM", lambda w: w.datum or "-"),
)
VERSION: Columns = (("COMPONENT", lambda c: c["component"]), ("VERSION", lambda c: c["version"]))


def job_duration(job: JobInfo) -> str:
    """How long the job ran; ``-`` while it does."""
    return "-" if job.started is None or job.finished is None else duration(job.finished - job.started)


def many(values: Iterable[object], columns: Columns, *, as_json: bool) -> None:
    """Print `values` as a table with `columns`, or as JSON."""
    if as_json:
        raw(values)
    else:
        table([name for name, _ in columns], [[cell(value) for _, cell in columns] for value in values])


AGE = len("Less than a second ago")
WIDTHS = {
    "COMMIT": 40,
    "PARENT": 40,
    "FINISHED": AGE,
    "ID": 32,
    "OUTPUT COMMIT": 52,
    "STARTED": AGE,
    "DURATION": AGE - 4,
}


def stream(values: Iterable[object], columns: Columns, *, as_json: bool) -> None:
    """Print values as they come, each on a line of its own at once, in columns as wide as the first line needs."""
    widths: list[int] = []
    for value in values:
        if as_json:
            raw([value])
        else:
            cells = [oneline(cell(value)) for _, cell in columns]
            if not widths:
                widths = [WIDTHS.get(name, max(len(name), len(c))) for (name, _), c in zip(columns, cells, strict=True)]
                print("  ".join(name.ljust(width) for (name, _), width in zip(columns, widths, strict=True)).rstrip())
            print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        sys.stdout.flush()


def table(heading: list[str], rows: list[list[str]]) -> None:
    """Print a table: whole in a pipe, fitted in a terminal."""
    lines = [heading, *([oneline(cell) for cell in row] for row in rows)]
    if sys.stdout is None or not sys.stdout.isatty():
        print(aligned(lines))
        return
    width = shutil.get_terminal_size().columns
    for digits in (None, SHORT, SHORTEST):
        candidate = [[LONG_ID.sub(partial(leading, digits=digits), cell) for cell in line] for line in lines]
        text = aligned(candidate)
        if max(map(cells_of, text.splitlines())) <= width:
            print(text)
            return
    fitted(candidate, width)


def leading(match: re.Match[str], digits: int | None) -> str:
    """The first digits of what matched; all where `digits` is None."""
    return match[0][:digits]


def aligned(lines: list[list[str]]) -> str:
    """The cells in columns, two blanks between them and none at the end."""
    widths = [max(map(cells_of, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - cells_of(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cells_of(text: str) -> int:
    """How many places of a terminal `text` takes: two for a Chinese character, none for an accent by itself."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def fitted(lines: list[list[str]], width: int) -> None:
    """Print the cells as rich fits them into the terminal, broken between words but never within an id.

    Where even that does not fit, the lines are left to the terminal: it breaks them, but loses nothing.
    """
    least = [
        max(
            len(word) if SHORT_ID.search(word) else min(MAX_WORD, cells_of(word))
            for cell in column
            for word in cell.split()
        )
        if any(cell.split() for cell in column)
        else 0
        for column in zip(*lines, strict=True)
    ]
    if sum(least) + len(least) - 1 > width:
        print(aligned(lines))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for name, smallest in zip(lines[0], least, strict=True):
        grid.add_column(Text(name), overflow="fold", min_width=smallest)
    for line in lines[1:]:
        grid.add_row(*map(Text, line))
    Console(highlight=False).print(grid)


# ---------------------------------------------------------------- one thing in detail


def one(value: T, details: Callable[[T], Iterator[str]], *, as_json: bool) -> None:
    """Print `value` as ``key: value`` lines, or as JSON."""
    if as_json:
        raw([value])
        return
    for line in details(value):
        print(line)


def pairs(*items: tuple[str, str]) -> Iterator[str]:
    """``key: value`` lines; a key without a value is left out."""
    for key, value in items:
        if value:
            yield f"{key}: {oneline(value)}"


def repo_details(repo: RepoInfo) -> Iterator[str]:
    """A repo, line by line."""
    return pairs(
        ("Name", repo.name),
        ("Branch", repo.branch),
        ("Created", ago(repo.created)),
        ("Size", size(repo.size)),
        ("Files", str(repo.files)),
        ("Head", repo.head),
        ("Output of a pipeline", "yes" if repo.pipeline else "no"),
    )


def file_details(info: FileDetails) -> Iterator[str]:
    """A file or folder, line by line; a result with what made it."""
    yield from pairs(
        ("Path", info.path),
        ("Commit", commit(git_branch(info.repo, info.branch), info.commit)),
        ("Type", info.type),
        ("Size", size(info.size)),
        ("Hash", info.md5 and f"md5:{info.md5}"),
        ("Files", "" if info.md5 else str(info.files)),
        ("Here", "" if info.here else "no, `dvc pull` brings it"),
    )
    if info.making:
        yield from pairs(("Datum", info.making.datum), ("Pipeline", info.making.pipeline))
        yield from making_lines(info.making.made)
        yield from file_table("Input files:", info.making.inputs, "")


def making_lines(made: Making | None) -> Iterator[str]:
    """Where a datum's files were made, and how to read what was said then."""
    if made is None:
        return iter(())
    by = f"job {made.attempt}, which published nothing; job {made.job}" if made.attempt else f"job {made.job}"
    return pairs(("Made by", f"{by}, in {made.commit}"), ("Log", made.log))


def file_table(heading: str, files: Sequence[DatumFile], pipeline: str) -> Iterator[str]:
    """Files of a datum with their commits; those without one are of `pipeline`."""
    if files:
        yield heading
        rows = [[oneline(f"{f.commit or pipeline}:/{f.path}"), size(f.size), f"md5:{f.md5}"] for f in files]
        yield from (f"  {line}" for line in aligned(rows).splitlines())


def counts(changes: Sequence[tuple[str, int | None, int | None]]) -> None:
    """Print how many lines each file has gained and lost."""
    rows = [[oneline(path), "binary" if added is None else f"+{added} -{deleted}"] for path, added, deleted in changes]
    if rows:
        print(aligned(rows))


def datum_details(info: DatumDetails) -> Iterator[str]:
    """A datum with its files."""
    datum = info.datum
    yield from pairs(
        ("Datum", datum.id),
        ("Job", datum.job),
        ("Pipeline", info.pipeline + (f"@{info.version}" if info.version else "")),
        ("State", datum.state),
        ("Reason", datum.reason),
        ("Tries", str(datum.tries or "")),
        ("Time", "" if datum.seconds is None else duration(datum.seconds)),
        ("Download", "" if datum.seconds is None else size(datum.bytes_in)),
        ("Upload", "" if datum.seconds is None else size(datum.bytes_out)),
    )
    yield from making_lines(info.made)
    yield from file_table("Input files:", info.inputs, info.pipeline)
    yield from file_table("Output files:", info.outputs, info.pipeline)


def commit_details(info: CommitInfo) -> Iterator[str]:
    """A commit as pachctl words it, its provenance on one line."""
    yield from pairs(
        ("Commit", commit(git_name(info), info.sha)),
        ("Parent", info.parent or ""),
        ("Started", ago(info.started)),
        ("Finished", ago(info.finished)),
        ("Size", size(info.size)),
        ("Pipeline", info.pipeline),
        ("Job", info.job),
    )
    if info.provenance:
        yield f"Provenance:  {refs((*info.provenance, *(info.specs or ())))}"


def job_details(job: JobInfo) -> Iterator[str]:
    """A job, with why it failed and what it ran on."""
    yield from pairs(
        ("Job", job.id),
        ("Pipeline", commit(job.pipeline, job.version)),
        ("State", job.state),
        ("Reason", job.reason),
        ("Output commit", commit(job.pipeline, job.output)),
        ("Started", ago(job.started)),
        ("Duration", job_duration(job)),
        ("Restarts", str(job.restarts)),
        ("Progress", progress(job.processed, job.skipped, job.recovered, job.total)),
        ("Recovered datums", str(job.recovered) if job.recovered else ""),
        ("Failed datums", str(job.failed) if job.failed else ""),
        ("Download", size(job.bytes_in)),
        ("Upload", size(job.bytes_out)),
        ("Engine", job.engine),
        ("Image", f"{job.image} ({job.image_id})" if job.image else ""),
    )
    for place in job.ran_in or ():
        yield from place_lines(place)
    if job.inputs:
        yield f"Inputs:  {refs(job.inputs)}"
    yield from pairs(*(("Note", note) for note in job.notes))


def place_lines(place: Mapping[str, Any]) -> Iterator[str]:
    """What datums ran in; which packages there were, only ``--raw`` says."""
    number = len(place.get("packages") or ())
    system = ", ".join(str(place[name]) for name in ("kernel", "libc") if name in place)
    yield f"Ran on: {oneline(str(place.get('host', '-')))} ({oneline(str(place.get('engine', '-')))})"
    known = ("host", "engine", "kernel", "libc", "packages")
    lines = {name: str(value) for name, value in sorted(place.items()) if name not in known}
    lines |= {"packages": f"{number}, see --raw" if number else "", "system": system}
    yield from (
        f"  {line}"
        for line in pairs(*(("CPU" if name == "cpu" else name.capitalize(), text) for name, text in lines.items()))
    )


def pipeline_details(pipeline: PipelineInfo) -> Iterator[str]:
    """A pipeline and its whole spec."""
    yield from pairs(
        ("Name", pipeline.name),
        ("Version", pipeline.version),
        ("Created", ago(pipeline.created)),
        ("State", pipeline.state),
        ("Input", pipeline.input),
        ("Output", pipeline.output),
        ("Source", pipeline.source),
        ("Parallelism", str(pipeline.parallelism)),
    )
    yield "Spec:"
    yield json.dumps(plain(pipeline.spec), indent=2)


def status_lines(status: StatusInfo, last_lines: Callable[[JobInfo], list[str]]) -> Iterator[str]:
    """The state of the project; a failure is followed by the last lines that its job logged."""
    yield from pairs(
        ("Repository", status.git_dir),
        ("Runner", status.runner),
        ("Engine", status.engine),
        ("Sandbox", status.sandbox),
        ("Containers", status.containers),
        ("Cache", status.cache),
    )
    yield from pairs(*(("Cron", line) for line in status.clocks))
    yield from pairs(*(("Pending", line) for line in status.pending))
    yield from pairs(*(("Waits", line) for line in status.waiting))
    yield from pairs(*(("Passed over", line) for line in status.passed))
    for job in status.failures:
        which = f"job {short(job.id)}" if job.id else job.state  # one that never ran has no id
        when = f", {ago(job.finished)}" if job.finished is not None else ""
        yield from pairs(("Failed", f"{job.pipeline} ({which}{when}): {job.reason or job.state}"))
        yield from (f"    {oneline(line)}" for line in last_lines(job))
    yield from pairs(*(("Warning", line) for line in status.warnings))
    if not status.pending and not status.failures:
        yield "Nothing is pending, and nothing failed."


def log_message(line: LogLine) -> str:
    """A line of a job's log as the user's code wrote it."""
    return line.message.removesuffix("\n")


def progress_line(job: Progress | JobInfo) -> str:
    """``model: 1 + 0 / 1 success``."""
    processed = job.done if isinstance(job, Progress) else job.processed
    return f"{job.pipeline}: {progress(processed, job.skipped, job.recovered, job.total)} {job.state}"


# ---------------------------------------------------------------- lineage


def log_entry(entry: Lineage, *, tree: bool, graph: bool) -> Iterator[str]:
    """One commit as ``git log`` words it and, with `tree`, indented below it the commits that it came from.

    Args:
        entry: the commit and what lies below it.
        tree: whether to show what lies below.
        graph: whether to draw the lines of the tree.
    """
    info = entry.commit
    yield paint(f"commit {commit(git_name(info), info.sha)}", YELLOW)
    yield from pairs(("Author", info.author))
    yield f"Date:   {date(info.started)}"
    yield ""
    yield f"    {oneline(info.subject)}"
    if tree and entry.children:
        yield ""
        yield from branches(entry.children, "    ", GRAPHS[can_draw()] if graph else BLANKS, set())


def file_entry(entry: FileLineage, *, graph: bool) -> Iterator[str]:
    """One file with its commit and, indented below it, the files that it came from or that came from it."""
    yield paint(f"commit {entry.commit}", YELLOW)
    yield f"    {oneline(entry.subject)}"
    yield ""
    yield f"    {file_line(entry, of_commit=False)}"
    yield from file_branches(entry.children, "    " if graph else "      ", GRAPHS[can_draw()] if graph else BLANKS)
    if entry.making and entry.making.log:
        yield f"    log: {entry.making.log}"


def file_branches(children: Sequence[FileLineage], indent: str, marks: Sequence[str]) -> Iterator[str]:
    """The lines of a tree of files."""
    for place, child in enumerate(children):
        last = place == len(children) - 1
        yield f"{indent}{marks[1 if last else 0]}{file_line(child)}"
        yield from file_branches(child.children, indent + marks[3 if last else 2], marks)


def file_line(entry: FileLineage, *, of_commit: bool = True) -> str:
    """``model@5d6e7f8:/model.joblib  datum 1a2b3c4 of model@9a8b7c6``."""
    name = oneline(f"/{entry.path}")
    if of_commit:
        name = f"{paint(commit(entry.commit.branch, short(entry.commit.sha)), YELLOW)}:{name}"
    pipeline, _, version = entry.pipeline.partition("@")
    made = f"  datum {short(entry.datum)} of {pipeline}@{short(version)}" if entry.datum else ""
    return f"{name}{made}"


BLANKS = ("", "", "  ", "  ")
GRAPHS = {True: ("├─ ", "└─ ", "│  ", "   "), False: ("|- ", "`- ", "|  ", "   ")}
"""Before a child that others follow, before the last one, below the one, below the other."""


def branches(children: Sequence[Lineage], indent: str, marks: Sequence[str], seen: set[str]) -> Iterator[str]:
    """The lines of a tree; what lies below a commit is shown where the commit is met first."""
    for place, child in enumerate(children):
        last = place == len(children) - 1
        info = child.commit
        name = commit(git_name(info), short(info.sha))
        again = bool(child.children) and info.sha in seen
        about = f"({info.author}, {ago(info.started)})" if info.author else f"({ago(info.started)})"
        line = f"{paint(name, YELLOW)} {oneline(info.subject)} {oneline(about)}"
        yield f"{indent}{marks[1 if last else 0]}{line}{' …' if again else ''}"
        if not again:
            seen.add(info.sha)
            yield from branches(child.children, indent + marks[3 if last else 2], marks, seen)


def git_name(info: CommitInfo) -> str:
    """The git branch of a commit: ``training``, ``training@staging``."""
    return git_branch(info.repo, info.branch or DEFAULT_BRANCH)


def date(when: float) -> str:
    """A date as ``git log`` writes it, in local time."""
    moment = datetime.fromtimestamp(when).astimezone()
    return f"{moment:%a %b} {moment.day} {moment:%H:%M:%S %Y %z}"


YELLOW = "\x1b[33m"


def paint(text: str, colour: str) -> str:
    """`text` in `colour` in a terminal that shows colours."""
    return f"{colour}{text}\x1b[0m" if colours() else text


STATES = {
    "repo": "\x1b[36m",
    "running": "\x1b[32m",
    "failing": "\x1b[31m",
    "untrusted": "\x1b[33m",
    "stopped": "\x1b[2m",
}
"""What a node of the drawing is -> its colour."""


def paint_state(text: str, state: str) -> str:
    """`text` in the colour of a state, in a terminal that shows colours."""
    return paint(text, STATES[state]) if state in STATES else text


def colours() -> bool:
    """Whether colours are wanted: a terminal, and no NO_COLOR (https://no-color.org)."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def can_draw() -> bool:
    """Whether standard output can carry box-drawing characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "├└│─▶■".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
