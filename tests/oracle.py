"""What pipelines have to make, in plain Python: a stage as a shell script and as a function, and what follows from it.

`Oracle` knows the files of the data commits and which version of a pipeline does what, nothing else: every output
commit of a history can be computed from the start and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gitpipe.provenance import read_origin
from tests.lab import Lab, Made

Files = dict[str, str]


@dataclass(frozen=True)
class Stage:
    """A pipeline's code: what it reads by which glob, and what it makes of it.

    Attributes:
        kind: `each` input file becomes an output file; `all` of a datum becomes one file; `one`, the same name for each
            datum, which clashes where there are two.  Of two inputs: a file for each pair of files.
        picky: it fails where a file has the word ``bad`` in it.
    """

    reads: tuple[tuple[str, str], ...]
    kind: str = "each"
    word: str = "w"
    picky: bool = False

    def script(self) -> str:
        lines = ["set -e; export LC_ALL=C"]
        names = [name for name, _ in self.reads]
        if self.picky:
            lines += [f"if grep -rqs bad /pfs/{name}; then echo no good; exit 1; fi" for name in names]
        find = "find . -type f | sed s,^./,, | sort"
        if len(names) == 2:
            one, two = names
            lines.append(
                f"(cd /pfs/{one}; {find}) | while read f; do (cd /pfs/{two}; {find}) | while read g; do"
                f" o=/pfs/out/$(echo $f.$g | tr / _); echo {self.word} >$o; cat /pfs/{one}/$f /pfs/{two}/$g >>$o;"
                " done; done"
            )
            return "\n".join(lines)
        (name,) = names
        lines.append(f"cd /pfs/{name}")
        if self.kind == "each":
            lines.append(
                f"{find} | while read f; do mkdir -p /pfs/out/$(dirname $f);"
                f" {{ echo {self.word}; cat $f; }} >/pfs/out/$f; done"
            )
        else:
            to = "all" if self.kind == "one" or self.reads[0][1] == "/" else "all.$(ls)"
            lines.append(f"{{ echo {self.word}; {find} | while read f; do echo $f; cat $f; done; }} >/pfs/out/{to}")
        return "\n".join(lines)

    def results(self, inputs: Mapping[str, Files]) -> Files | None:
        """What it makes of the files of its inputs; None: the job fails."""
        sides = [list(_cut(glob, inputs[name])) for name, glob in self.reads]
        made: Files = {}
        for datum in [[one] for one in sides[0]] if len(sides) == 1 else [[x, y] for x in sides[0] for y in sides[1]]:
            if self.picky and any("bad" in text for files in datum for text in files.values()):
                return None
            for path, text in self._of_datum(datum).items():
                if path in made:
                    return None
                made[path] = text
        paths = set(made)
        return None if any(path.startswith(other + "/") for path in paths for other in paths) else made

    def _of_datum(self, datum: list[Files]) -> Files:
        if len(datum) == 2:
            return {
                f"{f}.{g}".replace("/", "_"): f"{self.word}\n{datum[0][f]}{datum[1][g]}"
                for f in datum[0]
                for g in datum[1]
            }
        (files,) = datum
        if self.kind == "each":
            return {path: f"{self.word}\n{text}" for path, text in files.items()}
        top = next(iter(files)).partition("/")[0]
        to = "all" if self.kind == "one" or self.reads[0][1] == "/" else f"all.{top}"
        return {to: f"{self.word}\n" + "".join(f"{path}\n{files[path]}" for path in sorted(files))}


def _cut(glob: str, files: Files) -> Iterator[Files]:
    if glob == "/":
        if files:
            yield files
        return
    for top in sorted({path.partition("/")[0] for path in files}):
        yield {path: text for path, text in files.items() if path.partition("/")[0] == top}


@dataclass
class Oracle:
    """Which files there must be, from the files of the data commits and the stages alone."""

    lab: Lab
    data: dict[str, Files] = field(default_factory=dict)  # data commit -> its files
    stages: dict[str, Stage] = field(default_factory=dict)  # version of a pipeline -> what it does

    def commit(self, made: Made) -> Files | None:
        """What an output commit has to hold, by what its trailers say."""
        stage = self.stages[made.origin.version]
        return stage.results({name: self.of(made.sources[name]) for name, _ in stage.reads})

    def of(self, sha: str) -> Files:
        """The files of any commit, all the way from the data."""
        if sha in self.data:
            return self.data[sha]
        origin = read_origin(self.lab.git("log", "-1", "--format=%B", sha) + "\n")
        found = self.commit(Made(sha, "", origin))
        assert found is not None, f"{sha} stands on a job that must have failed"
        return found

    def position(self, branch: str) -> str:
        """The newest commit of a branch that changed data."""
        shas = self.lab.git("rev-list", "--first-parent", branch).split()
        for sha, parent in zip(shas, [*shas[1:], ""], strict=True):
            if not parent or self.data[parent] != self.data[sha]:
                return sha
        return ""
