"""Pipelines as they are recorded on the branch ``__spec__``: read, create, update, delete, follow their source.

A pipeline's version is the git tree id of its folder there: ``<name>/spec.json`` and ``<name>/code/``.  Beside the
folders, ``.gitpipe/<name>.json`` says where each came from (branch, commit, path), so that a commit there can update
it; it stands outside the folder because the version names content only.  Knows nothing of jobs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from gitpipe.commit import DEFAULT_BRANCH, SPEC_BRANCH, check_name, git_branch, repo_of
from gitpipe.datatree import data_key
from gitpipe.errors import BadSpec, GitpipeError, NotFound, Refused
from gitpipe.graph import Circle, order, owners, reads, sources
from gitpipe.inputs import Cron, Trigger
from gitpipe.provenance import read_origin
from gitpipe.repo import BLOB, EXE, HEADS, LINK, SUBMODULE, TREE, Entry, RefUpdate, Repo, Signature
from gitpipe.spec import HOST, Spec, load_specs

SPEC_REF = HEADS + SPEC_BRANCH
SOURCES = ".gitpipe"
TRIGGERS = "triggers"  # a folder in there: <git branch>.json
IGNORE = ".gitpipeignore"
SPEC_ENDINGS = (".json", ".yaml", ".yml")
MAX_SPEC = 1 << 20
TRUSTED = "gitpipe.trusted"
STOPPED = "gitpipe.stopped"
COMMITS = "gitpipe.commits"
NEWEST = "newest"
INIT_BRANCH = "gitpipe.initbranch"
# Reflog entries that a commit made here leaves; what came by fetch, pull, clone or reset was made elsewhere (I12).
MADE_HERE = ("commit", "cherry-pick", "revert", "am")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One version of a pipeline: its spec, and the tree of its code (None: it has none).

    `image` is what a job runs, or ran, it in: the id of a container image, or `HOST` for the host's programs.
    `job` is that job's id, or "".
    """

    name: str
    version: str
    spec: Spec
    code: str | None
    image: str = HOST
    job: str = ""

    def ran_in(self, image: str, job: str) -> Pipeline:
        """As a job ran it that noted `image`; where none is noted, the image's name was in its datums' ids."""
        return replace(self, image=image or self.spec.transform.container_image or HOST, job=job)

    @property
    def parts(self) -> dict[str, Any]:
        """All that may change a result, beside the input files; see `Spec.transform_parts`."""
        return self.spec.transform_parts(self.code or "", self.image, self.job)

    @property
    def digest(self) -> str:
        """What stands for it in a datum's id."""
        return self.spec.transform_digest(self.code or "", self.image, self.job)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a version came from; ``branch`` is "" where it was no commit of this repository.

    ``built`` are the files of its code that git ignores there (a compiled program), so that no commit has them.
    """

    branch: str
    sha: str
    path: str
    dirty: bool
    built: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.branch}@{self.sha}{'-dirty' if self.dirty or self.built else ''}:" if self.branch else ""
        return f"{where}{self.path}"


class Overtaken(Refused):
    """Somebody else changed ``__spec__``, or what was to move with it, first."""


class PipelineStore:
    """The branch ``__spec__`` of one repository."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.broken: dict[str, str] = {}  # pipeline -> why its newest source could not be taken
        self._loaded: dict[tuple[str, str], Pipeline] = {}
        self._triggers: dict[str, dict[str, Trigger]] = {}
        self._outputs: dict[tuple[str, str], str] = {}

    # -- reading -----------------------------------------------------------------------------------------------------

    def head(self) -> str | None:
        """The commit that ``__spec__`` points to, or None."""
        return self.repo.ref(SPEC_REF)

    def versions(self, commit: str | None) -> dict[str, str]:
        """Pipeline name -> version at a commit of ``__spec__``."""
        if commit is None:
            return {}
        return {
            name: entry.sha
            for name, entry in self.repo.tree(commit).items()
            if entry.mode == TREE and not name.startswith(".")
        }

    def owners(self, commit: str | None) -> dict[str, str]:
        """Git branch -> the pipeline that writes it, at a commit of ``__spec__``.

        Reads no more of a spec than that, so that hooks need no pydantic, and a broken one hides no other.
        """
        return {self._output(name, version): name for name, version in self.versions(commit).items()}

    def _output(self, name: str, version: str) -> str:
        found = self._outputs.get((name, version))
        if found is None:
            entry = self.repo.tree(version).get("spec.json")
            try:
                spec = json.loads(self.repo.blob(entry.sha)) if entry else {}
                found = git_branch(name, str(spec.get("output_branch") or DEFAULT_BRANCH))
            except (ValueError, AttributeError):
                found = name
            self._outputs[name, version] = found
        return found

    def created(self, name: str) -> float:
        """When a pipeline was recorded first, in POSIX seconds; 0 where it was not."""
        head = self.head()
        found = list(self.repo.log([head], paths=[name])) if head else []
        return float(found[-1].time) if found else 0.0

    def recorded_at(self, name: str, version: str) -> str | None:
        """The commit on ``__spec__`` that first recorded this version of a pipeline; None where none is left."""
        head = self.head()
        for commit in reversed(list(self.repo.log([head], paths=[name]))) if head else ():
            entry = self.repo.entry(commit.sha, name)
            if entry is not None and entry.sha == version:
                return commit.sha
        return None

    def load(self, name: str, version: str) -> Pipeline:
        """One version of a pipeline.

        Raises:
            BadSpec: what stands on ``__spec__`` is not a valid spec.
        """
        found = self._loaded.get((name, version))
        if found is None:
            tree = self.repo.tree(version)
            if "spec.json" not in tree:
                raise BadSpec(f"{SPEC_BRANCH}:{name} has no spec.json: remove the folder or update-pipeline {name}")
            try:
                spec = Spec.from_json(self.repo.blob(tree["spec.json"].sha))
            except BadSpec as error:
                raise BadSpec(
                    f"{SPEC_BRANCH}:{name}/{error}; is it from a newer gitpipe? if not, `git revert` on {SPEC_BRANCH}"
                ) from error
            if spec.name != name:
                raise BadSpec(f"{SPEC_BRANCH}:{name}/spec.json names the pipeline {spec.name!r}")
            code = tree.get("code")
            found = Pipeline(name, version, spec, code.sha if code else None)
            self._loaded[name, version] = found
        return found

    def all(self, commit: str | None) -> dict[str, Pipeline]:
        """All pipelines at a commit of ``__spec__``, by name."""
        return {name: self.load(name, version) for name, version in self.versions(commit).items()}

    def get(self, name: str) -> Pipeline:
        """A pipeline's newest version.

        Raises:
            NotFound: there is none of that name.
        """
        version = self.versions(self.head()).get(name)
        if version is None:
            raise NotFound(f"pipeline {name} does not exist: see `gitpipe list-pipeline`")
        return self.load(name, version)

    def source(self, commit: str, name: str) -> Source | None:
        """Where the version at a commit of ``__spec__`` came from."""
        entry = self.repo.entry(commit, f"{SOURCES}/{name}.json")
        if entry is None:
            return None
        try:
            record = json.loads(self.repo.blob(entry.sha))
            built = tuple(map(str, record.get("built", ())))
            return Source(str(record["branch"]), str(record["sha"]), str(record["path"]), bool(record["dirty"]), built)
        except (ValueError, KeyError, TypeError):
            return None  # damaged: the pipeline runs as it is, and follows nothing

    def set_triggers(self, commit: str | None) -> dict[str, Trigger]:
        """Git branch -> its trigger, of those that a person set (`create-branch --trigger`)."""
        folder = self.repo.entry(commit, f"{SOURCES}/{TRIGGERS}") if commit else None
        if folder is None or folder.mode != TREE:
            return {}
        found = self._triggers.get(folder.sha)
        if found is None:
            found = self._triggers[folder.sha] = {}
            for file, entry in self.repo.tree(folder.sha).items():
                with contextlib.suppress(ValueError, TypeError, GitpipeError):  # damaged: it moves nothing
                    found[file.removesuffix(".json")] = Trigger(**json.loads(self.repo.blob(entry.sha)))
        return found

    def triggers(self, commit: str | None) -> dict[str, tuple[Trigger, str]]:
        """Git branch -> its trigger, and the pipeline whose input names it ("" for one that a person set)."""
        found = {branch: (trigger, "") for branch, trigger in self.set_triggers(commit).items()}
        for name, pipeline in self.all(commit).items():
            for leaf in pipeline.spec.input.leaves():
                if leaf.trigger is not None:
                    found[git_branch(leaf.repo, leaf.branch)] = leaf.trigger, name
        return found

    def dvc_config(self) -> bytes | None:
        """The ``.dvc/config`` of all branches that gitpipe writes, kept at the root of ``__spec__``."""
        head = self.head()
        entry = self.repo.entry(head, ".dvc/config") if head else None
        return self.repo.blob(entry.sha) if entry else None

    def branch_config(self) -> bytes | None:
        """The ``.dvc/config`` for a new data branch: before there is any pipeline, that of the branch `init` ran on."""
        if self.head() is not None:
            return self.dvc_config()
        head = self.repo.ref(self._init_branch) if self._init_branch else None
        entry = self.repo.entry(head, ".dvc/config") if head else None
        return self.repo.blob(entry.sha) if entry else None

    @functools.cached_property
    def _init_branch(self) -> str:
        return self.repo.config("gitpipe.").get(INIT_BRANCH, [""])[-1]

    def follow_config(self, heads: Mapping[str, str]) -> None:
        """Take over the ``.dvc/config`` of the branch that `init` ran on, where a commit there has changed it."""
        head, commit = heads.get(self._init_branch), self.head()
        entry = self.repo.entry(head, ".dvc/config") if head and commit else None
        if head is None or commit is None or entry is None or entry == self.repo.entry(commit, ".dvc/config"):
            return
        text = self.repo.blob(entry.sha)
        if not text and self.dvc_config() is None:
            return  # as `dvc init` makes it: says nothing
        last = self.repo.git("log", "-n", "1", "--format=%H", head, "--", ".dvc/config").strip()
        made = self.repo.commit(last or head)
        author = Signature(made.author, made.author_time, made.author_zone)
        self.put({}, {}, f"dvc config: {made.subject}"[:200], author, dvc_config=text, expect=commit)

    # -- trust and stopping ------------------------------------------------------------------------------------------

    def trusted(self) -> set[str]:
        """The versions that may run here (I12): content hashes in local git config."""
        return set(self.repo.config(TRUSTED).get(TRUSTED, []))

    def trust(self, versions: Sequence[str]) -> None:
        """Let these versions run here."""
        known = self.trusted()
        for version in versions:
            if version not in known:
                self.repo.add_config(TRUSTED, version)

    def stopped(self) -> set[str]:
        """Names of the pipelines that a person stopped."""
        return set(self.repo.config(STOPPED).get(STOPPED, []))

    def stop(self, name: str) -> None:
        """Keep a pipeline from running here."""
        if name not in self.stopped():
            self.repo.add_config(STOPPED, name)

    def start(self, name: str) -> None:
        """Let it run again, if it was stopped."""
        if name in self.stopped():
            self.repo.drop_config(STOPPED, name)

    def trusted_and_stopped(self) -> tuple[set[str], set[str]]:
        """Both in one look at the configuration: the runner asks at every nudge, and a look is a process."""
        found = self.repo.config("gitpipe.")
        return set(found.get(TRUSTED, [])), set(found.get(STOPPED, []))

    def newest_only(self, spec: Spec) -> bool:
        """Whether a pipeline passes over queued commit sets where a newer one is ready: its spec says so, or says
        nothing and the repository's configuration does."""
        return (spec.commits or self.repo.config(COMMITS).get(COMMITS, [""])[-1]) == NEWEST

    # -- creating, updating, deleting --------------------------------------------------------------------------------

    def build(self, spec: Spec, origin: Origin) -> str:
        """Write the folder of a version (spec and code); its tree id, which is the version."""
        entries = {"spec.json": Entry(BLOB, self.repo.write_blob(spec.to_json()))}
        code = origin.code(spec)
        if code:
            entries["code"] = Entry(TREE, self.repo.write_paths(code))
        return self.repo.write_tree(entries)

    def put(
        self,
        trees: Mapping[str, str | None],
        origins: Mapping[str, Source],
        subject: str,
        author: Signature,
        *,
        dvc_config: bytes | None = None,
        expect: str | None = None,
        triggers: Mapping[str, Trigger | None] | None = None,
        also: Sequence[RefUpdate] = (),
    ) -> str:
        """Commit new versions (None: deleted) to ``__spec__`` in one step; the new commit.

        Args:
            triggers: git branch -> what moves it from now on (None: nothing).
            also: further refs to move in the same step.

        Raises:
            Overtaken: ``__spec__`` moved meanwhile from `expect`, or a ref of `also` from where it was.
        """
        head = self.head() if expect is None else expect
        root = dict(self.repo.tree(head)) if head else {}
        records = dict(self.repo.tree(root[SOURCES].sha)) if SOURCES in root else {}
        for name, tree in trees.items():
            if tree is None:
                root.pop(name, None)
                records.pop(f"{name}.json", None)
                continue
            root[name] = Entry(TREE, tree)
            source = origins[name]
            record: dict[str, object] = {"branch": source.branch, "sha": source.sha, "path": source.path}
            record["dirty"] = source.dirty
            if source.built:
                record["built"] = source.built
            text = json.dumps(record, indent=1, sort_keys=True) + "\n"
            records[f"{name}.json"] = Entry(BLOB, self.repo.write_blob(text.encode()))
        if triggers:
            named = {f"{branch}.json": trigger for branch, trigger in triggers.items()}
            folder = dict(self.repo.tree(records[TRIGGERS].sha)) if TRIGGERS in records else {}
            folder = {file: entry for file, entry in folder.items() if file not in named}
            for file, trigger in named.items():
                if trigger is not None:
                    text = json.dumps(trigger.to_dict(), indent=1, sort_keys=True) + "\n"
                    folder[file] = Entry(BLOB, self.repo.write_blob(text.encode()))
            records.pop(TRIGGERS, None)
            if folder:
                records[TRIGGERS] = Entry(TREE, self.repo.write_tree(folder))
        root.pop(SOURCES, None)
        if records:
            root[SOURCES] = Entry(TREE, self.repo.write_tree(records))
        if dvc_config is not None:
            base = root[".dvc"].sha if ".dvc" in root else None
            blob = Entry(BLOB, self.repo.write_blob(dvc_config))
            root[".dvc"] = Entry(TREE, self.repo.write_paths({"config": blob}, base))
        lines = [subject, "", *dict.fromkeys(f"Source: {origins[name]}" for name in sorted(origins))]
        message = "\n".join(lines) if origins else subject
        commit = self.repo.write_commit(self.repo.write_tree(root), [head] if head else [], message, author)
        self.repo.sync()
        if not self.repo.update_refs([RefUpdate(SPEC_REF, commit, head), *also], f"gitpipe: {subject}"):
            raise Overtaken(f"{SPEC_BRANCH} was changed by somebody else just now: run the command again")
        return commit

    def check(
        self, specs: Mapping[str, Spec], fresh: Sequence[str], branches: Mapping[str, str], files: Mapping[str, str]
    ) -> None:
        """Check that pipelines fit together and into the repository.

        Args:
            specs: all pipelines as they would be.
            fresh: the names among them that are created now.
            branches: full ref -> sha of all branches.
            files: pipeline -> its spec file, of those that are given now; messages begin with it.

        Raises:
            BadSpec: a cycle, or an input repo that does not exist.
            Refused: a name that a branch has which is not a pipeline's output.
        """
        moved = dict(self.set_triggers(self.head()))
        made = set()  # read branches that come with the pipeline
        for name, spec in specs.items():
            for leaf in spec.input.leaves():
                branch = git_branch(leaf.repo, leaf.branch)
                if isinstance(leaf, Cron):
                    self._check_cron(name, leaf, specs, branches.get(HEADS + branch))
                    made.add(branch)
                elif leaf.trigger is not None:
                    moved[branch] = leaf.trigger
                    if any(repo_of(b.removeprefix(HEADS))[0] == leaf.repo for b in branches):
                        made.add(branch)
        try:
            order(specs, follows(moved))
        except Circle as error:
            raise BadSpec(f"{_named_in(files, error.circle)}{error}") from None
        owned = self.owners(self.head())
        for branch, name in owners(specs).items():
            head = branches.get(HEADS + branch)
            if name in fresh or branch in owned or head is None:
                continue
            if read_origin(self.repo.commit(head).message).pipeline != name:  # where it wrote once, it may again
                raise Refused(f"pipeline {name} would write to branch {branch}, which exists and is not its own")
        for name in fresh:
            check_name("pipeline", name)
            if name == SPEC_BRANCH:
                raise BadSpec(f"pipeline name {name!r} is reserved")
            for branch in (name, specs[name].output):
                if HEADS + branch in branches:
                    raise Refused(
                        f"pipeline {name} would write to branch {branch}, which exists and is not its own: rename one"
                    )
        for branch in sources(specs):
            repo, rest = repo_of(branch)
            # Another branch of an output (`model@prod`) can only come once there is output.
            if HEADS + branch in branches or repo in specs or branch in made:
                continue
            names = sorted(n for n, s in specs.items() if branch in reads(s))
            readers = f"{_named_in(files, names)}pipeline {', '.join(names)}"
            if HEADS + repo in branches:
                raise BadSpec(f"{readers}: {repo} has no branch {rest}: `gitpipe create-branch {repo} {rest}`")
            raise BadSpec(f"{readers}: input repo {repo} does not exist: `gitpipe create-repo {repo}`")

    def _check_cron(self, name: str, cron: Cron, specs: Mapping[str, Spec], head: str | None) -> None:
        """Raises Refused where a cron input would write to what is no data repo of its own."""
        if cron.repo in specs:
            raise Refused(f"pipeline {name}: cron repo {cron.repo} is the output of a pipeline: name another")
        if cron.repo == SPEC_BRANCH or (head and not data_key(self.repo, head)):
            raise Refused(f"pipeline {name}: branch {cron.repo} is not a data repo: name another cron repo")

    # -- following the source ----------------------------------------------------------------------------------------

    def follow(self, seen: Mapping[str, str], heads: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Commit to ``__spec__`` what commits on source branches changed since `seen`; yield (branch, head looked at).

        Each such commit of a source branch makes one commit of ``__spec__``, with its author and date, so that every
        machine writes the same.  A commit that was not made here leaves its versions untrusted.
        """
        commit = self.head()
        if commit is None:
            return
        by_branch: dict[str, list[str]] = {}
        for name in self.versions(commit):
            source = self.source(commit, name)
            if source and source.branch:
                by_branch.setdefault(source.branch, []).append(name)
        for branch, names in sorted(by_branch.items()):
            head = heads.get(HEADS + branch)
            if head is None or seen.get(branch) == head:
                continue
            since = seen.get(branch) or self._oldest_source(commit, names)
            folders = sorted({_folder(s.path) for n in names if (s := self.source(commit, n))})
            paths = [] if "" in folders else folders
            steps = self.repo.first_parents(head, since, paths) if since else None
            for step in [self.repo.commit(head)] if steps is None else steps:
                self._follow_one(branch, names, step.sha)
            yield branch, head

    def _oldest_source(self, commit: str, names: Sequence[str]) -> str | None:
        shas = {source.sha for name in names if (source := self.source(commit, name))}
        return shas.pop() if len(shas) == 1 else None

    def _follow_one(self, branch: str, names: Sequence[str], sha: str) -> None:
        commit = self.head()
        if commit is None:
            return
        current = self.versions(commit)
        trees: dict[str, str | None] = {}
        origins: dict[str, Source] = {}
        for name in names:
            source = self.source(commit, name)
            if source is None or name not in current:
                continue
            self.broken.pop(name, None)
            try:
                spec, origin = self._at(sha, source, self.load(name, current[name]))
                tree = self.build(replace(spec, salt=self.load(name, current[name]).spec.salt), origin)
            except GitpipeError as error:
                # Gone or broken there: the last good version stays, `status` says why.
                self.broken[name] = f"{name} stays as it was: in {branch}@{sha[:12]}, {error}"
                continue
            if tree != current[name] and not (source.dirty and self._known(sha, source, name, tree)):
                trees[name] = tree
                origins[name] = Source(branch, sha, source.path, False, tuple(origin.built))
        if not trees:
            return
        # Trust first: once it stands on `__spec__`, nobody would ask again who made it.
        before = {name: (current[name], self.source(commit, name)) for name in trees}
        for name, fresh in trees.items():
            version, last = before[name]
            if fresh and version in self.trusted() and self._made_here(last, sha, _folder(origins[name].path)):
                self.trust([fresh])
        made = self.repo.commit(sha)
        author = Signature(made.author, made.author_time, made.author_zone)
        subject = f"update {', '.join(sorted(trees))}: {made.subject}"[:200]
        self.put(trees, origins, subject, author, expect=commit)

    def _known(self, sha: str, source: Source, name: str, tree: str) -> bool:
        """Whether a commit says nothing new of a pipeline that was updated from uncommitted files since.

        It is the one that those files lay on, or it changed other files of the folder only.
        """
        if sha == source.sha:
            return True
        parents = self.repo.commit(sha).parents
        try:
            now = self.get(name)
            spec, origin = self._at(parents[0], source, now)
            return tree == self.build(replace(spec, salt=now.spec.salt), origin)
        except (GitpipeError, IndexError):
            return False

    def _made_here(self, last: Source | None, sha: str, folder: str) -> bool:
        """Whether all commits that changed a folder, up to `sha` and since `last`, were made in this repository (I12).

        All, as one that was pulled in may lie below one made here.  They may have come to this branch by merge or
        fast-forward from another one, so all reflogs are asked.
        """
        where = f":(literal){folder}" if folder else "."
        since = [f"^{last.sha}"] if last and last.sha and self.repo.resolve(last.sha) else []
        found = self.repo.git("rev-list", sha, *since, "--", where).split()
        if not found:  # moved back: nothing is new
            found = self.repo.git("rev-list", "-n", "1", sha, "--", where).split()
        return all(any(m.startswith(MADE_HERE) for m in self.repo.reflogs_say(each)) for each in found)

    def _at(self, sha: str, source: Source, now: Pipeline) -> tuple[Spec, Origin]:
        """The pipeline `now` as the spec file of its source has it at a commit."""
        path = source.path
        entry = self.repo.entry(sha, path)
        if entry is None:
            raise NotFound(f"{path} is not in {sha[:12]}")
        code = dict(self.repo.walk(now.code)) if source.built and now.code else {}
        built = {name: code[name] for name in source.built if name in code}
        for spec in load_specs(self.repo.blob(entry.sha), path):
            if spec.name == now.name:
                return spec, CommitOrigin(self.repo, sha, path, built)
        raise NotFound(f"{path} in {sha[:12]} has no pipeline {now.name}")


def _named_in(files: Mapping[str, str], names: Iterable[str]) -> str:
    """What a message about pipelines begins with: the files that they stand in, as far as those are known."""
    found = dict.fromkeys(files[name] for name in names if name in files)
    return f"{', '.join(found)}: " if found else ""


def follows(triggers: Mapping[str, Trigger]) -> dict[str, str]:
    """Git branch -> the one of the same repo that its trigger watches."""
    return {branch: git_branch(repo_of(branch)[0], trigger.branch) for branch, trigger in triggers.items()}


SCRIPT = re.compile(r"[\w./][\w./-]*\.(?:py|R|r|jl|sh|pl|rb|js)\Z")


def absent_scripts(spec: Spec, code: Collection[str]) -> list[str]:
    """Scripts that the command names and `code` lacks, worded: to be said at once, not by the first job."""
    if spec.transform.working_dir not in ("", "/code") or spec.transform.image:  # an image may have it
        return []
    found = []
    for word in spec.transform.cmd[1:]:
        path = word.removeprefix("/code/").removeprefix("./")
        absent = path.lstrip("/") not in code and not (path.startswith("/") and os.path.lexists(path))
        if SCRIPT.match(word) and not word.startswith("/pfs/") and absent:
            found.append(f'{spec.name}: its code has no {path}: put it beside the spec, or name it in "code"')
    module = spec.transform.python.partition(":")[0].replace(".", "/")
    if module and not {f"{module}.py", f"{module}/__init__.py"} & set(code):
        found.append(f'{spec.name}: its code has no {module}.py: put it beside the spec, or name it in "code"')
    return found


def new_salt() -> str:
    """What makes every datum new: the salt of a ``--reprocess``."""
    return secrets.token_hex(16)


# -- where a spec's code comes from ----------------------------------------------------------------------------------


class Origin:
    """A folder that a spec file lies in; subclasses say which files are there, and read those that are wanted.

    Paths are from that folder; submodules are no files.  Thousands may lie beside a spec that names one of them as its
    code, so nothing is read before it is known to be code.  Files that git ignores are not among them, but a spec may
    name one: a program that is built there.  ``built`` are those that the last call of `code` took.
    """

    repo: Repo
    path: str
    built: dict[str, Entry]

    def paths(self) -> Collection[str]:
        """All files that are there and not ignored."""
        raise NotImplementedError

    def read(self, paths: Sequence[str]) -> dict[str, Entry]:
        """Path -> entry of files that are among `paths()`; their blobs are in the repository then."""
        raise NotImplementedError

    def ignored(self, name: str) -> dict[str, Entry]:
        """The file `name` that git ignores, or those below a folder of that name."""
        return {}

    def code(self, spec: Spec) -> dict[str, Entry]:
        """The files of the pipeline's code tree.

        Raises:
            BadSpec: the spec names code that is not there, or lies at the root without naming any.
        """
        self.built = {}
        if spec.code is not None:
            return self._named(spec)
        if not _folder(self.path):
            raise BadSpec(
                f'{self.path}: a spec at the root of the repository must name its code, e.g. "code": ["train.py"] '
                'or "code": []'
            )
        paths = [p for p in self.paths() if p.split("/")[0] not in ("data", ".dvc", ".git") and p != IGNORE]
        ignored = self._ignored(paths)
        found = self.read([path for path in paths if path not in ignored])
        return {path: entry for path, entry in found.items() if not self._is_spec(path, entry)}

    def _named(self, spec: Spec) -> dict[str, Entry]:
        chosen: dict[str, Entry] = {}
        there: dict[str, None] = {}
        for name in spec.code or ():
            wanted = str(PurePosixPath(name))
            part = [p for p in self.paths() if wanted == "." or p == wanted or p.startswith(wanted + "/")]
            there.update(dict.fromkeys(part))
            built = self.ignored(wanted) if not part and wanted != "." else {}
            self.built.update(built)
            chosen.update(built)
            if not part and not built:
                where = f"{_folder(self.path) or '.'}/"
                raise BadSpec(
                    f"{self.path}: code {name!r} of pipeline {spec.name} is not in {where}: add it there, or build it"
                )
        return {**chosen, **self.read(list(there))}

    def _ignored(self, paths: Sequence[str]) -> set[str]:
        """Those of `paths` that the folder's own list of what is no code matches."""
        if IGNORE not in self.paths():
            return set()
        import pathspec

        text = b"".join(self.repo.blob(entry.sha) for entry in self.read([IGNORE]).values())
        spec = pathspec.GitIgnoreSpec.from_lines(text.decode("utf-8", "replace").splitlines())
        return set(spec.match_files(paths))

    def _is_spec(self, path: str, entry: Entry) -> bool:
        if "/" in path or not path.endswith(SPEC_ENDINGS) or entry.mode not in (BLOB, EXE):
            return False
        data = self.repo.blob(entry.sha)
        if len(data) > MAX_SPEC or b"transform" not in data:
            return False
        try:
            return bool(load_specs(data, path))
        except BadSpec:
            return path == PurePosixPath(self.path).name


class CommitOrigin(Origin):
    """The folder as a commit has it; what was `kept` of an earlier version stands for files that no commit has."""

    def __init__(self, repo: Repo, sha: str, path: str, kept: Mapping[str, Entry]) -> None:
        self.repo, self.sha, self.path, self.kept = repo, sha, path, kept

    def ignored(self, name: str) -> dict[str, Entry]:
        return {path: entry for path, entry in self.kept.items() if path == name or path.startswith(name + "/")}

    def paths(self) -> Collection[str]:
        return self._files

    def read(self, paths: Sequence[str]) -> dict[str, Entry]:
        return {path: self._files[path] for path in paths}

    @functools.cached_property
    def _files(self) -> dict[str, Entry]:
        folder = _folder(self.path)
        entry = self.repo.entry(self.sha, folder) if folder else Entry(TREE, self.sha)
        below = self.repo.walk(entry.sha) if entry and entry.mode == TREE else ()
        return {path: entry for path, entry in below if entry.mode != SUBMODULE}


class WorkingOrigin(Origin):
    """The folder as a working tree of this repository has it: clean files from its commit, changed ones as they are."""

    def __init__(self, repo: Repo, top: Path, path: str) -> None:
        self.repo, self.top, self.path = repo, top, path
        self.head = repo.git("rev-parse", "-q", "--verify", "HEAD", cwd=top).strip() if _born(repo, top) else None
        self.built = {}

    def paths(self) -> Collection[str]:
        return self._files[0]

    def read(self, paths: Sequence[str]) -> dict[str, Entry]:
        prefix, (there, _) = self._prefix, self._files
        clean = {path: entry for path in paths if (entry := there[path]) is not None}
        fresh = self._hash([prefix + path for path in paths if path not in clean])
        return clean | {name.removeprefix(prefix): entry for name, entry in fresh.items()}

    @property
    def _prefix(self) -> str:
        folder = _folder(self.path)
        return f"{folder}/" if folder else ""

    @functools.cached_property
    def _files(self) -> tuple[dict[str, Entry | None], bool]:
        """The files that are there, those that are not as the commit has them without an entry; whether any is so."""
        folder, prefix = _folder(self.path), self._prefix
        where = f":(literal){folder}" if folder else "."
        listed = self.repo.git(
            "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", where, cwd=self.top
        )
        names = dict.fromkeys(name for name in listed.split("\0") if name)
        base: dict[str, Entry] = {}
        changed: set[str] = set()
        if self.head:
            entry = self.repo.entry(self.head, folder) if folder else Entry(TREE, self.head)
            if entry and entry.mode == TREE:
                base = {prefix + p: e for p, e in self.repo.walk(entry.sha)}
            diff = self.repo.git("diff", "--name-only", "-z", "--no-renames", self.head, "--", where, cwd=self.top)
            changed = set(diff.split("\0"))
        found: dict[str, Entry | None] = {}
        for name in names:
            if name in base and name not in changed:
                found[name] = base[name]
            elif _is_file(self.top / name):  # else it is deleted, or a repository of its own
                found[name] = None
        dirty = found != base
        return {n.removeprefix(prefix): e for n, e in found.items() if e is None or e.mode != SUBMODULE}, dirty

    def ignored(self, name: str) -> dict[str, Entry]:
        options = ("--others", "--ignored", "--exclude-standard")
        listed = self.repo.git("ls-files", "-z", *options, "--", f":(literal){self._prefix}{name}", cwd=self.top)
        entries = self._hash([path for path in listed.split("\0") if path])
        return {path.removeprefix(self._prefix): entry for path, entry in entries.items()}

    def _hash(self, names: Sequence[str]) -> dict[str, Entry]:
        """Write files as they lie there, all others in one process; what is no file is left out."""
        found: dict[str, Entry] = {}
        plain: list[str] = []
        for name in names:
            path = self.top / name
            if path.is_symlink():
                target = str(path.readlink()).encode("utf-8", "surrogateescape")
                found[name] = Entry(LINK, self.repo.write_blob(target))
            elif path.is_file():
                plain.append(name)
        lines = "".join(f"{_quoted(name)}\n" for name in plain).encode("utf-8", "surrogateescape")
        shas = self.repo.git("hash-object", "-w", "--stdin-paths", stdin=lines, cwd=self.top).split() if plain else []
        for name, sha in zip(plain, shas, strict=True):
            found[name] = Entry(EXE if (self.top / name).stat().st_mode & 0o100 else BLOB, sha)
        return found

    def source(self) -> Source:
        """Where this came from, with what the last call of `code` took."""
        ref = self.repo.git("symbolic-ref", "-q", "HEAD", cwd=self.top).strip() if self._on_branch() else ""
        if not ref or not self.head:
            return Source("", "", self.path, True)
        return Source(ref.removeprefix(HEADS), self.head, self.path, self._files[1], tuple(self.built))

    def _on_branch(self) -> bool:
        try:
            self.repo.git("symbolic-ref", "-q", "HEAD", cwd=self.top)
        except GitpipeError:
            return False
        return True


class LooseOrigin(Origin):
    """A spec that lies outside of this repository, or came on standard input: files of its folder, if it has one."""

    def __init__(self, repo: Repo, folder: Path | None, name: str) -> None:
        self.repo, self.folder, self.path = repo, folder, f"{name}"
        self.built = {}

    def code(self, spec: Spec) -> dict[str, Entry]:
        if spec.code is None or self.folder is None:
            if spec.code:
                raise BadSpec(f"{self.path}: a spec from standard input cannot name code: save it to a file")
            return {}
        return self._named(spec)

    def paths(self) -> Collection[str]:
        return self._files

    def read(self, paths: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for path in paths:
            file = self._files[path]
            mode = EXE if file.stat().st_mode & 0o100 else BLOB
            found[path] = Entry(mode, self.repo.write_blob(file.read_bytes()))
        return found

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for where, folders, names in os.walk(self.folder) if self.folder else ():
            folders[:] = [name for name in folders if name != ".git"]
            files = [Path(where, name) for name in names if name != ".git"]
            regular = (file for file in files if file.is_file() and not file.is_symlink())
            found.update((file.relative_to(self.folder or where).as_posix(), file) for file in regular)
        return found


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _quoted(name: str) -> str:
    """A path as `git hash-object --stdin-paths` reads it, a line each."""
    if not name.startswith('"') and not set(name) & set("\r\n"):
        return name
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in name) + '"'


def _folder(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _born(repo: Repo, top: Path) -> bool:
    try:
        repo.git("rev-parse", "-q", "--verify", "HEAD", cwd=top)
    except GitpipeError:
        return False
    return True
