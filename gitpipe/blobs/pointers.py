"""``.dvc`` files and the other small files of a data branch, as text.  Knows the formats; reads and writes no files."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gitpipe.errors import BadData

OID = re.compile(r"[0-9a-f]{32}(?:\.dir)?\Z")

_NULL = ("", "null", "~")

CONFIG = b""
DVC_GITIGNORE = b"/config.local\n/tmp\n/cache\n"
DVCIGNORE = (
    b"# Add patterns of files dvc should ignore, which could improve\n"
    b"# the performance. Learn more at\n"
    b"# https://dvc.org/doc/user-guide/dvcignore\n"
)
GITIGNORE = b"/data\n"

_PLAIN = re.compile(
    r"outs:\n- md5: [0-9a-f]{32}(?:\.dir)?\n(?:  size: \d+\n)?(?:  nfiles: \d+\n)?"
    r"  hash: md5\n  path: (?P<path>[^\n]+)\n\Z"
)


@dataclass(frozen=True, slots=True)
class Out:
    """One file or folder that a ``.dvc`` file tracks.

    Attributes:
        path: relative to the folder of the ``.dvc`` file (its ``wdir`` taken in), POSIX.
        md5: 32 hex digits, with ``.dir`` for a folder.
        size, nfiles: bytes and number of files, None where the pointer does not say.
        isdir: a folder, whose listing is the object `md5`.
        legacy: written by DVC 2: text files are hashed with their line ends made ``\\n``.
    """

    path: str
    md5: str
    size: int | None
    nfiles: int | None
    isdir: bool
    legacy: bool = False


def read_pointer(text: str | bytes, where: str = "a .dvc file") -> list[Out]:
    """What a ``.dvc`` file of DVC 2 or 3 tracks by md5; outs without one (not downloaded, other clouds) are left out.

    Raises:
        BadData: not YAML, or not the shape of a ``.dvc`` file.
    """
    document = _load(text, where)
    outs = document.get("outs") or []
    wdir = document.get("wdir", ".")
    if not isinstance(outs, list) or not isinstance(wdir, str):
        raise BadData(f"{where} is malformed: `outs` is to be a list, `wdir` a path")
    return [found for out in outs for found in _read_out(out, wdir, where)]


def _load(text: str | bytes, where: str) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped,unused-ignore]

    # Scalars stay text: DVC writes YAML 1.2, in which a file may be called `yes`; PyYAML's other loaders read 1.1.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        document = yaml.load(text, Loader=loader)  # builds text, lists and mappings only
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise BadData(f"{where} is not YAML: {' '.join(str(exc).split())[:120]}") from None
    if document in (None, ""):
        return {}
    if not isinstance(document, dict):
        raise BadData(f"{where} is malformed: expected a mapping with `outs`")
    return document


def _read_out(out: Any, wdir: str, where: str) -> Iterator[Out]:
    if not isinstance(out, dict) or not isinstance(out.get("path"), str) or not out["path"]:
        raise BadData(f"{where} is malformed: each of `outs` needs a `path`")
    path = posixpath.normpath(posixpath.join(wdir, out["path"]))
    files = out.get("files")
    if isinstance(files, list):  # a cloud-versioned folder lists its files in the pointer itself
        for entry in files:
            if not isinstance(entry, dict) or not isinstance(entry.get("relpath"), str):
                raise BadData(f"{where} is malformed: each of `files` needs a `relpath`")
            if entry.get("md5", "") not in _NULL:
                yield _out(f"{path}/{entry['relpath']}", entry, "hash" not in out, where)
    elif out.get("md5", "") not in _NULL:
        yield _out(path, out, "hash" not in out, where)


def _out(path: str, entry: dict[str, Any], legacy: bool, where: str) -> Out:
    md5 = entry["md5"]
    if not isinstance(md5, str) or not OID.match(md5):
        raise BadData(f"{where} is malformed: bad md5 {md5!r} for {path!r}")
    return Out(path, md5, _count(entry, "size", where), _count(entry, "nfiles", where), md5.endswith(".dir"), legacy)


def _count(entry: dict[str, Any], key: str, where: str) -> int | None:
    value = entry.get(key)
    if value is None or value in _NULL:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,18}", value):
        raise BadData(f"{where} is malformed: {key} {value!r} is not a number")
    return int(value)


def write_pointer(path: str, oid: str, size: int | None, nfiles: int | None, old: str | bytes | None = None) -> bytes:
    """The ``.dvc`` file for `path`, byte for byte what DVC writes.

    Args:
        path: what is tracked, relative to the pointer (``data``).
        oid: its md5, with ``.dir`` for a folder.
        size: bytes; None where not known, then the field is left out.
        nfiles: number of files of a folder, None for a file.
        old: the pointer that is replaced; its other fields (``desc``, ``meta``, ``remote`` …) and comments are kept.

    Raises:
        BadData: a malformed `old`.
    """
    text = old.decode("utf-8", "replace") if isinstance(old, bytes) else old
    plain = _PLAIN.match(text) if text else None
    if text and text.strip() and not (plain and plain["path"] == _scalar(path)):
        return _update(text, path, {"md5": oid, "size": size, "nfiles": nfiles})
    lines = ["outs:", f"- md5: {oid if oid.endswith('.dir') else _scalar(oid)}"]
    lines += [f"  {key}: {value}" for key, value in (("size", size), ("nfiles", nfiles)) if value is not None]
    lines += ["  hash: md5", f"  path: {_scalar(path)}", ""]
    return "\n".join(lines).encode()


def _scalar(text: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in _YAML_WORDS:
        return text
    return _dump({"x": text}).removeprefix("x: ").rstrip("\n")


_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _update(text: str, path: str, fields: dict[str, Any]) -> bytes:
    """Set `fields` in the out named `path` of an existing pointer, all else staying: DVC's own round trip."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="rt").load(text)
        outs = document.get("outs") or []
        out = next((out for out in outs if out.get("path") == path), None)
    except (YAMLError, ValueError, AttributeError, RecursionError) as exc:
        raise BadData(f"{path}.dvc is malformed: {' '.join(str(exc).split())[:120]}") from None
    if out is None:
        return write_pointer(path, fields["md5"], fields["size"], fields["nfiles"])
    for key in ("files", "etag", "checksum", "version_id", "isexec"):
        out.pop(key, None)
    for key, value in {**fields, "hash": "md5"}.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = value
    return _dump(document).encode()


def _dump(document: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
