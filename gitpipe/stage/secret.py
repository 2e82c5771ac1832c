"""Secrets of a stage: kept out of what it prints, and put into its sandbox as files that exist in memory only."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from gitpipe.stage import MAX_LOG, Secret

MASK = b"***"
MIN_SIZE = 4
"""Bytes; less is found everywhere, by chance."""
_CUT = re.compile(rb"(\n\[\.\.\. \d+ bytes left out \.\.\.\]\n)")  # as `agent.Log` writes it


class Redactor:
    """Replaces every occurrence of a secret, and of each line of it, by ``***``."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        found = {text.strip() for each in secrets for text in (each.value, *each.value.splitlines())}
        self._texts = sorted((text for text in found if len(text) >= MIN_SIZE), key=lambda text: (-len(text), text))
        self._pattern = re.compile(b"|".join(map(re.escape, self._texts)))

    def log(self, log: bytes) -> bytes:
        """A log, in which a secret may also have been cut in two."""
        if not self._texts:
            return log
        pieces = _CUT.split(log)
        for index in range(0, len(pieces), 2):
            piece = self._pattern.sub(MASK, pieces[index])
            if index:
                piece = self._without_end_of_secret(piece)
            if index + 1 < len(pieces) or len(log) >= MAX_LOG:
                piece = self._without_begin_of_secret(piece)
            pieces[index] = piece
        return b"".join(pieces)

    @property
    def longest(self) -> int:
        """Bytes of the longest secret."""
        return max(map(len, self._texts), default=0)

    def part(self, data: bytes, cut: bool) -> tuple[bytes, bytes]:
        """(what may be shown, the rest, which may be the begin of a secret); `cut`: something was left out before."""
        if not self._texts:
            return data, b""
        end = len(data)
        for text in self._texts:
            places = _places(data, text[:1], max(0, len(data) - len(text) + 1))
            end = min(end, next((start for start in places if text.startswith(data[start:])), end))
        for found in self._pattern.finditer(data):
            if found.start() < end < found.end():  # the begin of one overlaps the end of another
                end = found.start()
        shown = self._pattern.sub(MASK, data[:end])
        return self._without_end_of_secret(shown) if cut else shown, data[end:]

    def rest(self, data: bytes, cut: bool) -> bytes:
        """What `part` held back; `cut`: something was left out after it."""
        if not self._texts:
            return data
        shown = self._pattern.sub(MASK, data)
        return self._without_begin_of_secret(shown) if cut else shown

    def text(self, text: str) -> str:
        """The same for a message."""
        if not self._texts:
            return text
        return self._pattern.sub(MASK, text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def _without_begin_of_secret(self, piece: bytes) -> bytes:
        """`piece` without the begin of a secret at its end."""
        for text in self._texts:
            for start in _places(piece, text[:1], max(0, len(piece) - len(text) + 1)):
                if text.startswith(piece[start:]):
                    return piece[:start] + MASK
        return piece

    def _without_end_of_secret(self, piece: bytes) -> bytes:
        """`piece` without the end of a secret at its begin."""
        for text in self._texts:
            for end in range(min(len(text) - 1, len(piece)), 0, -1):
                if piece[end - 1] == text[-1] and text.endswith(piece[:end]):
                    return MASK + piece[end:]
        return piece


class Stream:
    """What comes bit by bit, without secrets: the begin of one is held back until it is seen how it goes on."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, data: bytes, skipped: int = 0) -> bytes:
        """What may be shown now that `data` has come, before which so many bytes were left out."""
        before = self.end(cut=True) + b"\n[... %d bytes left out ...]\n" % skipped if skipped else b""
        shown, self._held = self._redactor.part(self._held + data, bool(skipped))
        return before + shown

    def end(self, cut: bool = False) -> bytes:
        """What was held back, as nothing follows it; with `cut` something did that was left out."""
        held, self._held = self._held, b""
        return self._redactor.rest(held, cut)


def _places(piece: bytes, first: bytes, start: int) -> Iterator[int]:
    while (start := piece.find(first, start)) >= 0:
        yield start
        start += 1


def environment(secrets: Iterable[Secret]) -> dict[str, str]:
    """The variables that hold secrets."""
    return {each.env_var: os.fsdecode(each.value) for each in secrets if each.env_var}


def folders(secrets: Iterable[Secret]) -> list[str]:
    """The folders in which secrets appear as files, really: a parent before what is in it.

    Links among the folders of the host (``/var/run``) are followed here, since bubblewrap would not follow them.
    """
    return sorted({os.path.realpath(os.path.dirname(each.path)) for each in secrets if each.path})


@contextlib.contextmanager
def mounts(secrets: Iterable[Secret]) -> Iterator[tuple[list[str], list[int]]]:
    """Arguments of bubblewrap that make the files appear, and the file descriptors that it reads them from.

    The values are in no argument, no environment, and on no disk.
    """
    files = {each.path: each.value for each in secrets if each.path}
    argv: list[str] = []
    for folder in folders(secrets):
        argv += ["--tmpfs", folder]
    with contextlib.ExitStack() as opened:
        numbers = []
        for path, value in files.items():
            number = os.memfd_create("gitpipe", os.MFD_CLOEXEC)
            opened.callback(os.close, number)
            with os.fdopen(os.dup(number), "wb") as file:
                file.write(value)
            os.lseek(number, 0, os.SEEK_SET)
            real = f"{os.path.realpath(os.path.dirname(path))}/{os.path.basename(path)}"
            argv += ["--perms", "0400", "--file", str(number), real]
            numbers.append(number)
        yield argv, numbers
