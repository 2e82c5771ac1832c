"""What a datum prints, in a file that others read while it runs.

The agent reports now and then (`gitpipe.stage.agent.Log.news`); a datum of a blink makes no file.  Whoever keeps the
log for good removes the file when it has all (`gitpipe.joblog`).
"""

from __future__ import annotations

import contextlib
import os

from gitpipe.stage.secret import Redactor, Stream

MAX_LIVE = 1 << 20
"""Bytes of such a file, which then begins anew."""
LONGEST_SECRET = 1 << 12
"""Bytes of a secret from which on nothing is shown early: a report might be no more than a part of it."""
NEW = ".new"
"""What the name of a file ends in that is not complete."""


class Live:
    """The file at `path`; without one nothing is wanted.  A disk that is full costs what would be shown, no more."""

    def __init__(self, path: str, redactor: Redactor) -> None:
        self.wanted = bool(path) and redactor.longest < LONGEST_SECRET
        self.begun = False
        self._path = path
        self._stream = Stream(redactor)

    def add(self, data: bytes, skipped: int = 0) -> None:
        """Take what was printed; so many bytes before it were left out."""
        self._write(self._stream.feed(data, skipped))

    def end(self) -> None:
        """Nothing follows."""
        if self.begun:
            self._write(self._stream.end())

    def _write(self, text: bytes) -> None:
        if not self.wanted:
            return
        try:
            if not self.begun:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
            elif os.path.getsize(self._path) > MAX_LIVE:
                with open(self._path + NEW, "wb") as file:
                    file.write(b"[... what was printed before is left out ...]\n" + text)
                os.replace(self._path + NEW, self._path)
                return
            with open(self._path, "ab" if self.begun else "wb", buffering=0) as file:
                self.begun = True
                file.write(text)
        except OSError:
            self.wanted = False
            if not self.begun:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
