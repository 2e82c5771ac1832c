"""A datum: the smallest unit of work, that is the input files which one run of the user's code may see.

Knows how a datum is named and identified; not how it is cut (`gitpipe.inputs`) nor run (`gitpipe.stage`).
"""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple

from gitpipe.commit import CommitRef


class InputFiles(NamedTuple):
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


class Datum(NamedTuple):
    """One combination of matches, one `InputFiles` an input (several for ``group``), in the spec's order."""

    inputs: tuple[InputFiles, ...]

    def id(self, transform: str, pieces: dict[int, str] | None = None) -> str:
        """The datum's identity, 64 hex digits: content of the inputs and of the transform, never commits or times.

        It is the SHA-256 of the JSON array ``[transform, [[name, [[path, md5], …], empty_files, match, join_on,
        group_by], …]]`` without blanks, in ASCII.

        Args:
            transform: the hex digest of all of the pipeline that may change a result (`Spec.transform_digest`).
            pieces: kept between calls, as a cross has the same `InputFiles` (of thousands of files, perhaps) in many
                datums: ``id(part)`` -> its part of the text.  The parts must stay alive as long.
        """
        known = {} if pieces is None else pieces
        texts = []
        for part in self.inputs:
            text = known.get(id(part))
            if text is None:
                text = known[id(part)] = _json(part)
            texts.append(text)
        return hashlib.sha256(f'["{transform}",[{",".join(texts)}]]'.encode()).hexdigest()


def _json(part: InputFiles) -> str:
    # By hand, since it is done 100,000 times where one file was added: a third of what the encoder of json takes.
    files = ",".join([f'[{quoted(path)},"{md5}"]' for path, md5 in part.files])
    empty = "true" if part.empty_files else "false"
    keys = f"{quoted(part.match)},{quoted(part.join_on)},{quoted(part.group_by)}"
    return f'["{part.name}",[{files}],{empty},{keys}]'
