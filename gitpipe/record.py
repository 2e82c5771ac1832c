"""What varies from run to run, though the commit does not: one JSON line a run, in a git note on the output commit.

Plain git notes under `NOTES`, merged by git's own ``cat_sort_uniq``.  They are written without ``git notes``, which
does not look whether somebody else moved the ref meanwhile, and which knows nothing of the lists of packages: these are
blobs, one for each that differs, named by the lines and kept from ``git gc`` by an entry of the notes' tree.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gitpipe.errors import GitpipeError, NotFound
from gitpipe.provenance import IDENTITY
from gitpipe.repo import BLOB, TREE, Entry, RefUpdate, Repo, Signature

NOTES = "refs/notes/gitpipe"
MERGE = ("notes.gitpipe.mergeStrategy", "cat_sort_uniq")
"""The git setting by which `git notes merge` keeps the runs of both sides."""
KEPT = "packages"
"""The entry of the notes' tree that holds the lists; git lets entries be that are no notes."""
MAX_TRIES = 20
Place = Mapping[str, str]
"""What datums ran in, as `gitpipe.stage.Result.environment` has it."""


class Records:
    """The notes of one repository."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo

    def prepare(self, commit: str, run: Mapping[str, Any], places: Iterable[Place]) -> RefUpdate:
        """Write the objects of one more line on `commit`; the move of the ref that is left to be made.

        Args:
            run: what else the line says, JSON values by name.
            places: what its datums ran in, each once.
        """
        head = self.repo.ref(NOTES)
        tree = dict(self.repo.tree(head)) if head else {}
        lists: dict[str, Entry] = {}
        ran_in = []
        for place in places:
            where = dict(place)
            if packages := where.get("packages"):
                where["packages"] = self.repo.write_blob(f"{packages}\n".encode())
                lists[where["packages"]] = Entry(BLOB, where["packages"])
            ran_in.append(where)
        line = json.dumps({**run, "ran_in": ran_in}, sort_keys=True)
        before = self._lines(tree, commit)
        text = "".join(f"{each}\n" for each in sorted({*before, line}))
        tree = self._with(tree, commit, Entry(BLOB, self.repo.write_blob(text.encode())))
        if lists:
            known = tree.get(KEPT)
            held = self.repo.tree(known.sha) if known and known.mode == TREE else {}
            if lists.keys() - held.keys():
                tree[KEPT] = Entry(TREE, self.repo.write_tree({**held, **lists}))
        who = Signature(IDENTITY, int(time.time()))
        message = f"Notes added by gitpipe: a run of {commit[:12]}\n"
        new = self.repo.write_commit(self.repo.write_tree(tree), [head] if head else [], message, who)
        return RefUpdate(NOTES, new, head)

    def add(self, commit: str, run: Mapping[str, Any], places: Iterable[Place]) -> bool:
        """The same, with the move, tried again where others write notes too; False where it was not to be had."""
        kept = list(places)
        for _ in range(MAX_TRIES):
            move = self.prepare(commit, run, kept)
            self.repo.sync()
            if self.repo.update_refs([move], "gitpipe: note"):
                return True
        return False

    def read(self, commit: str) -> list[dict[str, Any]]:
        """The runs that made a commit, the last one last; what cannot be read is passed over.

        Each has in ``ran_in`` what its datums ran in, ``packages`` there being name -> version; empty where the list is
        not in this clone.
        """
        head = self.repo.ref(NOTES)
        if head is None:
            return []
        found = []
        with contextlib.suppress(NotFound):
            for line in self._lines(self.repo.tree(head), commit):
                with contextlib.suppress(ValueError):
                    run = json.loads(line)
                    if isinstance(run, dict):
                        found.append({**run, "ran_in": list(self._places(run.get("ran_in")))})
        return sorted(found, key=lambda run: (str(type(run.get("finished"))), run.get("finished") or 0))

    def _places(self, ran_in: Any) -> Iterator[dict[str, Any]]:
        for place in ran_in if isinstance(ran_in, list) else ():
            if isinstance(place, dict):
                text = ""
                with contextlib.suppress(GitpipeError, ValueError):
                    text = self.repo.blob(str(place["packages"])).decode() if "packages" in place else ""
                yield {**place, "packages": versions(text)}

    # -- git's tree of notes: `<sha>`, or `ab/<the rest>`, as deep as it likes -----------------------------------------

    def _lines(self, tree: Mapping[str, Entry], name: str) -> list[str]:
        entry = tree.get(name)
        if entry is not None and entry.mode != TREE:
            text = self.repo.blob(entry.sha).decode("utf-8", "replace")
            return [line for line in text.splitlines() if line.strip()]
        below = tree.get(name[:2])
        return self._lines(self.repo.tree(below.sha), name[2:]) if below is not None and below.mode == TREE else []

    def _with(self, tree: Mapping[str, Entry], name: str, note: Entry, fan: bool = True) -> dict[str, Entry]:
        """The tree with a note, in the place where one is, else two digits deep: the cost follows the change (I10)."""
        below = tree.get(name[:2])
        deeper = below is not None and below.mode == TREE
        if name in tree or not (deeper or fan):
            return {**tree, name: note}
        inner = self._with(self.repo.tree(below.sha) if deeper and below else {}, name[2:], note, fan=False)
        return {**tree, name[:2]: Entry(TREE, self.repo.write_tree(inner))}


def versions(packages: str) -> dict[str, str]:
    """Name -> version of lines ``name==version``; where a name stands twice, as R's and Python's may, both."""
    found: dict[str, str] = {}
    for line in packages.splitlines():
        name, _, version = line.partition("==")
        if name:
            found[name] = f"{found[name]}, {version}" if name in found else version
    return found
