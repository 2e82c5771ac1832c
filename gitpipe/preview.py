"""What a spec would do, before it does it: which datums it cuts the data into, and how many of them are new.

Answers ``create-pipeline --dry-run`` and ``list-datum -f``; changes nothing but git objects that no ref names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO

from gitpipe import datumindex
from gitpipe.blobs import BlobStore
from gitpipe.catalog import Catalog, Plan
from gitpipe.commit import CommitRef
from gitpipe.datatree import is_data
from gitpipe.datum import Datum
from gitpipe.datums import cut, describe, reader
from gitpipe.errors import BadSpec, NotFound
from gitpipe.graph import reads
from gitpipe.inputs import datums
from gitpipe.journal import Journal
from gitpipe.pipelines import Pipeline
from gitpipe.repo import HEADS, Repo
from gitpipe.stage.container import Containers
from gitpipe.views import DatumInfo, DatumPreview

MOST = 5_000_000
"""Datums that are counted one by one; a cross of large repos has more than anybody waits for."""
LOOKED_UP = 200_000
"""Datums that are compared with what ran before, as each needs its identity for that."""


class Preview:
    """Reads what is there, for pipelines that are not yet."""

    def __init__(
        self, repo: Repo, blobs: BlobStore, journal: Journal, catalog: Catalog, containers: Containers
    ) -> None:
        self.repo, self.blobs, self.journal, self.catalog, self.containers = repo, blobs, journal, catalog, containers

    def create(self, files: Sequence[str], *, stdin: BinaryIO | None = None) -> list[str]:
        """What ``create-pipeline`` would do, a line each; raises what it would."""
        return self._lines(self.catalog.plan_create(files, stdin=stdin))

    def update(
        self, files: Sequence[str], *, reprocess: bool = False, create: bool = False, stdin: BinaryIO | None = None
    ) -> list[str]:
        """What ``update-pipeline`` would do, a line each; raises what it would."""
        return self._lines(self.catalog.plan_update(files, reprocess=reprocess, create=create, stdin=stdin))

    def datums(
        self, files: Sequence[str], pipeline: str = "", limit: int | None = None, *, stdin: BinaryIO | None = None
    ) -> DatumPreview:
        """The first datums that a spec cuts the data into as it is now, and how many there are.

        Args:
            pipeline: which one, where the files hold several.
            limit: at most so many are given; None for all.

        Raises:
            BadSpec: no spec, or several and none chosen.
            NotFound: no pipeline of that name in the files, or a repo that it reads has no data.
        """
        plan = self.catalog.plan_update(files, create=True, stdin=stdin)
        found = [p for p in plan.pipelines if pipeline in ("", p.name)]
        names = ", ".join(p.name for p in plan.pipelines)
        if not found:
            raise NotFound(f"no pipeline {pipeline!r} in {', '.join(files)}: there is {names}")
        if len(found) > 1:
            raise BadSpec(f"{', '.join(files)} holds {len(found)} pipelines: name one of {names}")
        source = _Reader(self.repo, self.blobs, found[0])
        if source.without:
            raise NotFound(f"{source.without} has no data yet: put some there first, then its datums can be told")
        chosen = list(islice(source.rows(), limit))
        known = self._known(found[0])
        digest = self._in_force(found[0]).digest
        ids = [datum.id(digest, {}) for datum in chosen]
        done = known(ids)
        infos = [
            DatumInfo(i, "", "skipped" if i in done else "new", describe(datum))
            for i, datum in zip(ids, chosen, strict=True)
        ]
        count = len(chosen) if limit is None or len(chosen) < limit else source.count()
        return DatumPreview(tuple(infos), count, count >= MOST)

    def _lines(self, plan: Plan) -> list[str]:
        lines = [*plan.notes]
        for pipeline in plan.pipelines:
            lines.append(f"{pipeline.name}: would be {plan.word(pipeline.name)}; {self._outlook(pipeline)}")
        return lines

    def _outlook(self, pipeline: Pipeline) -> str:
        source = _Reader(self.repo, self.blobs, pipeline)
        if source.without:
            return f"{source.without} has no data yet"
        count = source.count()
        text = f"{count} datum{'' if count == 1 else 's'}"
        if count > LOOKED_UP:
            return f"more than {MOST} datums" if count >= MOST else text
        ids = cut(self.repo, self.blobs, self._in_force(pipeline), source.commits.values())
        done = len(self._known(pipeline)(list(ids)))
        return f"{text}: {len(ids) - done} to run, {done} to skip"

    def _in_force(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with what it would run in."""
        image = pipeline.spec.transform.container_image
        return replace(pipeline, image=self.containers.identity(image)) if image else pipeline

    def _known(self, pipeline: Pipeline) -> _Known:
        return _Known(self.repo, self.blobs, self.journal, pipeline)


class _Known:
    """Which datums a pipeline has finished before, as far as the output branch and the journal tell."""

    def __init__(self, repo: Repo, blobs: BlobStore, journal: Journal, pipeline: Pipeline) -> None:
        self.journal, self.name = journal, pipeline.name
        head = repo.ref(HEADS + pipeline.spec.output)
        self.lines = datumindex.standing(repo, blobs, head)[1] if head is not None else {}

    def __call__(self, ids: Sequence[str]) -> set[str]:
        return {i for i in ids if i in self.lines} | set(self.journal.known_datums(self.name, ids))


class _Reader:
    """The datums of a pipeline on the heads of the branches that it reads.

    Attributes:
        without: a branch that has no data, or "".
    """

    def __init__(self, repo: Repo, blobs: BlobStore, pipeline: Pipeline) -> None:
        self.input = pipeline.spec.input
        heads = {branch: repo.ref(HEADS + branch) for branch in sorted(reads(pipeline.spec))}
        self.commits = {branch: CommitRef(branch, sha) for branch, sha in heads.items() if sha}
        self._read = reader(repo, blobs, self.commits.values())
        absent = [b for b in heads if b not in self.commits or not is_data(repo, self.commits[b].sha)]
        self.without = absent[0] if absent else ""

    def rows(self) -> Iterator[Datum]:
        """Each datum, in the input's order."""
        return islice(datums(self.input, self._read), MOST)

    def count(self) -> int:
        """How many there are, at most `MOST`."""
        return sum(1 for _ in self.rows())
