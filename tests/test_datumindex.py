"""The datum index: what it says after any history of changes, what it costs, that it is reproducible."""

from __future__ import annotations

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from gitpipe import datumindex
from gitpipe.blobs.memory import MemoryStore
from gitpipe.commit import CommitRef
from gitpipe.datum import Datum, InputFiles
from tests.lab import Lab


def ident(n: int) -> str:
    return f"{n:064x}"


def line(n: int, text: str) -> str:
    datum = Datum((InputFiles("in", CommitRef("a", "a" * 40), f"/{n}", ((f"{n}", "0" * 32),)),))
    return datumindex.line_of(ident(n), datum, [(f"{n}", text * 32, 1)])


CHANGES = st.lists(st.dictionaries(st.integers(0, 12), st.sampled_from(["a", "b", None]), max_size=6), max_size=12)


@given(CHANGES)
@settings(max_examples=60, deadline=None)
def test_after_any_history_the_index_says_what_stands(changes: list[dict[int, str | None]]) -> None:
    """Also what is reproducible (I4): the same parents and changes give the same segments."""
    one, two = MemoryStore(), MemoryStore()
    listing: dict[str, str] = {}
    stands: dict[str, str] = {}
    for change in changes:
        added = {
            ident(n): line(n, text) for n, text in change.items() if text and stands.get(ident(n)) != line(n, text)
        }
        gone = [ident(n) for n, text in change.items() if text is None and ident(n) in stands]
        before = listing
        listing = datumindex.extend(one, before, added, gone)
        stands = {d: text for d, text in {**stands, **added}.items() if d not in gone}
        assert datumindex.state(one, listing) == stands
        for md5 in before.values():
            two.put_bytes(one.read(md5))
        assert datumindex.extend(two, before, dict(reversed(added.items())), gone[::-1]) == listing
        sizes = [len(one.read(md5).splitlines()) for _, md5 in sorted(listing.items())]
        assert all(a > 2 * b for a, b in itertools.pairwise(sizes))  # few: logarithmic in the datums


def test_the_cost_follows_the_change() -> None:
    """I10: one datum of 4,000 changed a thousand times writes far less than the whole index a time."""
    blobs = MemoryStore()
    listing = datumindex.extend(blobs, {}, {ident(n): line(n, "a") for n in range(4000)}, [])
    (whole,) = (blobs.size(md5) or 0 for md5 in listing.values())
    written = 0
    for n in range(200):
        before = set(listing.values())
        listing = datumindex.extend(blobs, listing, {ident(n): line(n, "b")}, [])
        written += sum(blobs.size(md5) or 0 for md5 in listing.values() if md5 not in before)
    assert written < whole
    assert len(listing) <= 12
    assert datumindex.state(blobs, listing)[ident(7)] == line(7, "b")


def test_the_index_travels_with_the_commit(lab: Lab) -> None:
    """File-level provenance: datum -> input files (branch, path, md5) -> output files, in a DVC-tracked folder."""
    lab.data("a", {"x": "1", "y": "1"})
    lab.pipeline("p", {"a": "/*"}, "cp /pfs/a/* /pfs/out")
    lab.run()
    project = lab.project
    listing = datumindex.segments(project.repo, project.blobs, lab.head("p"))
    records = [json.loads(text) for text in datumindex.state(project.blobs, listing).values()]
    one = "c4ca4238a0b923820dcc509a6f75849b"
    assert sorted((r["inputs"], r["outputs"]) for r in records) == [
        ([["a", "a", name, one]], [[name, one, 1]]) for name in "xy"
    ]
    assert all(len(r["datum"]) == 64 for r in records)
    assert datumindex.segments(project.repo, project.blobs, lab.head("a")) == {}
