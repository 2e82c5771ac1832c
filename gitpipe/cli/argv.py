"""Bring the spellings of a command, and of the places in it, to one.  Knows words only, not what commands do.

``list repo`` (Pachyderm 2.x) and ``list-repo`` (1.x) are the same, and so are the older names of some commands.
"""

from __future__ import annotations

from collections.abc import Sequence

from gitpipe.errors import UsageError

ALIASES = {
    "get-logs": "logs",
    "get-log": "logs",
    "flush-commit": "wait",
    "flush-job": "wait",
    "wait-commit": "wait",
    "wait-job": "wait",
}
GROUPS = ("hooks", "runner")
"""Commands with subcommands of their own: ``hooks-install`` is ``hooks install``."""

TAKES_VALUE = ("-C",)
"""Options before the command that are followed by a value."""


def normalise(args: list[str], commands: frozenset[str]) -> list[str]:
    """`args` with the command as one canonical word: ``-C x list repo --raw`` -> ``-C x list-repo --raw``.

    Args:
        args: what was typed after the program's name.
        commands: the names of all commands.
    """
    start = verb_index(args)
    before, rest = args[:start], args[start:]
    if not rest:
        return before
    return before + canonical(rest, commands)


def verb_index(args: list[str]) -> int:
    """Where the command stands in `args`: behind the options that come first."""
    index = 0
    while index < len(args) and args[index].startswith("-"):
        index += 2 if args[index] in TAKES_VALUE else 1
    return index


def canonical(words: list[str], commands: frozenset[str]) -> list[str]:
    """`words`, the first of which is a command or its first half, with the command in its one spelling."""
    verb, *rest = words
    joined = f"{verb}-{rest[0]}" if rest else ""
    if joined in commands or joined in ALIASES:
        verb, rest = joined, rest[1:]
    group, _, subcommand = verb.partition("-")
    if group in GROUPS and subcommand:
        return [group, subcommand, *rest]
    return [ALIASES.get(verb, verb), *rest]


def two_places(words: Sequence[str], what: str) -> tuple[list[str], list[str]]:
    """`words` that name two places, one after the other, as those of each: 1.x spelling, 2.x, or one of each.

    Raises:
        UsageError: they cannot be told apart; it begins with `what`, an example.
    """
    given = list(words)
    middle = len(given) // 2
    if len(given) in (3, 5):
        # A word with "REPO@BRANCH:PATH" is a place of its own, "REPO@BRANCH" begins one.
        if ":" in given[0] or (len(given) == 5 and "@" in given[0]):
            middle = len(given) - 3 if len(given) == 5 else 1
        elif ":" in given[-1] or (len(given) == 5 and "@" in given[-2]):
            middle = 3 if len(given) == 5 else 2
        else:
            middle = 0
    if len(given) not in (2, 3, 4, 5, 6) or not middle:
        raise UsageError(f"name two places: {what}")
    return given[:middle], given[middle:]


def one_or_two_places(words: Sequence[str], what: str) -> tuple[list[str], list[str]]:
    """As `two_places`, the second of which may be left out (an empty list then)."""
    given = list(words)
    spelled = [":" in word or "@" in word for word in given]
    single = len(given) == 1 or (len(given) == 2 and not all(spelled)) or (len(given) == 3 and not any(spelled))
    return (given, []) if single else two_places(given, what)
