"""Bring the spellings of a command to one before anything parses it.  Knows words only, not what commands do.

``list repo`` (Pachyderm 2.x) and ``list-repo`` (1.x) are the same, and so are the older names of some commands.
"""

from __future__ import annotations

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
