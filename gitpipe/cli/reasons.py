"""How explanations and differences look: a screen at most, made to be read.  ``--raw`` has what is left out here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from gitpipe.cli.show import ago, aligned, can_draw, oneline, pairs, short, size
from gitpipe.commit import CommitRef
from gitpipe.views import (
    CodeChange,
    CommitDiff,
    DatumGroup,
    DatumWhy,
    EnvironmentChange,
    FieldChange,
    FileChange,
    InputChange,
    JobWhy,
    Move,
    VersionChange,
    few,
)

T = TypeVar("T")
MOST_FILES, MOST_GROUPS, MOST_DATUMS, MOST_FIELDS = 5, 6, 2, 8
MAX_TEXT = 300
ARROW = " → "
ORDER = ("failed", "recovered", "running", "ran", "queued", "not run", "skipped", "vanished")


def lines(found: Iterator[str]) -> Iterator[str]:
    """Lines as the terminal can show them."""
    draw = can_draw()
    for line in found:
        yield line if draw else line.replace("→", "->").replace("…", "...")


def job(why: JobWhy) -> Iterator[str]:
    """Why a job was and what it did, line by line."""
    yield from pairs(
        ("Job", why.job),
        ("Pipeline", f"{why.pipeline}@{short(why.version)}"),
        ("State", why.state),
        ("Reason", why.reason),
        ("Output", ref(why.output) if why.output else ""),
        ("Compared with", ref(why.before) + (f" (job {short(why.before_job)})" if why.before_job else ""))
        if why.before
        else ("", ""),
    )
    if why.change:
        yield "The pipeline changed:"
        yield from indented(version(why.change))
    if why.inputs or why.above:
        yield "Its inputs moved:" if why.inputs else "What its inputs were made from moved:"
        for each in why.inputs:
            yield from indented(input_change(each))
        yield from (f"  {oneline(move_line(each))}{', further up' if why.inputs else ''}" for each in why.above)
    yield from datums(why.groups)
    yield from pairs(*(("Note", note) for note in why.notes))


def datums(groups: Sequence[DatumGroup]) -> Iterator[str]:
    """How many datums had which lot, and why each group of them."""
    if not groups:
        return
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.state] = counts.get(group.state, 0) + group.count
    states = [name for name in ORDER if name in counts]
    yield "Datums: " + ", ".join(f"{counts[name]} {name}" for name in states)
    ordered = sorted(groups, key=lambda g: (ORDER.index(g.state), -g.count))
    for group in ordered[:MOST_GROUPS]:
        yield f"  {group.count} {group.state}: {oneline(', '.join(group.why), MAX_TEXT)}"
        if group.state != "skipped":
            yield from indented(first((f"{short(i)} {oneline(few(of))}" for i, of in group.datums), MOST_DATUMS), 4)
    if len(ordered) > MOST_GROUPS:
        rest = ordered[MOST_GROUPS:]
        yield f"  and {sum(g.count for g in rest)} more for {len(rest)} other reasons"


def datum(why: DatumWhy) -> Iterator[str]:
    """Why a datum ran, was skipped or vanished."""
    yield from pairs(
        ("Datum", why.datum),
        ("Of", few(why.files)),
        ("Pipeline", why.pipeline),
        ("Job", why.job),
        ("State", why.state),
        ("Reason", why.reason),
        ("Output", ref(why.output) if why.output else ""),
    )
    before = ref(why.before) if why.before else ""
    if why.state == "skipped" and why.made and why.made != why.output:
        when = f", {ago(why.made_at)}" if why.made_at else ""
        yield f"Made before: {ref(why.made)} (job {short(why.made_job)}{when}) has its files"
    if why.state == "vanished":
        yield f"It was in {before} and is no more:"
    elif why.state == "replaced":
        yield f"It was in {before}; datum {short(why.earlier)} took its place:"
    elif why.earlier:
        yield f"In {before} the datum of the same matches was {short(why.earlier)}; since then:"
    elif why.state != "skipped":
        yield f"{before} had no datum of these matches" if why.before else "Nothing had been made before: the first run"
    yield from indented(first(map(oneline, why.why), MOST_FILES))
    if why.change:
        yield from indented(version(why.change, only_what_matters=True))


def version(change: VersionChange, *, only_what_matters: bool = False) -> Iterator[str]:
    """What differs between two versions of a pipeline."""
    name = change.pipeline
    if not only_what_matters:
        old, new = (f"{name}@{short(v)}" if v else "none" for v in (change.old, change.new))
        yield old if old == new else f"{old}{ARROW}{new}"  # the same version, in another image
    fields = [field for field in change.fields if field.matters or not only_what_matters]
    yield from first(map(field_line, fields), MOST_FIELDS)
    yield from first(map(code_line, change.code), MOST_FILES)
    if change.unknown:
        yield change.unknown
    if change.reprocess:
        yield "--reprocess: every datum is to be made again"


def field_line(field: FieldChange) -> str:
    """``cmd: -e 1 → -e 2``."""
    aside = "" if field.matters else " (no result depends on it)"
    return f"{oneline(field.field)}: {oneline(field.text, MAX_TEXT)}{aside}"


def code_line(code: CodeChange) -> str:
    """``code: train.py changed``."""
    return f"code: {oneline(code.path)} {code.change}"


def input_change(change: InputChange) -> Iterator[str]:
    """Where an input stands now, and which of its files differ."""
    yield oneline(move_line(change.move))
    if change.unknown:
        yield f"  {oneline(change.unknown)}"
        return
    unseen = set(change.unseen)
    if not change.files:
        yield "  its files are the same"
    yield from indented(
        first(
            (f"{file_line(f)}{', which no datum sees' if f.path in unseen else ''}" for f in change.files), MOST_FILES
        )
    )
    if len(unseen) > 1:
        yield f"  no datum sees {len(unseen)} of these {len(change.files)}"


def move_line(move: Move) -> str:
    """``model: 0123456 → 789abcd, 1 commit on: "put-file iris.csv"``."""
    subject = f': "{move.subject}"' if move.subject else ""
    if move.old is None or move.new is None:
        return f"{move.branch}@{short(move.new or move.old or '')} {'added' if move.new else 'removed'}{subject}"
    steps = [
        f"{count} commit{'s' if count > 1 else ''} {way}"
        for count, way in ((move.behind, "back"), (move.ahead, "on"))
        if count
    ]
    return (
        f"{move.branch}: {short(move.old)}{ARROW}{short(move.new)}{', ' if steps else ''}{' and '.join(steps)}{subject}"
    )


def verb(change: FileChange) -> str:
    """``added``, ``removed`` or ``changed``."""
    return "added" if not change.old else "removed" if not change.new else "changed"


def sizes(change: FileChange) -> str:
    """``15B → 17B``."""
    sides = [size(count) for md5, count in ((change.old, change.old_size), (change.new, change.new_size)) if md5]
    return ARROW.join(sides)


def file_line(change: FileChange) -> str:
    """``1.csv changed (15B → 17B)``."""
    return f"{oneline(change.path)} {verb(change)} ({sizes(change)})"


def commits(diff: CommitDiff) -> Iterator[str]:
    """What differs between two commits: their files and, if asked for, what they were made from."""
    yield f"{ref(diff.old) if diff.old else 'nothing'}{ARROW}{ref(diff.new)}"
    if diff.files:
        yield from aligned([[verb(f), oneline(f.path), sizes(f)] for f in diff.files]).splitlines()
    yield summary(diff.files)
    more = diff.provenance
    if more is None:
        return
    yield "Inputs:" if more.inputs else "Inputs: the same"
    yield from (f"  {oneline(move_line(move))}" for move in more.inputs)
    yield "Pipelines:" if more.versions else "Pipelines: the same"
    for each in more.versions:
        head, *rest = version(each)
        yield f"  {head}"
        yield from indented(iter(rest), 4)
    if diff.files and diff.old:
        if more.environments:
            yield "Environment:"
            yield from indented(first(map(environment_line, more.environments), MOST_FIELDS))
        elif more.environments is not None and not more.inputs and not more.versions:
            yield "Environment: the same"


def environment_line(change: EnvironmentChange) -> str:
    """``model: scikit-learn 1.7.1 → 1.8.0``, ``model: cpu: 2 x A → 8 x B``."""
    kind, _, name = change.what.partition(" ")
    what = f"{name} " if name else f"{kind}: "
    return oneline(f"{change.pipeline}: {what}{change.old or 'absent'}{ARROW}{change.new or 'absent'}", MAX_TEXT)


def summary(files: Sequence[FileChange]) -> str:
    """``3 files differ: 1 added, 1 removed, 1 changed``."""
    if not files:
        return "no file differs"
    counts = [(word, sum(verb(f) == word for f in files)) for word in ("added", "removed", "changed")]
    said = ", ".join(f"{count} {word}" for word, count in counts if count)
    return f"{len(files)} file{'s differ' if len(files) > 1 else ' differs'}: {said}"


def ref(commit: CommitRef) -> str:
    """``model@0123456789ab``."""
    return f"{commit.branch}@{short(commit.sha)}" if commit.branch else short(commit.sha)


def first(found: Iterator[str], most: int) -> Iterator[str]:
    """The first lines, and how many more there are."""
    more = 0
    for place, line in enumerate(found):
        if place < most:
            yield line
        else:
            more += 1
    if more:
        yield f"and {more} more"


def indented(found: Iterator[str], by: int = 2) -> Iterator[str]:
    """Lines further to the right."""
    return (" " * by + line for line in found)
