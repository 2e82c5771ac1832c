"""The documents are run: every ``console`` block of a page, in order, in one shell, and its answers are compared.

``...`` stands for anything, on a line of its own for any lines.  What differs between any two runs compares equal:
commit ids, ages, durations, how wide a column is, the order of a table's rows.  A page that holds the comment
``<!-- needs: Rscript -->`` is skipped where that program is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import ROOT, end_runner

PAGES = [
    "README.md",
    "docs/commands.md",
    "docs/pre-commit.md",
    "docs/secrets.md",
    *sorted(f"docs/walkthroughs/{path.name}" for path in (ROOT / "docs/walkthroughs").glob("*.md")),
]
NEEDS = re.compile(r"^<!-- needs: (\S+) -->$", re.MULTILINE)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = [
    (re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{7,64}(?![0-9a-zA-Z])"), "ID"),
    (re.compile(r"\b(Less than a second|About an? \w+|\d+ (second|minute|hour)s?)\b"), "TIME"),
    (re.compile(r"\s+"), " "),
]
SECONDS = 900
ALL_DONE = "Nothing to do: every output is up to date."


@dataclass(frozen=True, slots=True)
class Step:
    """A command as typed, and the lines that the page shows below it."""

    command: str
    shown: tuple[str, ...]


def steps(text: str) -> Iterator[Step]:
    """The commands of a page in order; a line that begins with ``> `` goes on with the one before."""
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *rest = part.rstrip("\n").split("\n")
            while rest and rest[0].startswith("> "):
                command += "\n" + rest.pop(0)[2:]
            yield Step(command, tuple(line for line in rest if line))


def canonical(line: str) -> str:
    for pattern, word in VARYING:
        line = pattern.sub(word, line)
    return line.strip()


def matches(shown: tuple[str, ...], said: str) -> bool:
    lines = [canonical(line) for line in said.splitlines() if line.strip()]
    wanted = [canonical(line) for line in shown]
    if wanted and wanted[0].startswith("NAME "):
        return lines[:1] == wanted[:1] and _match(sorted(wanted[1:]), sorted(lines[1:]))
    return _match(wanted, lines)


def _match(wanted: list[str], lines: list[str]) -> bool:
    pattern = "".join(
        r"(?:[^\n]*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", r"[^\n]+") + r"\n" for line in wanted
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def play(commands: list[str], folder: Path) -> list[tuple[str, int]]:
    """What each command said (both streams) and its exit status, in one shell that lives through all of them."""
    # `eval`, as a line typed at a prompt: what is open at its end is an error of that line alone.
    script = "".join(f'eval "$STEP{n}" 2>&1 </dev/null; printf "\\0%d\\0" $?\n' for n in range(len(commands)))
    env = {**os.environ, **{f"STEP{n}": command for n, command in enumerate(commands)}}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, stdout=subprocess.PIPE, timeout=SECONDS)
    parts = done.stdout.decode().split("\0")
    return [(said, int(status)) for said, status in zip(parts[::2], parts[1::2], strict=False)]


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    for program in NEEDS.findall(text):
        if shutil.which(program) is None:
            pytest.skip(f"{page} needs {program}, which is not installed here")
    plan = list(steps(text))
    assert plan, f"{page} shows no commands"
    try:
        answers = play([step.command for step in plan], tmp_path)
    finally:
        for repo in tmp_path.glob("*/.git"):
            end_runner(repo.parent)
    for step, (said, status) in zip(plan, answers, strict=True):
        report = f"{page}\n$ {step.command}\n--- the page shows\n" + "\n".join(step.shown) + f"\n--- it says\n{said}"
        # A step that shows nothing is run for its effect: its chatter is no matter.
        as_shown = not step.shown or matches(step.shown, said)
        # The runner may be faster than the reader: then there is nothing left to wait for.
        assert as_shown or (step.command == "gitpipe wait" and said.strip() == ALL_DONE), report
        assert status == 0 or any(line.startswith("gitpipe: ") for line in step.shown), f"{report}\n--- status {status}"


def test_the_commands_page_has_every_command_and_option() -> None:
    import typer

    from gitpipe.cli.app import app

    text = (ROOT / "docs/commands.md").read_text()
    sections = dict(re.findall(r"^### (.*)\n((?:(?!^##).*\n?)*)", text, re.MULTILINE))
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        mine = [head + body for head, body in sections.items() if re.search(rf"`{name}[` ]", head)]
        assert len(mine) == 1, f"docs/commands.md has {len(mine)} sections on {name}"
        options = {word for each in command.params for word in each.opts if word.startswith("-")}
        shown = {word for cell in re.findall(r"^\| (`-.*?) \|", mine[0], re.MULTILINE) for word in cell.split("`")}
        assert options == {word for word in shown if word.startswith("-")}, f"docs/commands.md, options of {name}"
        for inner in getattr(command, "commands", {}):
            assert f"`{name} {inner}`" in mine[0]


def test_pages_link_to_what_is_there() -> None:
    for page in [*PAGES, "docs/design.md", "docs/pachyderm.md", "docs/faults.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_matching_is_neither_too_strict_nor_too_lax() -> None:
    assert matches(("NAME  SIZE", "a  1B", "b  ..."), "NAME SIZE\nb     43.1KiB\na     1B\n")
    assert matches(("...", "model: 1 + 0 / 1 success"), "model: queued\nmodel: 1 + 0 / 1 success\n")
    assert matches(("x@1234567 3 seconds ago",), "x@89abcdef12  About a minute ago\n")
    assert not matches(("4.444KiB",), "4.443KiB\n")
    assert not matches(("one",), "one\ntwo\n")
    assert not matches(("one", "two"), "one\n")
