"""Listings: what is refused, found at once or one by one, is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.commit import MD5, check_listing, check_path, folder_clash
from gitpipe.errors import BadData

PARTS = st.sampled_from(["a", "b", "", ".", "..", ".git", ".GIT", ".gitignore", "...", "a\0b", "é", "a.git"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
MD5S = st.sampled_from(["0" * 32, "f" * 32, "F" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n", ""])


def bad(listing: dict[str, str]) -> bool:
    """The rules, one by one."""
    try:
        for path in listing:
            check_path(path)
    except BadData:
        return True
    return not all(map(MD5.match, listing.values())) or folder_clash(listing) is not None


@given(st.dictionaries(PATHS, MD5S, max_size=4))
def test_a_listing_is_refused_for_each_of_its_parts(listing: dict[str, str]) -> None:
    if bad(listing):
        with pytest.raises(BadData):
            check_listing(listing)
    else:
        assert list(check_listing(listing).items()) == sorted(listing.items())
