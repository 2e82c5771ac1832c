"""Bad input to every command: words that are missing, odd, huge or of the wrong kind.

One table has a line that works for each command that the command line has; every word and every value in it is then
replaced by bad ones.  A command without a row fails the first test, so that a later one cannot be forgotten.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from gitpipe.cli.app import app
from tests.conftest import end_runner
from tests.scenarios.test_errors import refuses, repo, run, spec, state

__all__ = ["repo"]  # the fixture

# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """One command.

    Attributes:
        line: its words, which work in the repository `full`; one in braces is of that kind (``{repo}``), see `KINDS`.
        options: its options with a value and the kind of that.
        least: how many of the words it needs.
        most: how many it takes at most; None for any number.
        writes: whether it changes the repository, so that what it takes has to be tried on a copy.
        works: whether the line succeeds in `full`; where it cannot, the tests of that command show one that does.
    """

    line: str
    options: tuple[str, ...] = ()
    least: int = 0
    most: int | None = 0
    writes: bool = False
    works: bool = True


ROWS: dict[str, Row] = {
    "init": Row("", writes=True),
    "example": Row("{example}", most=1, writes=True),
    "trust": Row("--yes"),
    "version": Row(""),
    "schema": Row(""),
    "hooks install": Row("", writes=True),
    "hooks uninstall": Row("", writes=True),
    "hooks status": Row(""),
    "runner status": Row(""),
    "runner stop": Row("", writes=True),
    "create-repo": Row("{new}", ("-d {text}",), 1, 1, writes=True),
    "list-repo": Row(""),
    "inspect-repo": Row("{repo}", (), 1, 1),
    "delete-repo": Row("{repo} -f", (), 1, 1, writes=True),
    "put-file": Row("{repo} {branch} {target} -f a.csv", ("-f {source}", "-i {list}", "-m {text}"), 1, 3, writes=True),
    "get-file": Row("{repo} {branch} {path}", ("-o {out}",), 2, 3),
    "list-file": Row("{repo} {branch} {path}", (), 1, 3),
    "glob-file": Row("{repo} {branch} {glob}", (), 2, 3),
    "inspect-file": Row("{repo} {branch} {path}", (), 1, 3),
    "copy-file": Row("{repo} {branch} {path} {repo} {branch} {target}", ("-m {text}",), 2, 6, writes=True),
    "diff-file": Row("{repo} {branch} {path} {repo} {commit} {other}", (), 1, 6),
    "delete-file": Row("{repo} {branch} {path}", (), 2, 3, writes=True),
    "start-commit": Row("{repo} {branch}", ("-m {text}",), 1, 2, writes=True),
    "finish-commit": Row("{repo} {branch}", ("-m {text}",), 1, 2, writes=True),
    "delete-commit": Row("{repo} {branch}", (), 1, 2, writes=True),
    "list-commit": Row("{repo} {branch}", (), 1, 2),
    "inspect-commit": Row("{repo} {branch}", (), 1, 2),
    "subscribe-commit": Row("{repo} {branch}", ("--from {commit}", "--limit {count}"), 1, 2),
    "create-branch": Row(
        "{repo} {fresh}",
        (
            "--head {commit}",
            "--trigger {watched} --trigger-commits 2",
            "--trigger-commits {count} --trigger master",
            "--trigger-size {size} --trigger master",
            "--trigger-cron {schedule} --trigger master",
        ),
        2,
        2,
        writes=True,
    ),
    "list-branch": Row("{repo}", (), 1, 1),
    "delete-branch": Row("{repo} {branch}", (), 2, 2, writes=True),
    "create-pipeline": Row("-f {spec}", writes=True),
    "update-pipeline": Row("-f {known}", writes=True),
    "list-pipeline": Row(""),
    "inspect-pipeline": Row("{pipeline}", (), 1, 1),
    "run-pipeline": Row("{pipeline} {input}", (), 1, None, writes=True),
    "run-cron": Row("{pipeline}", (), 1, 1, writes=True, works=False),
    "start-pipeline": Row("{pipeline}", (), 1, 1, writes=True),
    "stop-pipeline": Row("{pipeline}", (), 1, 1, writes=True),
    "delete-pipeline": Row("{pipeline}", (), 1, 1, writes=True),
    "list-job": Row("", ("--pipeline {pipeline}", "--limit {count}")),
    "inspect-job": Row("{job}", (), 1, 1),
    "stop-job": Row("{job}", (), 1, 1, writes=True, works=False),
    "restart-datum": Row("{job}", (), 1, None, writes=True, works=False),
    "list-datum": Row("{job}", ("-f {spec} --number {count}",), 0, 1),
    "inspect-datum": Row("{job} {datum}", (), 2, 2),
    "logs": Row("", ("--job {job}", "--pipeline {pipeline}", "--datum {datum}", "--tail {tail} --follow")),
    "list-worker": Row(""),
    "wait": Row("", ("--timeout {seconds}",), most=None, writes=True),
    "run": Row("", writes=True),
    "add": Row("{data}", (), 1, None, writes=True, works=False),
    "log": Row("{repo} {branch}", ("--limit {count}",), 0, 2),
    "explain": Row("{datum}", ("--job {job}",), 1, 1),
    "diff": Row("{repo} {commit}", (), 1, 4),
    "status": Row(""),
    "dag": Row("{pipeline}", ("--format {form}", "-o {drawing}"), 0, None),
}


LONG = "x" * 5000
ODD = ("", "a b", "../x", "u\u0308", "a\nb", "-x", "*", "[", "a\udcff", "\x1b[31m", "@", ":", LONG)
NUMBERS = ("", "x", "-1", "nan", "1.5x", "9" * 30)


@dataclass(frozen=True)
class Kind:
    """What may stand at a place of a line.

    Attributes:
        good: one value that works.
        fine: those of `odd` that are taken, since they do name something or may be anything.
        odd: the values to try.
    """

    good: str
    fine: frozenset[str] = frozenset()
    odd: tuple[str, ...] = ODD


NAMES = frozenset({"a b", "u\u0308", "a\nb", "*", "[", "\x1b[31m", "@", ":"})
KINDS: dict[str, Kind] = {
    "repo": Kind("training"),
    "new": Kind("fresh"),
    "branch": Kind("staging"),
    "fresh": Kind("fresh"),
    "commit": Kind("master"),
    "path": Kind("a.csv", frozenset({""})),  # no path is all of the repo: where that is fine depends on the command
    "other": Kind("b.csv", frozenset({""})),
    "target": Kind("n.csv", NAMES | {""}),  # a file may have any name that can be checked out
    "glob": Kind("/*", NAMES - {"[", "\x1b[31m"} | {"a\udcff"}),  # matches nothing, and that is an answer
    "text": Kind("words", frozenset(ODD)),  # a message may say anything
    "source": Kind("a.csv"),
    "list": Kind("list.txt"),
    "out": Kind("out.csv", frozenset(ODD) - {"", LONG}),  # a file of the user's own
    "spec": Kind("q/spec.json"),
    "known": Kind("p/spec.json"),
    "pipeline": Kind("p"),
    "input": Kind("training@master"),
    "job": Kind("p"),
    "datum": Kind("DATUM"),
    "data": Kind("data"),
    "watched": Kind("staging", frozenset({LONG})),  # it need not be there yet
    "size": Kind("1MB", frozenset({"9" * 30}), odd=(*NUMBERS, "1 X", "0")),
    "schedule": Kind("@daily"),
    "count": Kind("1", odd=NUMBERS),
    "tail": Kind("1", odd=NUMBERS),
    "seconds": Kind("30", frozenset({"9" * 30}), odd=NUMBERS),
    "example": Kind("iris", frozenset({""})),
    "form": Kind("dot"),
    "drawing": Kind("dag.dot"),
}
DIFFERENT: dict[str, dict[str, frozenset[str]]] = {
    # A difference says what is at one place and not at the other, so one of the two may be nowhere.
    "diff-file": {"path": NAMES | {""}, "other": NAMES | {""}},
    "get-file": {"path": frozenset()},  # a folder: get-file -r
    "delete-file": {"path": frozenset()},  # all of a repo: delete-repo
}
"""Where a command takes other odd values than `KINDS` says."""


def commands() -> dict[str, Any]:
    """Every command that the command line has, by its words."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found.update({f"{name} {word}": each for word, each in inner.items()} if inner else {name: command})
    return found


def test_every_command_and_every_value_is_in_the_table() -> None:
    """A command or option that is added later has to be added here as well."""
    have = commands()
    assert set(have) == set(ROWS)
    for name, command in have.items():
        row = ROWS[name]
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        assert bool(arguments) == (row.most != 0), name
        takes = [each for each in command.params if each.param_type_name == "option" and not each.is_flag]
        typed = {word for line in (row.line, *row.options) for word in line.split() if word.startswith("-")}
        assert all(typed & {*each.opts, *each.secondary_opts} for each in takes), (name, typed)


# ---------------------------------------------------------------- all commands, on one repository


@dataclass
class Full:
    """A repository in which every line of the table works, and a copy of it to go back to."""

    top: Path
    datum: str

    def reset(self) -> None:
        """As it was; at the same place, as a repository's settings name it."""
        os.chdir(self.top.parent)
        end_runner(self.top)
        shutil.rmtree(self.top)
        shutil.copytree(self.top.parent / "kept", self.top, symlinks=True)
        os.chdir(self.top)

    def words(self, line: str) -> list[str]:
        """The words of a line, each kind by a value that works."""
        found = [KINDS[word[1:-1]].good if word.startswith("{") else word for word in line.split()]
        return [self.datum if word == "DATUM" else word for word in found]


@pytest.fixture
def full(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Full:
    command = typer.main.get_command(app)  # is the same each time, and takes longer to make than most commands to run
    monkeypatch.setattr(typer.main, "get_command", lambda _: command)
    (repo / "list.txt").write_text("a.csv\n")
    for name in "pq":
        (repo / name).mkdir()
        cmd = ["sh", "-c", "echo out; cp /pfs/training/* /pfs/out/"]
        (repo / name / "spec.json").write_text(json.dumps(spec(name, cmd)))
    for line in (
        "create-branch training staging --head master",
        "put-file training staging c.csv -f b.csv",
        "start-commit training staging",
        "create-pipeline -f p/spec.json",
        "run",
    ):
        status, _, err = run(*line.split())
        assert status == 0, (line, err)
    datum = json.loads(run("list-datum", "p", "--raw")[1].splitlines()[0])["id"]
    shutil.copytree(repo, repo.parent / "kept", symlinks=True)
    return Full(repo, datum)


def refusal(args: list[str]) -> str:
    """What is wrong with how a command line is refused, or ""."""
    status, out, err = run(*args)
    if status in (1, 2) and not out and err.startswith("gitpipe: ") and err.endswith("\n") and err[:-1].isprintable():
        return ""
    return f"{[word[:40] for word in args]}: {status} {out[:80]!r} {err[:300]!r}"


def slots(name: str, full: Full) -> Iterator[tuple[str, list[str], int]]:
    """(kind, a command line, which word of it is of that kind) of each place where a command takes a value."""
    row = ROWS[name]
    for line in (row.line, *(f"{row.line} {option}" for option in row.options)):
        typed = line.split()
        start = 0 if line == row.line else len(row.line.split())
        for index in range(start, len(typed)):
            if typed[index].startswith("{"):
                words = [*name.split(), *full.words(line)]
                yield typed[index][1:-1], words, len(name.split()) + index


def test_odd_values_everywhere(full: Full) -> None:
    """Each value of each command by each odd one: taken where the table says so, else one line and nothing changed."""
    before, wrong = state(full.top), []
    for name, row in ROWS.items():
        for kind, words, index in slots(name, full):
            fine = DIFFERENT.get(name, {}).get(kind, KINDS[kind].fine)
            for value in KINDS[kind].odd:
                args = [*words[:index], value, *words[index + 1 :]]
                if value not in fine:
                    wrong.append(refusal(args))
                elif row.works:
                    if name == "subscribe-commit":
                        args += ["--limit", "1"]
                    status, _, err = run(*args)
                    if status or err:
                        wrong.append(f"{args}: {status} {err!r}, although it is fine")
                    if row.writes or kind in ("out", "drawing"):
                        full.reset()
        if (now := state(full.top)) != before:
            wrong.append(f"{name} changed\n{before}\n--- to ---\n{now}")
            full.reset()
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_missing_and_superfluous_words(full: Full) -> None:
    """Fewer words than a command needs, more than it takes, an option without its value, and one that is not there."""
    before, wrong = state(full.top), []
    for name, row in ROWS.items():
        head, words = name.split(), full.words(row.line)
        plain = [word for word in words if not word.startswith("-")]
        wrong += [refusal([*head, *plain[:count]]) for count in range(row.least)]
        if row.most is not None:
            more = [*plain[: row.most], *["more"] * (row.most + 1 - len(plain[: row.most]))]
            wrong.append(refusal([*head, *more]))
        wrong.append(refusal([*head, *words, "--nosuch"]))
        for option in row.options:
            wrong.append(refusal([*head, *words, option.split()[0]]))
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert state(full.top) == before


def test_a_word_that_begins_with_a_dash(full: Full) -> None:
    """Taken for an option, and the line says where it can stand."""
    Path("-x").write_text("dash\n")
    refuses(
        full.top,
        [
            (["get-file", "training", "-x"], 2, "a name that begins with '-' stands behind '--'"),
            (["delete-file", "training", "-x"], 2, "stands behind '--'"),
        ],
    )
    assert run("put-file", "training", "-f", "-x")[0] == 0
    assert run("get-file", "--", "training", "-x")[1] == run("get-file", "training@master:-x")[1] == "dash\n"
    assert run("delete-file", "training", "--", "-x")[0] == 0


# ---------------------------------------------------------------- what is right, in all spellings


def outcome(full: Full, args: list[str]) -> tuple[int, list[str], list[str]]:
    """What a command printed and which refs it left, with neither dates nor ids in it."""
    status, out, err = run(*args)
    refs = subprocess.run(["git", "for-each-ref", "--format=%(refname)"], cwd=full.top, capture_output=True, text=True)
    shown = re.sub(r"[0-9a-f]{32,40}", "<id>", out + err)
    shown = re.sub(r"Less than a second|About a minute|\d+ (seconds?|minutes)|\d{10}\.\d+", "<time>", shown)
    left = re.sub(r"[0-9a-f]{32,40}", "<id>", refs.stdout)
    return status, [" ".join(line.split()) for line in shown.splitlines()], left.splitlines()


def test_both_spellings_and_another_folder(full: Full) -> None:
    """`list-repo`, `list repo`, `-C PATH`: the same is done, for every command."""
    away, wrong = full.top.parent, []
    for name, row in ROWS.items():
        one = [name.replace(" ", "-"), *full.words(row.line)]
        two = [*re.split("[- ]", name), *full.words(row.line)]
        if name == "subscribe-commit":
            one, two = [*one, "--limit", "1"], [*two, "--limit", "1"]
        seen = []
        for folder, args in ((full.top, one), (away, ["-C", str(full.top), *two])):
            os.chdir(folder)
            seen.append(outcome(full, args))
            if row.writes:
                full.reset()
        if seen[0] != seen[1] or (row.works and seen[0][0]):
            wrong.append(f"{name}: {seen}")
        os.chdir(full.top)
    assert not wrong, "\n".join(wrong)


def test_raw_of_every_list_and_inspect(full: Full) -> None:
    """One JSON document a line, and what a reader would find in the table is in it."""
    checked = set()
    for name, command in commands().items():
        if not any("--raw" in each.opts for each in command.params):
            assert not name.startswith(("list-", "inspect-")), f"{name} has no --raw"
            continue
        more = ["--limit", "1"] if name == "subscribe-commit" else []
        status, out, err = run(name, *full.words(ROWS[name].line), *more, "--raw")
        assert status == 0 and not err, (name, err)
        documents = [json.loads(line) for line in out.splitlines()]
        assert documents, name
        checked.add(name)
    assert len(checked) >= 20
