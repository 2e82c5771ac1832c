"""What a DVC config file says, read without DVC: where the cache is, how files are linked, which remotes there are.

Knows the format (INI with quoted section names, as ConfigObj writes it) and not what the settings do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gitpipe.errors import BadData

CACHE_TYPES = ("reflink", "hardlink", "symlink", "copy")
DEFAULT_CACHE_TYPES = ("reflink", "copy")
Sections = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class DvcConfig:
    """The settings that gitpipe honours.

    Attributes:
        cache_dir: ``cache.dir``, absolute; None where DVC's default (``.dvc/cache``) holds.
        cache_types: ``cache.type``, in the order in which DVC would try them.
        shared: ``cache.shared = group``.
        remotes: name -> settings (``url`` and others) of each remote.
        default_remote: ``core.remote`` or "".
        autostage: ``core.autostage``.
    """

    cache_dir: Path | None = None
    cache_types: tuple[str, ...] = DEFAULT_CACHE_TYPES
    shared: bool = False
    remotes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    default_remote: str = ""
    autostage: bool = False


def parse_config(text: str, where: str = ".dvc/config") -> Sections:
    """Section -> key -> value; a section ``['remote "x"']`` is named ``remote "x"``.

    Raises:
        BadData: a line that is neither a section, a setting nor a comment; it is named.
    """
    sections: Sections = {}
    current: dict[str, str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            name, close, _ = line[1:].rpartition("]")
            if not close:
                raise BadData(f"{where} line {number}: a section without its closing bracket")
            current = sections.setdefault(_unquote(name), {})
            continue
        key, equals, value = line.partition("=")
        if not equals or current is None:
            raise BadData(f"{where} line {number}: expected `key = value` in a section")
        current[_unquote(key).lower()] = _unquote(value)
    return sections


def _unquote(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"'):
        end = text.find(text[0], 1)
        if end > 0:
            return text[1:end]
    return text.partition("#")[0].strip()


def read_config(dvc_dir: Path) -> DvcConfig:
    """The settings in ``config`` and ``config.local`` of the folder `dvc_dir` (``.dvc``); absent files say nothing.

    Relative paths are taken from `dvc_dir`, as DVC takes them.

    Raises:
        BadData: an unreadable or malformed file, or a cache type that DVC does not know.
    """
    return build_config(read_sections(dvc_dir), dvc_dir)


def read_sections(dvc_dir: Path) -> Sections:
    """The two files merged, ``config.local`` winning key by key."""
    merged: Sections = {}
    for name in ("config", "config.local"):
        for section, settings in read_file(dvc_dir / name).items():
            merged.setdefault(section, {}).update(settings)
    return merged


def read_file(path: Path) -> Sections:
    """One config file's sections; an absent file has none."""
    try:
        return parse_config(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise BadData(f"cannot read {path}: {exc}") from exc


def build_config(sections: Sections, dvc_dir: Path) -> DvcConfig:
    """The settings that `sections` mean for a repo whose ``.dvc`` is `dvc_dir`."""
    cache, core = sections.get("cache", {}), sections.get("core", {})
    types = (
        tuple(part.strip(" '\"") for part in cache.get("type", "").split(",") if part.strip()) or DEFAULT_CACHE_TYPES
    )
    unknown = [kind for kind in types if kind not in CACHE_TYPES]
    if unknown:
        raise BadData(f"cache.type {unknown[0]!r} in {dvc_dir}: expected {', '.join(CACHE_TYPES)}")
    remotes = {
        name.partition(" ")[2].strip("\"'"): settings
        for name, settings in sections.items()
        if name.startswith("remote ")
    }
    return DvcConfig(
        cache_dir=_absolute(cache["dir"], dvc_dir) if cache.get("dir") else None,
        cache_types=types,
        shared=cache.get("shared", "").lower() == "group",
        remotes=remotes,
        default_remote=core.get("remote", ""),
        autostage=core.get("autostage", "").lower() in ("true", "yes", "on", "1"),
    )


def _absolute(path: str, dvc_dir: Path) -> Path:
    return Path(os.path.normpath(dvc_dir.absolute() / Path(path).expanduser()))  # not resolve(): DVC keeps symlinks


def remote_settings(dvc_dir: Path, *, trusted: bool) -> Sections:
    """What of `dvc_dir`'s config matters for reaching remotes, relative folders made absolute.

    Unless `trusted`, nothing counts of the shared ``config`` but the remotes' URLs and ``core.remote``: it may have
    come by fetch, and other settings can run commands.  ``config.local`` is the user's own and counts whole.
    """
    kept: Sections = {}
    for name in ("config", "config.local"):
        for section, settings in read_file(dvc_dir / name).items():
            remote = section.startswith("remote ")
            if not remote and section != "core":
                continue
            safe = {"url"} if remote else {"remote"}
            for key, value in settings.items():
                if trusted or name == "config.local" or key in safe:
                    kept.setdefault(section, {})[key] = _absolute_url(value, dvc_dir) if key == "url" else value
    return kept


def remote_names(sections: Sections) -> list[str]:
    """The remotes, the default one first; those without a URL are left out."""
    config = build_config(sections, Path())
    names = [name for name, settings in config.remotes.items() if settings.get("url")]
    return sorted(names, key=lambda name: name != config.default_remote)


def format_config(sections: Sections) -> str:
    """`sections` as the text of a DVC config file."""
    lines = []
    for section, settings in sections.items():
        lines.append(f"['{section}']" if '"' in section else f"[{section}]")
        lines += [f"    {key} = {_quote(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def _quote(value: str) -> str:
    if not any(mark in value for mark in "\"',#"):
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'


def _absolute_url(url: str, dvc_dir: Path) -> str:
    return url if "://" in url else str(_absolute(url, dvc_dir))
