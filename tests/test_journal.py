"""The journal is disposable (I1): deleted, damaged or of another time, it is made anew and nothing breaks."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from gitpipe.journal import Cursor, JobState, Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.sqlite")


def add(journal: Journal, *names: str) -> int:
    with journal.transaction():
        return journal.add_set("cause", {"a": "1"}, [(n, "v") for n in names], replay=False)


def test_jobs_and_what_stands_at_a_set(journal: Journal) -> None:
    first, second = add(journal, "p", "q"), add(journal, "p")
    p1, q1, p2 = journal.unfinished()
    assert (p1.set_id, q1.set_id, p2.set_id) == (first, first, second)
    assert {n: j.seq for n, j in journal.first_unfinished().items()} == {"p": p1.seq, "q": q1.seq}
    journal.update_job(p1.seq, state=JobState.SUCCESS, output="one", notes=["n"], inputs=["a@1"])
    journal.update_job(p2.seq, state=JobState.FAILED, reason="why")
    found = journal.job(p1.seq)
    assert found and (found.state, found.notes, found.inputs) == (JobState.SUCCESS, ("n",), ("a@1",))
    assert journal.last_good("p", first) == journal.last_good("p", second) == "one"
    assert journal.last_good("p", first - 1) is journal.last_good("q", second) is None
    assert [j.seq for j in journal.unfinished()] == [q1.seq]
    journal.drop_job(q1.seq)
    journal.forget_pipeline("p")
    assert journal.jobs() == [] and journal.newest_set() == second and journal.sources(second) == {"a": "1"}


def test_the_cursor_comes_back(journal: Journal) -> None:
    assert journal.cursor() is None
    cursor = Cursor({"a": "1"}, {"p": "v"}, {"main": "2"})
    journal.set_cursor(cursor)
    assert journal.cursor() == Journal(journal.path).cursor() == cursor


def test_a_datum_that_a_commit_holds_stays_so_until_the_branch_is_another(journal: Journal) -> None:
    journal.remember_datums("p", [("d", "one")], committed=True)
    journal.remember_datums("p", [("d", "two"), ("e", "three")], committed=False)
    assert journal.known_datums("p", ["d", "e", "f"]) == {"d": ("two", True), "e": ("three", False)}
    assert journal.known_datums("q", ["d"]) == {}
    many = [(f"{n:04}", "line") for n in range(1200)]
    journal.remember_datums("p", many, committed=False)
    assert len(journal.known_datums("p", [d for d, _ in many])) == 1200
    journal.set_indexed_head("p", "head")
    journal.uncommit("p")
    assert journal.known_datums("p", ["d"]) == {"d": ("two", False)} and journal.indexed_head("p") is None


def test_a_deleted_journal_is_noticed_and_its_jobs_are_not_taken_for_others(journal: Journal) -> None:
    """I1: also where another process made a new one before it was noticed; ids of the two never meet."""
    add(journal, "p")
    (old,) = journal.unfinished()
    assert not journal.vanished()
    for path in journal.path.parent.iterdir():
        path.unlink()
    assert journal.vanished()
    other = Journal(journal.path)  # another process
    assert journal.vanished() and not other.vanished()
    journal.reopen()
    assert not journal.vanished() and not other.vanished()
    assert journal.cursor() is None and journal.jobs() == []
    newer = add(other, "p", "q")
    journal.update_job(old.seq, state=JobState.SUCCESS, output="stale")
    assert newer > old.set_id
    assert [j.state for j in journal.jobs()] == [JobState.QUEUED] * 2


@pytest.mark.parametrize("content", [b"not a database at all, and long enough to be read", b""])
def test_a_damaged_journal_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    assert add(Journal(path), "p")
    assert not content or (tmp_path / "journal.sqlite.damaged").read_bytes() == content


def test_a_journal_of_another_schema_is_set_aside(journal: Journal) -> None:
    add(journal, "p")
    journal.set_meta("schema", "999")
    assert Journal(journal.path).jobs() == []


def test_a_transaction_is_all_or_nothing_and_threads_do_not_disturb_each_other(journal: Journal) -> None:
    with pytest.raises(KeyError), journal.transaction():
        journal.add_set("c", {}, [("p", "v")], replay=False)
        raise KeyError
    assert journal.jobs() == []

    def work(name: str) -> None:
        for n in range(20):
            journal.remember_datums(name, [(str(n), "line")], committed=False)

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(journal.known_datums(f"p{n}", map(str, range(20)))) for n in range(4)] == [20] * 4


def test_readers_do_not_wait_for_a_writer(journal: Journal) -> None:
    with journal.transaction():
        journal.set_meta("k", "new")
        reader = sqlite3.connect(journal.path, timeout=0)
        assert reader.execute("SELECT COUNT(*) FROM jobs").fetchone() == (0,)
        reader.close()
