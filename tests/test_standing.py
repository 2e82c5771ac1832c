"""What a job takes over from the output commit before it, and when it does not rely on that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gitpipe.blobs.pointers import read_pointer
from gitpipe.datatree import read_listing, write_tree
from gitpipe.repo import HEADS, RefUpdate, Signature
from gitpipe.standing import read_standing
from tests.lab import EPOCH, Lab


def pointer(lab: Lab, branch: str) -> tuple[int | None, int | None]:
    """(bytes, files) that ``data.dvc`` at the head of a branch says."""
    out = read_pointer(lab.git("show", f"{branch}:data.dvc") + "\n", "data.dvc")[0]
    return out.size, out.nfiles


def whole(lab: Lab, branch: str) -> bool:
    project = lab.project
    found = read_standing(project.repo, project.blobs, lab.head(branch), branch).whole
    project.repo.close()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_step_by_step_as_if_from_the_start(lab: Lab, seed: int) -> None:
    """I10: whatever comes, goes and comes back, the output is what the files now there give."""
    chances = random.Random(seed)
    files: dict[str, str] = {"0": "x"}
    lab.data("a", files)
    lab.pipeline("p", {"a": "/*"}, "for f in /pfs/a/*; do n=${f##*/}; cat $f $f > /pfs/out/$n-$(cat $f); done")
    for _ in range(8):
        lab.data("a", files)
        lab.run()
        wanted = {f"{name}-{text}": text * 2 for name, text in files.items()}
        assert lab.files("p") == wanted
        assert pointer(lab, "p") == (sum(map(len, wanted.values())), len(wanted)) and whole(lab, "p")
        for name in "012345":
            files.pop(name, None)
            if chances.random() < 0.6:
                files[name] = chances.choice(["x", "yy", "zzz"])
        files["keep"] = "k"


def test_a_clash_with_a_datum_that_stood_names_both(lab: Lab) -> None:
    lab.data("a", {"1": "same"})
    lab.pipeline("p", {"a": "/*"}, "cp /pfs/a/* /pfs/out/$(cat /pfs/a/*)")
    lab.run()
    lab.data("a", {"1": "same", "2": "same"})
    assert lab.ran() == ["p: failed datums a:/1 and a:/2 both write same: give them different names in /pfs/out"]
    lab.data("a", {"2": "same"})  # the one is gone, the other may have its place
    assert lab.ran() == ["p: 0 + 1 / 1 success"]
    lab.pipeline(
        "p", {"a": "/*"}, "mkdir -p /pfs/out/$(dirname $(cat /pfs/a/*)) && cp /pfs/a/* /pfs/out/$(cat /pfs/a/*)"
    )
    lab.data("a", {"1": "d"})
    assert lab.ran()[-1] == "p: 1 + 0 / 1 success"
    lab.data("a", {"1": "d", "2": "d/e"})
    assert lab.ran() == ["p: failed datum a:/1 writes the file d where datum a:/2 writes a folder"]


def test_what_a_person_changed_is_not_taken_over(lab: Lab) -> None:
    """An output commit that was amended by hand: its files are not what its index says."""
    lab.data("a", {"1": "1"})
    lab.pipeline("p", {"a": "/*"})
    lab.run()
    assert whole(lab, "p")
    project = lab.project
    repo, head = project.repo, lab.head("p")
    commit = repo.commit(head)
    listing = {**read_listing(repo, project.blobs, head), "foreign": project.blobs.put_bytes(b"foreign")}
    tree = write_tree(repo, project.blobs, dict(sorted(listing.items())), base=head)
    amended = repo.write_commit(tree, list(commit.parents), commit.message, Signature("Ada <ada@example.org>", EPOCH))
    assert repo.update_refs([RefUpdate(HEADS + "p", amended, head)], "test")
    assert lab.files("p") == {"1": "1", "foreign": "foreign"} and not whole(lab, "p")
    lab.data("a", {"1": "1", "2": "2"})
    lab.run()
    assert lab.files("p") == {"1": "1", "2": "2"} and whole(lab, "p")


def test_what_was_lost_is_made_again(lab: Lab) -> None:
    """I7: a blob that a ``dvc gc`` took is missed, not merely named again."""
    lab.data("a", {"1": "1", "2": "2"})
    lab.pipeline("p", {"a": "/*"}, "for f in /pfs/a/*; do tr 12 xy < $f > /pfs/out/${f##*/}; done")
    lab.run()
    blobs = lab.project.blobs
    listing = read_listing(lab.project.repo, blobs, lab.head("p"))
    Path(blobs.path_of(listing["2"])).unlink()
    assert not whole(lab, "p")
    lab.data("a", {"1": "1", "2": "2", "3": "3"})
    assert lab.ran() == ["p: 2 + 1 / 3 success"]
    assert lab.files("p") == {"1": "x", "2": "y", "3": "3"} and whole(lab, "p")
