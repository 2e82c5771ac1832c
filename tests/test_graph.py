"""Who reads whom."""

from __future__ import annotations

import pytest

from gitpipe.errors import BadSpec
from gitpipe.graph import downstream, order, sources, upstream
from gitpipe.inputs import Cross, Pfs
from gitpipe.spec import Spec, Transform


def pipelines(**reads: str) -> dict[str, Spec]:
    """``b="a c@x"``: pipeline b reads repo a, and branch x of repo c."""
    out = {}
    for name, text in reads.items():
        leaves = (Pfs("", *each.split("@")) for each in text.split())
        out[name] = Spec(name, Transform(cmd=("true",)), Cross(tuple(leaves)))
    return out


DIAMOND = pipelines(d="b c", c="a", b="a", a="training", other="training@staging", audit="a@debug")


def test_order_puts_each_after_what_it_reads_and_else_goes_by_name() -> None:
    assert order(DIAMOND) == ["a", "audit", "b", "c", "d", "other"]
    assert order(dict(reversed(DIAMOND.items()))) == order(DIAMOND)
    assert order({}) == []


def test_upstream_and_downstream_are_transitive() -> None:
    assert upstream(DIAMOND, "d") == {"a", "b", "c"}
    assert downstream(DIAMOND, "a") == {"b", "c", "d"}
    assert downstream(DIAMOND, "training") == {"a", "b", "c", "d"}
    assert downstream(DIAMOND, "training@staging") == {"other"}
    assert upstream(DIAMOND, "training") == downstream(DIAMOND, "d") == set()


def test_sources_are_read_and_not_owned() -> None:
    assert sources(DIAMOND) == {"training", "training@staging", "a@debug"}


@pytest.mark.parametrize(
    ("specs", "cycle"),
    [
        (pipelines(a="b", b="a"), "a → b → a"),
        (pipelines(a="c", b="a", c="b", d="a x"), "a → b → c → a"),
        (pipelines(x="x"), "x → x"),
        (pipelines(a="z", z="y", y="z"), "y → z → y"),
    ],
)
def test_a_cycle_is_named_in_the_direction_of_the_data(specs: dict[str, Spec], cycle: str) -> None:
    with pytest.raises(BadSpec, match=f": {cycle};"):
        order(specs)


def test_a_long_chain_needs_no_recursion() -> None:
    chain = pipelines(**{f"p{n:04}": f"p{n - 1:04}" if n else "start" for n in range(3000)})
    assert order(chain) == sorted(chain)
    assert len(downstream(chain, "start")) == 3000
