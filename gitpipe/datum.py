"""A datum: the smallest unit of work, that is the input files which one run of the user's code may see.

Knows how a datum is named and identified; not how it is cut (`gitpipe.inputs`) nor run (`gitpipe.stage`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from gitpipe.commit import CommitRef


@dataclass(frozen=True, slots=True)
class InputFiles:
    """What one input contributes to a datum.

    ``match`` is the matched path as Pachyderm spells it: ``/`` for glob ``/``, else ``/`` + path (file or folder).
    ``files`` are (path below ``data/``, md5), sorted by path; they appear as ``/pfs/<name>/<path>``.
    """

    name: str
    commit: CommitRef
    match: str
    files: tuple[tuple[str, str], ...]
    empty_files: bool = False
    lazy: bool = False
    join_on: str = ""
    group_by: str = ""


@dataclass(frozen=True, slots=True)
class Datum:
    """One combination of matches, one `InputFiles` an input (several for ``group``), in the spec's order."""

    inputs: tuple[InputFiles, ...]

    def id(self, transform: str) -> str:
        """The datum's identity, 64 hex digits: content of the inputs and of the transform, never commits or times.

        Args:
            transform: the hex digest of all of the pipeline that may change a result (`Spec.transform_digest`).
        """
        parts = [[i.name, i.files, i.empty_files, i.match, i.join_on, i.group_by] for i in self.inputs]
        text = json.dumps([transform, parts], ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
