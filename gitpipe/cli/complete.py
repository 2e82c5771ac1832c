"""Shell completion: what could stand where the cursor is.

The shell's side is typer's (``--install-completion``): a function that starts us with the words typed so far in the
environment.  The answer is ours, because typer's knows neither two-word commands nor what bash makes of a word with
``@`` or ``:`` in it.  Nothing is ever written, and no failure is ever shown: at worst there is nothing to offer.

The completers at the end go to ``autocompletion=`` of arguments and options.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gitpipe.cli.argv import ALIASES, canonical, verb_index
from gitpipe.commit import DEFAULT_BRANCH

if TYPE_CHECKING:
    from gitpipe.glance import Glance

VARIABLE = "_GITPIPE_COMPLETE"
SHORT = 12  # digits of an id to offer
SHORTEST = 4  # that have to be there before ids are offered among other things
BREAKS = "@:="
"""Characters at which bash begins a new word (COMP_WORDBREAKS) and which stand in ours."""

Offer = tuple[str, str]
"""What to insert, and a few words about it or ""."""


@dataclass(slots=True)
class Typed:
    """What a completer may look at, as the context's ``obj``.

    Attributes:
        words: words of the same argument that stand before the cursor.
        before: all positional words that stand before the cursor.
        folder: where the command would run, ``-C`` taken in.
        files: set by a completer where files of the current folder are wanted, which the shell knows best.
    """

    words: list[str]
    before: list[str]
    folder: Path
    files: bool = False


# ---------------------------------------------------------------- the shells


def answer(command: Any, environment: Mapping[str, str]) -> int | None:
    """Answer a shell's question on standard output; the exit status, or None where it was not asked for words.

    Args:
        command: the whole command line, as typer builds it.
    """
    action, _, shell = environment[VARIABLE].partition("_")
    if action != "complete" or shell not in SHELLS:
        return None
    try:
        status, text = SHELLS[shell](command, environment)
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    except Exception:  # a traceback amid a command line helps nobody: the command itself will say what is wrong
        return 1
    return status


def _bash(command: Any, environment: Mapping[str, str]) -> tuple[int, str]:
    """A line a word.  Where nothing is offered, bash completes names of files."""
    text, place = environment["COMP_WORDS"], int(environment["COMP_CWORD"])
    tokens = text.split("\n") if "\n" in text else text.split(" ")
    tokens = [*tokens[: place + 1], *[""] * (place + 1 - len(tokens))]
    words, cut = glue(tokens)
    quoted = tokens[-1][:1] in ("'", '"')
    found, _ = offers(command, words[1:-1], words[-1])
    names = [value[len(cut) :] for value, _ in found if value.startswith(cut)]
    return 0, "".join(f"{name if quoted else _escaped(name)}\n" for name in names)


def glue(tokens: Sequence[str]) -> tuple[list[str], str]:
    """The words that bash has split into `tokens`, unquoted, and what of the last one stands before bash's last token.

    Behind an ``@`` bash keeps that as part of its last token, as it would be of a host's name.

    ``["get-file", "training", "@", "master", ":", "a"]`` -> ``(["get-file", "training@master:a"], "training@master:")``
    """
    words: list[str] = []
    cut = ""
    joined = False
    for number, token in enumerate(tokens):
        breaks = bool(token) and not token.strip(BREAKS)
        joins = bool(words) and number > 1 and (breaks or joined) and token != ""
        plain = split(token)[-1]
        if joins:
            cut = words[-1] + (plain if breaks else "")
            words[-1] += plain
        else:
            cut = plain if breaks else ""
            words.append(plain)
        joined = breaks
    return words, cut.removesuffix("@")


def _escaped(text: str) -> str:
    """As typed at a prompt: what the shell would take for something else has a backslash before it."""
    return "".join(char if char.isalnum() or char in "_-./,:@=+%^" else f"\\{char}" for char in text)


def _zsh(command: Any, environment: Mapping[str, str]) -> tuple[int, str]:
    """Commands for zsh to evaluate.  Blanks are written as escapes, as zsh makes each run of them one."""
    *words, last = split(environment.get("_TYPER_COMPLETE_ARGS", ""))
    found, files = offers(command, words[1:], last)
    if files:
        return 0, "_files\n"
    if not found:
        return 0, ""
    values = " ".join(_zsh_quoted(value) for value, _ in found)
    if not any(about for _, about in found):
        return 0, f"compadd -- {values}\n"
    wide = max(len(value) for value, _ in found)
    shown = " ".join(_zsh_quoted(f"{value.ljust(wide)}  {about}".rstrip()) for value, about in found)
    return 0, f"local -a offered shown; offered=({values}); shown=({shown}); compadd -l -d shown -a offered\n"


def _zsh_quoted(text: str) -> str:
    escapes = {" ": "\\x20", "\\": "\\\\", "'": "\\'"}
    return "$'" + "".join(escapes.get(char, char) for char in text) + "'"


def _fish(command: Any, environment: Mapping[str, str]) -> tuple[int, str]:
    """A line a word, with its description after a tab; asked first whether there is more to offer than files."""
    *words, last = split(environment.get("_TYPER_COMPLETE_ARGS", ""))
    found, files = offers(command, words[1:], last)
    if environment.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return int(files), ""
    return 0, "".join(f"{value}\t{about}\n" if about else f"{value}\n" for value, about in found)


Shell = Callable[[Any, Mapping[str, str]], "tuple[int, str]"]
SHELLS: dict[str, Shell] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def split(line: str) -> list[str]:
    """The words of a line up to the cursor, unquoted; the last one is what is being typed, perhaps "".

    ``get-file "my re`` -> ``["get-file", "my re"]``; ``get-file`` and a blank -> ``["get-file", ""]``.
    """
    end = "\0"  # marks where the cursor is, so that a blank before it is seen, and one in a name is not taken for it
    reader = shlex.shlex(line + end, posix=True)
    reader.whitespace_split, reader.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(reader)
    except ValueError:  # a quote that is not closed yet
        words.append(reader.token)
    return [word.replace(end, "") for word in words]


# ---------------------------------------------------------------- the command line


def offers(command: Any, words: Sequence[str], typed: str) -> tuple[list[Offer], bool]:
    """What could stand in the place of `typed`, and whether names of files could.

    Args:
        command: the whole command line, as typer builds it.
        words: the words between the program's name and the cursor.
    """
    start = verb_index(list(words))
    if start > len(words):  # behind -C
        return [], True
    folder = Path.cwd().joinpath(*(value for option, value in pairwise(words[:start]) if option == "-C"))
    rest = list(words[start:])
    found: list[Offer] = []
    files = False
    if not rest:
        found = list(_options(command) if typed.startswith("-") else _verbs(command, typed))
    else:
        if len(rest) == 1 and not typed.startswith("-"):
            found = list(_second_words(command, rest[0]))
        verb, *args = canonical(rest, frozenset(command.commands))
        leaf = command.commands.get(verb)
        while leaf is not None and hasattr(leaf, "commands"):
            if not args:
                found = [(name, _about(each)) for name, each in leaf.commands.items()]
                break
            leaf, args = leaf.commands.get(args[0]), args[1:]
        else:
            if leaf is not None:
                more, files = _parameters(leaf, args, typed, folder)
                found += more
    return [(value, _one_line(about)) for value, about in dict(found).items() if _usable(value, typed)], files


def _usable(value: str, typed: str) -> bool:
    """Whether a value goes on with what was typed, and a shell can be told of it: a line each, in UTF-8."""
    return value.startswith(typed) and value.isprintable()


def _one_line(about: str) -> str:
    return "".join(char if char.isprintable() else " " for char in about)


def _verbs(command: Any, typed: str) -> Iterator[Offer]:
    for name, each in command.commands.items():
        if not each.hidden:
            yield name, _about(each)
    if not any(name.startswith(typed) for name in command.commands):
        yield from ((alias, f"the same as {name}") for alias, name in ALIASES.items())


def _second_words(command: Any, first: str) -> Iterator[Offer]:
    """``repo``, ``file`` … behind ``list``."""
    for name, each in command.commands.items():
        if name.startswith(f"{first}-") and not each.hidden:
            yield name.removeprefix(f"{first}-"), _about(each)
    for alias, name in ALIASES.items():
        if alias.startswith(f"{first}-"):
            yield alias.removeprefix(f"{first}-"), f"the same as {name}"


def _about(command: Any) -> str:
    return str(command.get_short_help_str(limit=70))


def _options(command: Any) -> Iterator[Offer]:
    for param in command.params:
        if param.param_type_name == "option" and not getattr(param, "hidden", False):
            yield from ((name, getattr(param, "help", None) or "") for name in param.opts if name.startswith("--"))
    yield "--help", "Show this message and exit."


def _parameters(leaf: Any, args: Sequence[str], typed: str, folder: Path) -> tuple[list[Offer], bool]:
    """What could stand behind a command and `args`: an option's name, its value, or a positional word."""
    options = {name: param for param in leaf.params if param.param_type_name == "option" for name in param.opts}
    positional = [param for param in leaf.params if param.param_type_name == "argument"]
    before: list[str] = []
    waiting: Any = None
    only_words = False
    for word in args:
        if waiting is not None:
            waiting = None
        elif only_words or not word.startswith("-") or word == "-":
            before.append(word)
        elif word == "--":
            only_words = True
        else:
            waiting = _wants_value(word, options)
    if waiting is not None:
        return _ask(leaf, waiting, typed, Typed([], before, folder))
    if typed.startswith("-") and not only_words:
        name, equals, value = typed.partition("=")
        if not equals:
            return list(_options(leaf)), False
        if name not in options:
            return [], False
        found, files = _ask(leaf, options[name], value, Typed([], before, folder))
        return [(f"{name}={each}", about) for each, about in found], files
    for place, param in enumerate(positional):
        if param.nargs == -1 or place == len(before):
            return _ask(leaf, param, typed, Typed(before[place:], before, folder))
    return [], False


def _wants_value(word: str, options: Mapping[str, Any]) -> Any:
    """The option whose value has to follow `word`, or None."""
    if word.startswith("--"):
        param = options.get(word)
        return param if param is not None and not param.is_flag else None
    for place, letter in enumerate(word[1:], start=2):
        param = options.get(f"-{letter}")
        if param is not None and not param.is_flag:
            return param if place == len(word) else None
    return None


def _ask(leaf: Any, param: Any, typed: str, about: Typed) -> tuple[list[Offer], bool]:
    """Ask the completer of a parameter, through typer."""
    context = typer.Context(leaf, info_name=leaf.name, obj=about)
    items = param.shell_complete(context, typed)
    plain = [(item.value, item.help or "") for item in items if item.type == "plain"]
    return plain, about.files or len(plain) < len(items)


# ---------------------------------------------------------------- completers


def _look(ctx: typer.Context) -> Glance:
    from gitpipe.glance import Glance

    return Glance(ctx.obj.folder)


def files(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Names of files: the shell's own business."""
    ctx.obj.files = True
    return []


def repos(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Names of repos."""
    return [(name, "") for name in _look(ctx).repos()]


def pipelines(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Names of pipelines."""
    return [(name, "") for name in _look(ctx).pipelines()]


def pipelines_and_repos(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Names of both."""
    look = _look(ctx)
    return [*((name, "pipeline") for name in look.pipelines()), *((name, "repo") for name in look.repos())]


def jobs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Ids of jobs, the newest first."""
    digits = SHORT if len(incomplete) <= SHORT else None
    return [(oid[:digits], f"{pipeline} {state}") for oid, pipeline, state in _look(ctx).jobs(incomplete)]


def jobs_and_pipelines(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Names of pipelines, each standing for its newest job, and ids of jobs."""
    return [*((name, "pipeline, its newest job") for name in _look(ctx).pipelines()), *jobs(ctx, incomplete)]


def examples(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The examples that ``gitpipe example`` copies."""
    from gitpipe.example import list_examples

    return [(name, "") for name in list_examples()]


def branches(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """``REPO [BRANCH]`` or ``REPO@BRANCH``."""
    return list(_place(_look(ctx), ctx.obj.words, incomplete, commits=False, paths=False))


def commits(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """``REPO [COMMIT]`` or ``REPO@COMMIT``."""
    return list(_place(_look(ctx), ctx.obj.words, incomplete, commits=True, paths=False))


def each_commit(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """``REPO@COMMIT``, as often as one likes."""
    return list(_place(_look(ctx), [], incomplete, commits=True, paths=False))


def places(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """``REPO [BRANCH|COMMIT] [PATH]`` or ``REPO@BRANCH:PATH``."""
    return list(_place(_look(ctx), ctx.obj.words, incomplete, commits=True, paths=True))


def two_places(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Two of what `places` completes, one after the other."""
    look, words = _look(ctx), ctx.obj.words
    first = _length(look, words)
    found = list(_place(look, words[first:], incomplete, commits=True, paths=True))
    if not first and words and "@" in words[0]:  # a whole place by itself, or the path is still to come
        found += _place(look, [], incomplete, commits=True, paths=True)
    return found


def _length(look: Glance, words: Sequence[str]) -> int:
    """How many words the first place has, where its path is among them; else 0."""
    if not words or ":" in words[0]:
        return len(words[:1])
    path = 2 if "@" not in words[0] and len(words) > 1 and look.is_revision(words[0], words[1]) else 1
    return path + 1 if len(words) > path else 0


def commits_of_repo(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Branches and commits of the repo that was named before."""
    repo = ctx.obj.before[0].partition("@")[0] if ctx.obj.before else ""
    return list(_revisions(_look(ctx), repo, incomplete, True)) if repo else []


def datums(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Ids of datums: of the job or pipeline that was named before, else of all."""
    digits = SHORT if len(incomplete) <= SHORT else None
    found = _look(ctx).datums(next(iter(ctx.obj.before), ""), incomplete)
    return [(oid[:digits], pipeline) for oid, pipeline in found]


def jobs_pipelines_and_datums(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """What `jobs_and_pipelines` offers and, once some digits are typed, the datums that go on so."""
    found = jobs_and_pipelines(ctx, incomplete)
    return [*found, *datums(ctx, incomplete)] if len(incomplete) >= SHORTEST else found


def _place(look: Glance, words: Sequence[str], typed: str, *, commits: bool, paths: bool) -> Iterator[Offer]:
    if not words:
        name, at, rest = typed.partition("@")
        revision, colon, path = rest.partition(":")
        if not at:
            name, colon, path = name.partition(":")
        if colon:
            if paths:
                head = typed[: len(typed) - len(path)]
                yield from _below(look.paths(name, revision or DEFAULT_BRANCH, path.lstrip("/")), path, head)
        elif at:
            found = _revisions(look, name, revision, commits and (not paths or len(revision) >= SHORTEST))
            yield from ((f"{name}@{each}", about) for each, about in found)
        else:
            yield from ((repo, "") for repo in look.repos())
        return
    first, colon, path = words[0].partition(":")
    name, at, revision = first.partition("@")
    if len(words) == 1 and not colon:
        if not at:
            yield from _revisions(look, name, typed, commits and (not paths or len(typed) >= SHORTEST))
        if paths:
            yield from _below(look.paths(name, revision or DEFAULT_BRANCH, typed.lstrip("/")), typed)
    elif len(words) == 2 and not colon and not at and paths and look.is_revision(name, words[1]):
        yield from _below(look.paths(name, words[1], typed.lstrip("/")), typed)


def _revisions(look: Glance, repo: str, typed: str, commits: bool) -> Iterator[Offer]:
    yield from ((branch, "branch") for branch in look.branches(repo))
    if commits:
        for sha, subject in look.commits(repo):
            yield (sha if len(typed) > SHORT or subject == "open" else sha[:SHORT]), subject


def _below(paths: Iterable[str], typed: str, head: str = "") -> Iterator[Offer]:
    """What of `paths` goes on with `typed`, a folder at a time, `head` before each.

    A folder that is the only choice is gone into at once: a shell would put a blank behind it.
    """
    start = typed.lstrip("/")
    lead = head + typed[: len(typed) - len(start)]
    known = [path for path in paths if path.startswith(start)]
    while True:
        cut = len(start.rpartition("/")[0]) + 1 if "/" in start else 0
        found = dict.fromkeys(path[:cut] + _step(path[cut:]) for path in known)
        (only, *others) = found or [""]
        if others or not only.endswith("/"):
            break
        start = only
    yield from ((lead + path, "") for path in found)


def _step(path: str) -> str:
    """The first part of a path, with a slash where it is a folder."""
    name, slash, _ = path.partition("/")
    return name + slash
