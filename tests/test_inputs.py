"""How inputs cut listings into datums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.commit import CommitRef, Listing, git_branch
from gitpipe.datum import Datum, InputFiles
from gitpipe.errors import BadName, BadSpec
from gitpipe.inputs import Cron, Cross, Group, Input, Join, Pfs, Read, Trigger, Union, datums, from_dict

REPOS = {
    "attributes": ("1.csv", "2.csv"),
    "model": ("model.jld", "vocab/words"),
    "empty": (),
    "left": ("a-1", "a-2", "b-1"),
    "right": ("x.a", "x.c"),
}


def reader(repos: Mapping[str, tuple[str, ...]] = REPOS) -> Read:
    def read(leaf: Pfs) -> tuple[CommitRef, Listing]:
        branch = git_branch(leaf.repo, leaf.branch)
        return CommitRef(branch, "0" * 40), {path: f"{abs(hash(path)):032x}"[:32] for path in sorted(repos[branch])}

    return read


def cut(given: Input) -> list[list[str]]:
    return [[f"{i.name}:{i.match}" for i in datum.inputs] for datum in datums(given, reader())]


ATTRIBUTES = Pfs("", "attributes", glob="/*")
MODEL = Pfs("", "model")
EMPTY = Pfs("", "empty")


def test_pfs_gives_a_datum_a_match() -> None:
    assert cut(ATTRIBUTES) == [["attributes:/1.csv"], ["attributes:/2.csv"]]
    assert cut(MODEL) == [["model:/"]]
    assert cut(EMPTY) == []


def test_pfs_hands_its_settings_on() -> None:
    leaf = Pfs("m", "model", "master", "/(*).jld", lazy=True, empty_files=True, join_on="$1", group_by="g-${1}")
    ((part,),) = leaf.cut(reader())
    assert (part.name, part.match, part.lazy, part.empty_files) == ("m", "/model.jld", True, True)
    assert (part.join_on, part.group_by) == ("model", "g-model")
    assert part.commit == CommitRef("model", "0" * 40)
    assert [path for path, _ in part.files] == ["model.jld"]


def test_a_branch_of_a_repo_is_read_from_its_git_branch() -> None:
    leaf = Pfs("", "training", "staging")
    ((part,),) = leaf.cut(reader({"training@staging": ("x",)}))
    assert part.commit.branch == "training@staging"
    assert leaf.describe() == "training@staging:/"


def test_cross_is_every_combination() -> None:
    pair = Cross((ATTRIBUTES, MODEL))
    assert cut(pair) == [["attributes:/1.csv", "model:/"], ["attributes:/2.csv", "model:/"]]
    assert pair.describe() == "(attributes:/* ⨯ model:/)"
    assert [leaf.repo for leaf in pair.leaves()] == ["attributes", "model"]


def test_an_empty_side_of_a_cross_gives_nothing() -> None:
    assert cut(Cross((ATTRIBUTES, EMPTY))) == cut(Cross((EMPTY, ATTRIBUTES))) == []


def test_a_cross_does_not_list_its_first_side_before_it_is_needed() -> None:
    many = reader({"many": tuple(f"{n:05}" for n in range(10_000)), "model": ("m",)})
    rows = Cross((Pfs("", "many", glob="/*"), MODEL)).cut(many)
    assert next(rows)[0].match == "/00000"


def test_union_takes_one_side_at_a_time() -> None:
    both = Union((ATTRIBUTES, Pfs("", "model", glob="/*")))
    assert cut(both) == [["attributes:/1.csv"], ["attributes:/2.csv"], ["model:/model.jld"], ["model:/vocab"]]
    assert both.describe() == "(attributes:/* ∪ model:/*)"


def test_union_gives_the_same_datum_once() -> None:
    assert cut(Union((ATTRIBUTES, Pfs("", "attributes", glob="/1*")))) == [["attributes:/1.csv"], ["attributes:/2.csv"]]


def left(outer: bool = False) -> Pfs:
    return Pfs("", "left", glob="/(*)-*", join_on="$1", group_by="$1", outer_join=outer)


def right(outer: bool = False) -> Pfs:
    return Pfs("", "right", glob="/x.(*)", join_on="$1", group_by="$1", outer_join=outer)


def test_join_crosses_what_shares_a_key() -> None:
    assert cut(Join((left(), right()))) == [["left:/a-1", "right:/x.a"], ["left:/a-2", "right:/x.a"]]


def test_outer_join_keeps_what_has_no_partner() -> None:
    joined = [["left:/a-1", "right:/x.a"], ["left:/a-2", "right:/x.a"]]
    assert cut(Join((left(outer=True), right()))) == [*joined, ["left:/b-1"]]
    assert cut(Join((left(outer=True), right(outer=True)))) == [*joined, ["left:/b-1"], ["right:/x.c"]]


def test_group_puts_all_files_of_a_key_into_one_datum() -> None:
    assert cut(Group((left(), right()))) == [["left:/a-1", "left:/a-2", "right:/x.a"], ["left:/b-1"], ["right:/x.c"]]


def test_group_of_a_join() -> None:
    assert cut(Group((Join((left(), right())),))) == [["left:/a-1", "right:/x.a", "left:/a-2", "right:/x.a"]]


@pytest.mark.parametrize(
    "given",
    [
        ATTRIBUTES,
        Pfs("m", "model", "staging", "/(*)", lazy=True, empty_files=True, join_on="$1", outer_join=True, group_by="$1"),
        Cross((ATTRIBUTES, Union((MODEL, EMPTY)))),
        Cross((ATTRIBUTES, Cron("tick", "p_tick", spec="@daily", start="2026-01-01T00:00:00Z", overwrite=True))),
        Pfs("a", "a", "p-trigger-1", trigger=Trigger("staging", "1MB", 3, "@daily", True)),
        Group((Join((left(), right())), Pfs("third", "third", glob="/(*)", group_by="$1"))),
    ],
)
def test_to_dict_and_back(given: Input) -> None:
    assert from_dict(given.to_dict()) == given


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Cross((MODEL, Pfs("model", "other"))), "named 'model'"),
        (lambda: Cross((Union((MODEL, EMPTY)), MODEL)), "named 'model'"),
        (lambda: Pfs("", "out"), "cannot be named 'out'"),
        (lambda: Pfs("a b", "model"), "input name 'a b'"),
        (lambda: Pfs("", "a/b"), "repo name 'a/b'"),
        (lambda: Pfs("", "model", "a..b"), "branch name 'a..b'"),
        (lambda: Pfs("", "model", "-x"), "branch name '-x'"),
        (lambda: Pfs("", "model", glob="/["), "glob '/['"),
        (lambda: Pfs("", "model", glob="/*", join_on="$1"), "refers to $1"),
        (lambda: Pfs("", "model", glob="/(*)", group_by="$2"), "has 1 group in round brackets"),
        (lambda: Join((MODEL, left())), "join_on"),
        (lambda: Group((MODEL,)), "group_by"),
        (lambda: from_dict({"spout": {}}), "unknown kind of input 'spout'"),
        (lambda: from_dict({}), "exactly one of"),
        (lambda: from_dict({"cross": []}), "a cross of no inputs"),
    ],
)
def test_what_does_not_go_together_is_refused(make: object, problem: str) -> None:
    with pytest.raises((BadSpec, BadName)) as error:
        make()  # type: ignore[operator]
    assert problem in str(error.value)


def test_sides_of_a_union_may_share_a_name() -> None:
    assert Union((MODEL, Pfs("model", "other"))).names() == {"model"}


def test_the_identity_of_a_datum_is_in_its_files_not_its_commit() -> None:
    def read_at(sha: str, md5: str) -> Read:
        return lambda leaf: (CommitRef(leaf.repo, sha), {"x": md5})

    def datum_id(read: Read, transform: str = "t") -> str:
        (datum,) = datums(MODEL, read)
        return datum.id(transform)

    one = datum_id(read_at("0" * 40, "a" * 32))
    assert one == datum_id(read_at("1" * 40, "a" * 32))
    assert len({one, datum_id(read_at("0" * 40, "b" * 32)), datum_id(read_at("0" * 40, "a" * 32), "u")}) == 3


names = st.text(st.characters(codec="utf-8"), max_size=8)


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(names, st.integers(0, 2**128 - 1)), max_size=3), st.booleans(), names, names, names
        ),
        min_size=1,
        max_size=3,
    )
)
def test_the_identity_is_the_hash_of_a_json_array(
    parts: list[tuple[list[tuple[str, int]], bool, str, str, str]],
) -> None:
    """The format that `Datum.id` documents, against the encoder of the standard library."""
    inputs = tuple(
        InputFiles(
            f"n{k}", CommitRef("b", "0" * 40), match, tuple((p, f"{n:032x}") for p, n in files), empty, False, on, by
        )
        for k, (files, empty, match, on, by) in enumerate(parts)
    )
    array = [[i.name, i.files, i.empty_files, i.match, i.join_on, i.group_by] for i in inputs]
    text = json.dumps(["ab12", array], ensure_ascii=True, separators=(",", ":"))
    assert Datum(inputs).id("ab12", {}) == hashlib.sha256(text.encode()).hexdigest()
