"""A Python that is started once and runs one datum after another: by a fork, or by a call.

Only the standard library, started by the agent as ``PYTHON OPTIONS warm.py SOCKET``, with the interpreter, the options
and the environment that the user's script would have been started with.  Knows nothing of datums.

`fork`: it imports what the script is going to import, once.  For each request it forks, and the child becomes what
``PYTHON OPTIONS script.py ARGUMENTS`` would have been: a fresh ``__main__``, its own arguments, folder, environment,
standard streams and random state; how it ends is left to the interpreter.  What cannot be shared by several processes
without a trace is not imported before the fork: a module that prints, starts a thread or leaves a file open while it
is imported, what comes
after a statement that may have an effect on an import, and all that lies in the pipeline's code.

`call`: it imports ``module:function`` at the first request and calls it for each; a class is constructed once.
"""

import sys

_BLANK = dict(globals())  # the names that an empty `__main__` has in this version of Python
_AT_START = set(sys.modules)
_HERE = sys.path.pop(0) if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)) else None

import atexit  # noqa: E402 - not before this file's own folder is out of the path
import contextlib  # noqa: E402
import importlib.machinery  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import types  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

SET_DUMPABLE = 4
HEADER = 8


class Refused(Exception):
    """This script is to run in a process of its own; the message says why."""


class Again(Exception):
    """A module must not be imported before the fork, but was: a new interpreter is to do without it."""


# --- what the script wants ------------------------------------------------------------------------------------------


class Wanted:
    """Finds the import statements that a script and its own modules run when they are imported.

    Args:
        roots: folders whose modules are the user's own, which are looked at but never imported here.
    """

    def __init__(self, roots: "list[str]") -> None:
        self._roots = [os.path.realpath(root) for root in roots]
        self._seen: set[str] = set()
        self.statements: dict[str, str] = {}  # statement -> the top-level package that it is about
        self.later: dict[str, str] = {}  # package -> why it is not to be imported before the script runs
        self.deed = ""

    def is_own(self, path: "str | None") -> bool:
        """Whether a file is the user's own."""
        real = os.path.realpath(path) if path else ""
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots)

    def scan(self, path: str) -> None:
        """Look at a source file; one that cannot be read or parsed wants nothing."""
        import ast

        path = os.path.realpath(path)
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            with open(path, "rb") as file:
                tree = ast.parse(file.read(), path)
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            return
        for node in self._at_import(tree.body, path):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._want(alias.name, [], ast.unparse(ast.Import([alias])))
            elif node.level:
                folder = os.path.dirname(path)
                for _ in range(node.level - 1):
                    folder = os.path.dirname(folder)
                self._enter(folder, [*(node.module or "").split("."), *(alias.name for alias in node.names)])
            elif node.module and node.module != "__future__":
                self._want(node.module, [alias.name for alias in node.names], ast.unparse(node))

    def _at_import(self, body: "list[Any]", where: str) -> "Iterator[Any]":
        """The import statements that are reached when a module is imported, whatever its conditions say.

        The first statement of another kind is noted in `deed`: it may set what an import after it looks at, such as
        `os.environ`, `sys.path`, or filters of warnings.
        """
        import ast

        for node in body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield node
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                yield from self._at_import(node.orelse, where)
            elif isinstance(node, (ast.If, ast.Try)):
                if isinstance(node, ast.If) and calls(node.test):
                    self._note_deed(node, where)
                for part in ("body", "handlers", "orelse", "finalbody"):
                    for inner in getattr(node, part, ()):
                        below = inner.body if isinstance(inner, ast.ExceptHandler) else [inner]
                        yield from self._at_import(below, where)
            elif not is_harmless(node):
                self._note_deed(node, where)
                yield from self._at_import(getattr(node, "body", []), where)

    def _note_deed(self, node: "Any", where: str) -> None:
        self.deed = self.deed or f"imported after line {node.lineno} of {os.path.basename(where)} has done something"

    def _want(self, module: str, names: "list[str]", statement: str) -> None:
        top, *below = module.split(".")
        spec = find(top)
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        if not any(self.is_own(place) for place in places if place):
            if self.deed:
                self.later.setdefault(top, self.deed)
            else:
                self.statements.setdefault(statement, top)
            return
        for place in (spec.submodule_search_locations or ()) if spec else ():
            self._enter(place, [*below, *names])
        if spec and spec.origin:
            self.scan(spec.origin)

    def _enter(self, folder: str, names: "list[str]") -> None:
        """Look at the files that these names may stand for, one below the other or side by side."""
        for name in names:
            for path in (f"{folder}/{name}.py", f"{folder}/{name}/__init__.py"):
                if name and self.is_own(path) and os.path.isfile(path):
                    self.scan(path)
            if os.path.isdir(f"{folder}/{name}"):
                folder = f"{folder}/{name}" if name else folder


def calls(node: "Any") -> bool:
    """Whether an expression calls anything."""
    import ast

    return any(isinstance(each, (ast.Call, ast.Await, ast.NamedExpr)) for each in ast.walk(node))


def is_harmless(node: "Any") -> bool:
    """Whether a statement only defines something, or gives a plain value a name."""
    import ast

    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass)):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        named = all(isinstance(each, (ast.Name, ast.Tuple)) for each in targets)
        return named and (node.value is None or not calls(node.value))
    return False


def find(top: str) -> "importlib.machinery.ModuleSpec | None":
    """Where a top-level module would come from; None for what is built in, or is not there."""
    if top in sys.builtin_module_names:
        return None
    with contextlib.suppress(ImportError, ValueError):
        return importlib.machinery.PathFinder.find_spec(top, None)
    return None


# --- importing before the fork --------------------------------------------------------------------------------------


def preload(wanted: Wanted, exclude: "dict[str, str]") -> "list[str]":
    """Import what is wanted, but for `exclude`; the packages that were imported.

    Raises:
        Again: an import did what no fork can hide: ``(package, why)``.
    """
    loaded: dict[str, None] = {}
    with captured() as printed:
        for statement, top in wanted.statements.items():
            if top in exclude:
                continue
            before = set(sys.modules)
            files = open_files()
            try:
                exec(statement, {"__name__": "__main__"})  # for warnings, which are shown there only
            except BaseException as error:  # the script will meet it itself, and may know what to do
                raise Again(top, f"its import fails ({type(error).__name__})") from None
            if printed():
                raise Again(top, "it prints when it is imported")
            if open_files() != files:
                raise Again(top, "it leaves a file open when it is imported")
            came = [getattr(sys.modules.get(name), "__file__", None) for name in set(sys.modules) - before]
            if any(map(wanted.is_own, came)):
                raise Again(top, "it imports the pipeline's own code")
            if has_threads():
                raise Again(top, "it starts threads when it is imported")
            if has_children():
                raise Again(top, "it starts a process when it is imported")
            loaded[top] = None
    return sorted(set(loaded) - set(getattr(sys, "stdlib_module_names", ())))


@contextlib.contextmanager
def captured() -> "Iterator[Callable[[], bool]]":
    """Standard output and error go nowhere; yields what tells whether there was any."""
    scratch = os.memfd_create("output")
    null = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(scratch, fd)

    def printed() -> bool:
        flush()
        return os.fstat(scratch).st_size > 0

    try:
        yield printed
    finally:
        flush()
        for fd in (1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.close(scratch)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def open_files() -> "set[str]":
    """What is open, as ``number:name``."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found.add(f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def has_threads() -> bool:
    """Whether threads run that a fork would leave behind.

    OpenBLAS, for one, ends its threads before each fork and starts them when they are wanted again; those do no harm.
    """
    if len(os.listdir("/proc/self/task")) == 1:
        return False
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(os.listdir("/proc/self/task")) > 1


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def refuse_hidden(folder: str) -> None:
    """A module of the script's folder that has the name of one that is loaded already would not be found any more.

    Raises:
        Refused: there is one.
    """
    tops = {name for name in sys.modules if "." not in name} - _AT_START - {"__main__"}
    for top in sorted(tops):
        if top not in sys.builtin_module_names and importlib.machinery.PathFinder.find_spec(top, [folder]):
            raise Refused(f"its code has a module {top!r} of its own, which is the name of another, too")


# --- the interpreter that forks -------------------------------------------------------------------------------------


class Forks:
    """What is needed to become the script.

    Args:
        setup: ``script`` or ``module``; ``argv`` (the script's), ``original`` (the interpreter's), ``roots``
            (the pipeline's code, then its inputs), ``exclude`` (package -> why it is not to be imported here).
    """

    def __init__(self, setup: "dict[str, Any]") -> None:
        self.script: str | None = setup.get("script")
        self.module: str | None = setup.get("module")
        self._argv: list[str] = setup["argv"]
        self._code: types.CodeType | None = None
        wanted = Wanted(setup["roots"])
        folder = self._first_on_path()
        if _HERE is not None:
            sys.path.insert(0, folder)
        sys.argv = list(self._argv)
        sys.orig_argv = list(setup["original"])
        if self.script is not None:
            self.script = os.path.join(os.getcwd(), self.script)
            if not os.path.isfile(self.script) or not Wanted(setup["roots"][:1]).is_own(self.script):
                raise Refused(f"{setup['script']} is no file of the pipeline's code")
            wanted.scan(self.script)
            self._compile()
        else:
            spec = find((self.module or "").split(".")[0])
            if spec is None:
                raise Refused(f"there is no module {self.module}")
            wanted._want(self.module or "", ["__main__"], "pass")
            wanted.statements.pop("pass", None)
        self.loaded = preload(wanted, setup["exclude"])
        common = {*getattr(sys, "stdlib_module_names", ()), *self.loaded}
        self.later = {top: why for top, why in wanted.later.items() if top not in common}
        if _HERE is not None:
            refuse_hidden(folder)
        for path in [path for path in sys.path_importer_cache if wanted.is_own(path)]:
            del sys.path_importer_cache[path]  # its modules are other ones at the next datum
        importlib.invalidate_caches()

    def _first_on_path(self) -> str:
        """The folder that Python puts first on `sys.path`."""
        if self.script is None:
            return os.getcwd()
        script = self.script
        if os.path.islink(script):
            script = os.path.join(os.path.dirname(script), os.readlink(script))
        return os.path.realpath(os.path.dirname(script))

    def _compile(self) -> None:
        """Once for all datums; where something is to be said of the source, each child says it itself."""
        with captured() as printed, contextlib.suppress(Exception), open(str(self.script), "rb") as file:
            code = compile(file.read(), str(self.script), "exec", dont_inherit=True)
            self._code = None if printed() else code

    def become(self, request: "dict[str, Any]", fds: "list[int]") -> None:
        """In a child that was just forked: be what the script would find if it had been started by itself."""
        os.setsid()
        take_streams(fds)
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        reseed()
        END.preloaded = set(sys.modules)
        main = types.ModuleType("__main__")
        main.__dict__.update(_BLANK)
        main.__doc__ = None
        if self.script is not None:
            main.__file__ = self.script
            main.__loader__ = importlib.machinery.SourceFileLoader("__main__", self.script)
        sys.modules["__main__"] = main
        if "__mp_main__" in sys.modules:  # multiprocessing's other name for it
            sys.modules["__mp_main__"] = main

    def run(self) -> None:
        """Run the script to its end; what it raises is to reach the interpreter."""
        if self.module is not None:
            import runpy

            runpy._run_module_as_main(self.module)  # type: ignore[attr-defined]
            return
        code = self._code
        if code is None:
            with open(str(self.script), "rb") as file:
                code = compile(file.read(), str(self.script), "exec", dont_inherit=True)
        exec(code, sys.modules["__main__"].__dict__)


def take_streams(fds: "list[int]") -> None:
    """Make the two descriptors that came with a request standard input, and standard output and error."""
    stdin, out = fds
    os.dup2(stdin, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(stdin)
    os.close(out)


def reseed() -> None:
    """Random numbers that differ in each process, where nobody asked for certain ones.  (`random` sees to itself.)"""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    logging = sys.modules.get("logging")
    start = getattr(logging, "_startTime", None)
    if start is not None:  # `relativeCreated` counts from the start of the process
        import time

        logging._startTime = time.time_ns() if isinstance(start, int) else time.time()  # type: ignore[union-attr]


class End:
    """How a forked child ends: all that the interpreter does at its end, but for taking apart what it did not make.

    To free the modules that were imported before the fork takes ten times as long as the fork, and tells nobody
    anything.  What the script made is freed, which may close files and run `__del__`; then the C library ends the
    process, which runs what extension modules have registered with it.
    """

    def __init__(self) -> None:
        self.status: int | None = None  # not for us: the interpreter ends by itself
        self.preloaded: set[str] = set()

    def __call__(self) -> None:
        if self.status is None:
            return
        try:
            import ctypes

            leave = ctypes.PyDLL(None).exit
        except (ImportError, OSError, AttributeError):
            return
        atexit._clear()
        flush_files()  # first: a file that is freed in a cycle may be closed before what is to be written to it
        free(["__main__", *(name for name in sys.modules if name not in self.preloaded)])
        flush_files()
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()
        except Exception:  # the interpreter has words and a status for that
            return
        leave(self.status)


def free(names: "list[str]") -> None:
    """Let go of modules as the interpreter does at its end: what still holds one afterwards finds its names gone."""
    import gc
    import weakref

    popped = [sys.modules.pop(name) for name in names]  # scripts put other things in there, too
    left = [weakref.ref(module) for module in popped if isinstance(module, types.ModuleType)]
    del popped
    gc.collect()
    for reference in left[::-1]:
        held = getattr(reference(), "__dict__", {})
        for private in (True, False):
            for name in list(held):
                if name != "__builtins__" and (name.startswith("_") and not name.startswith("__")) == private:
                    held[name] = None
    gc.collect()


def flush_files() -> None:
    """What is still open may be held by something that is not freed here."""
    import gc
    import io

    for each in gc.get_objects():
        if isinstance(each, io.IOBase):
            with contextlib.suppress(Exception):
                each.flush()


def end_status(error: BaseException) -> "int | None":
    """The exit status that the interpreter gives; None for an interrupt, as which it kills itself."""
    if isinstance(error, SystemExit):
        code = error.code
        return 0 if code is None else code & 0xFF if isinstance(code, int) else 1
    return None if isinstance(error, KeyboardInterrupt) else 1


def hide_own_frames() -> None:
    """Have the traceback begin in the script, where that of a process of its own begins."""
    hook = sys.excepthook

    def shown(kind: "Any", error: BaseException, trace: "Any") -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = shown


# --- the interpreter that calls -------------------------------------------------------------------------------------


class Calls:
    """Calls the user's function, or the one object of the user's class, for each datum.

    Args:
        setup: ``callable`` (``module:name``), ``path`` (the folder of the pipeline's code).
    """

    def __init__(self, setup: "dict[str, Any]") -> None:
        self._name: str = setup["callable"]
        self._function: Callable[..., object] | None = None
        sys.path.insert(0, setup["path"])
        sys.argv = [""]

    def run(self, request: "dict[str, Any]", fds: "list[int]") -> int:
        """The exit status: 0, or 1 where it raised something, or that of `sys.exit`."""
        from pathlib import Path

        take_streams(fds)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        inputs = {name: Path(path) for name, path in request["inputs"].items()}
        try:
            if self._function is None:
                self._function = self._load()
            gave = self._function(inputs, Path(request["out"]))
            if hasattr(gave, "__await__") or hasattr(gave, "send") or hasattr(gave, "asend"):
                raise TypeError(f"{self._name} gave a {type(gave).__name__}: it has to be an ordinary function")
            status = 0
        except SystemExit as end:
            if end.code is not None and not isinstance(end.code, int):
                print(end.code, file=sys.stderr)
            status = end_status(end) or 0
        except BaseException as error:
            import traceback

            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next
            traceback.print_exception(type(error), error, trace)
            status = 1
        for name in request["env"]:
            os.environ.pop(name, None)
        os.umask(0o022)
        flush()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        return status

    def _load(self) -> "Callable[..., object]":
        module, _, name = self._name.partition(":")
        __import__(module)
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
        return found() if isinstance(found, type) else found  # type: ignore[no-any-return]


# --- talking to the agent -------------------------------------------------------------------------------------------


class Line:
    """Messages: eight hex digits that tell the length, and so many bytes of JSON; file descriptors may come along."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    def receive(self, fds: int = 0) -> "tuple[dict[str, Any], list[int]] | None":
        head, came, _, _ = socket.recv_fds(self._socket, HEADER, fds)
        while 0 < len(head) < HEADER:
            more = self._socket.recv(HEADER - len(head))
            if not more:
                return None
            head += more
        if not head:
            return None
        body = b""
        while len(body) < int(head, 16):
            more = self._socket.recv(int(head, 16) - len(body))
            if not more:
                return None
            body += more
        return json.loads(body), list(came)

    def send(self, message: "dict[str, Any]") -> None:
        body = json.dumps(message).encode()
        self._socket.sendall(b"%08x" % len(body) + body)

    def close(self) -> None:
        self._socket.close()


def serve(line: Line) -> "Forks | None":
    """Answer requests; returns in a forked child, as the script that it is to run, and at the end."""
    received = line.receive()
    if received is None:
        return None
    setup, _ = received
    try:
        worker = Calls(setup) if "callable" in setup else Forks(setup)
    except Refused as why:
        line.send({"refused": str(why)})
        return None
    except Again as again:
        line.send({"again": again.args})
        return None
    files = Files()
    if isinstance(worker, Calls):
        line.send({"ready": True, "files": files.more()})
        while (received := line.receive(2)) is not None:
            status = worker.run(*received)
            line.send({"status": status << 8, "files": files.more()})
        return None
    line.send({"ready": True, "loaded": worker.loaded, "later": worker.later, "files": files.more()})
    seal = sealed()
    collect_nothing()
    while (received := line.receive(2)) is not None:
        request, fds = received
        pid = os.fork()
        if not pid:
            line.close()
            seal(1)
            worker.become(request, fds)
            return worker
        for fd in fds:
            os.close(fd)
        line.send({"pid": pid})
        line.send({"status": os.waitpid(pid, 0)[1]})
    return None


class Files:
    """The files that modules were loaded from: when one of them changes, this interpreter is out of date."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def more(self) -> "list[str]":
        """Those that came since the last time."""
        fresh = [name for name in list(sys.modules) if name not in self._known]
        self._known.update(fresh)
        files = [getattr(sys.modules.get(name), "__file__", None) for name in fresh]
        return [file for file in files if isinstance(file, str) and os.path.isabs(file)]


def collect_nothing() -> None:
    """What is here lives for ever: a search for garbage in a child would only copy all of its memory."""
    import gc

    gc.collect()
    gc.freeze()


def sealed() -> "Callable[[int], object]":
    """Keep scripts from tracing this process, which later ones are forked from; what takes that back in a child."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda _: None
    prctl(SET_DUMPABLE, 0, 0, 0, 0)
    return lambda value: prctl(SET_DUMPABLE, value, 0, 0, 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    END = End()
    atexit.register(END)  # the first to be registered is the last to be called
    _line = Line(int(sys.argv[1]))
    _script = serve(_line)
    if _script is not None:
        try:
            _script.run()
            END.status = 0
        except BaseException as _error:
            END.status = end_status(_error)
            hide_own_frames()
            raise
