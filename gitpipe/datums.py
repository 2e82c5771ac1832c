"""From a pipeline and its input commits to its datums: what a job runs on, and what it is asked about later.

Knows how listings are read; how an input cuts them is the business of `gitpipe.inputs`.
"""

from __future__ import annotations

from collections.abc import Iterable

from gitpipe.blobs import BlobStore
from gitpipe.commit import CommitRef, Listing, git_branch
from gitpipe.datatree import read_listing
from gitpipe.datum import Datum
from gitpipe.inputs import Pfs, Read, datums
from gitpipe.pipelines import Pipeline
from gitpipe.repo import Repo


def cut(repo: Repo, blobs: BlobStore, pipeline: Pipeline, inputs: Iterable[CommitRef]) -> dict[str, Datum]:
    """Datum id -> datum, in the input's order; the same datum twice (a union may say so) is one.

    Args:
        inputs: a commit of each branch that the pipeline reads.

    Raises:
        BadData: a listing is malformed, or neither here nor on a remote.
    """
    digest = pipeline.digest
    found: dict[str, Datum] = {}
    pieces: dict[int, str] = {}
    rows = list(
        datums(pipeline.spec.input, reader(repo, blobs, inputs))
    )  # all at once: `pieces` knows the parts by their address
    for datum in rows:
        found.setdefault(datum.id(digest, pieces), datum)
    return found


def reader(repo: Repo, blobs: BlobStore, inputs: Iterable[CommitRef]) -> Read:
    """What `gitpipe.inputs.datums` reads commits with; each listing is read once, when it is first asked for.

    Args:
        inputs: a commit of each branch that is read.
    """
    commits = {ref.branch: ref for ref in inputs}
    listings: dict[str, Listing] = {}

    def read(leaf: Pfs) -> tuple[CommitRef, Listing]:
        branch = git_branch(leaf.repo, leaf.branch)
        if branch not in listings:
            listings[branch] = read_listing(repo, blobs, commits[branch].sha)
        return commits[branch], listings[branch]

    return read


def describe(datum: Datum) -> str:
    """A datum in few words: ``attributes:/1.csv, model:/``."""
    return ", ".join(f"{i.name}:{i.match}" for i in datum.inputs)
