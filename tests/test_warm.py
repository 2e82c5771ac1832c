"""Python stages: run by forks of an interpreter that is kept, or called in it; no script can tell the difference.

The corpus below is run both ways, with and without a sandbox, and all that can be seen of it is compared.
"""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path

import pytest

from gitpipe.stage import Result, Task
from gitpipe.stage.worker import Worker
from tests.stagekit import Kit, both, needs_sandbox, processes_with, seconds

FORKED = "forked from a Python"


# Name -> the script, which is `code/s.py`.  `out(text)` writes /pfs/out/x.
SCRIPTS = {
    "identity": """
        import os, sys
        print(sys.argv, sys.orig_argv, sys.executable, sys.prefix, sys.flags, os.getcwd(), __name__, __file__)
        print(sorted(globals()), __spec__, __package__, __cached__, type(__loader__), __loader__.path, __builtins__)
        print(sys.path, sys.stdin, sys.stdout, sys.stderr, sys.stdout.line_buffering, sys.argv is sys.argv)
        print(sorted(os.environ.items()))
        print([fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")], os.getpgid(0) == os.getpid())
        print(sys.modules["__main__"].__dict__ is globals(), sys.getrecursionlimit(), sys.excepthook, os.umask(0))
    """,
    "docstring": '''
        """What it does."""
        x: int = 1
        print(__doc__, __annotations__)
    ''',
    "exit status": "import sys; print('a', end=''); sys.exit(3)",
    "exit with a message": "import sys; sys.exit('because')",
    "exit with nothing": "raise SystemExit",
    "exit with a large number": "import sys; sys.exit(-1)",
    "exit at once": "import os; print('not flushed'); os._exit(4)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": "import os; os.abort()",
    "interrupted": "raise KeyboardInterrupt",
    "traceback": """
        def f(x):
            return 1 / x
        f(0)
    """,
    "chained": """
        import json
        try:
            json.loads("{")
        except ValueError as error:
            raise RuntimeError("no json") from error
    """,
    "exception group": """
        import sys
        if sys.version_info >= (3, 11):
            raise ExceptionGroup("several", [ValueError(1), KeyError("x")])
    """,
    "syntax error": "def f(:\n  pass",
    "own excepthook": """
        import sys
        def hook(kind, error, trace):
            print(kind, error, trace.tb_frame.f_code.co_name, trace.tb_lineno)
        sys.excepthook = hook
        raise ValueError(2)
    """,
    "atexit": """
        import atexit, logging, sys
        atexit.register(print, "first")
        atexit.register(lambda: 1 / 0)
        atexit.register(print, "last")
        logging.basicConfig(level="INFO", stream=sys.stdout, format="%(levelname)s %(message)s")
        logging.info("told")
        sys.exit(5)
    """,
    "threads": """
        import threading, time
        def later():
            threading.main_thread().join()
            print("after the end of the script")
        threading.Thread(target=later).start()
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        print("script ends", threading.active_count())
    """,
    "thread that fails": """
        import threading
        def f():
            raise ValueError("in a thread")
        t = threading.Thread(target=f, name="mine"); t.start(); t.join()
    """,
    "files left open": """
        import functools, os
        f = open("/pfs/out/x", "w"); f.write("not closed")
        g = open("/pfs/out/y", "wb", buffering=1 << 16); g.write(b"nor this")
        @functools.lru_cache
        def hidden():
            h = open("/pfs/out/z", "w"); h.write("hidden"); return h
        hidden()
        os.held = open("/pfs/out/w", "w"); os.held.write("in a module")
    """,
    "del": """
        class A:
            def __init__(self, name): self.name = name
            def __del__(self): print("gone", self.name)
        a = A("a"); _b = A("b")
        cycle = [A("cycle")]; cycle.append(cycle)
    """,
    "warnings": """
        import warnings
        warnings.warn("careful")
        warnings.warn("old", DeprecationWarning)
    """,
    "no newline": "import sys; sys.stdout.write('x'); sys.stderr.write('y'); sys.stdout.write('z')",
    "pickle of a class of its own": """
        import pickle, dataclasses
        @dataclasses.dataclass
        class P:
            x: int
        print(pickle.loads(pickle.dumps(P(3))), P.__module__)
    """,
    "processes": """
        import multiprocessing, subprocess, sys
        def square(x): return x * x
        if __name__ == "__main__":
            sys.stdout.flush()
            for way in ("fork", "spawn"):
                with multiprocessing.get_context(way).Pool(2) as pool:
                    print(pool.map(square, range(5)))
            print(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout)
    """,
    "asyncio": """
        import asyncio
        async def main():
            await asyncio.sleep(0.001)
            process = await asyncio.create_subprocess_exec("echo", "hi", stdout=-1)
            print(await process.communicate())
        asyncio.run(main())
    """,
    "its own modules": """
        import helper, package.part, json
        from package import inner
        print(helper.VALUE, package.part.NAME, inner.f(), helper.__file__, json.__file__.endswith("json/__init__.py"))
    """,
    "imports that fail": """
        try:
            import nothing_of_this_name
        except ImportError as error:
            print(error)
        import also_absent
    """,
    "an import that prints": "import this; print(this.d['A'])",
    "seeded": """
        import random, numpy
        random.seed(1); numpy.random.seed(1)
        print(random.random(), numpy.random.rand(3), numpy.random.default_rng(7).normal())
    """,
    "libraries": """
        import numpy as np, pandas as pd
        from sklearn.linear_model import LogisticRegression
        from sklearn.datasets import load_iris
        x, y = load_iris(return_X_y=True)
        model = LogisticRegression(max_iter=20).fit(x, y)
        print(repr(model.coef_.tobytes()), pd.DataFrame(x).describe().to_string(), np.linalg.svd(x)[1].tobytes())
    """,
    "standard input": "import sys; print(sys.stdin.read(), input if 0 else sys.stdin.closed)",
    "encoding": "# coding: latin-1\nprint(ascii('\udce9'))",
    "syntax warning": "import helper\nprint('\\\\d', 1 is 1)",
    "type checking": """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import nothing_of_this_name
        def f(x: nothing_of_this_name.X): ...
        print(f.__annotations__)
    """,
    "inspect": """
        import inspect, linecache
        def f():
            return 1
        print(inspect.getsource(f), inspect.getfile(f))
    """,
    "prctl": "import ctypes; print(ctypes.CDLL(None).prctl(3), open('/proc/self/environ').read() != '')",
    "signals": "import signal; print([signal.getsignal(n) for n in (1, 2, 13, 15, 17)])",
    "stdout closed": "import sys; print('x'); sys.stdout.close()",
    "crash in C": "import ctypes; ctypes.string_at(0)",
    "recursion": "def f(): f()\nf()",
    "memory error": "x = bytearray(1 << 60)",
}
COMMANDS = {
    "plain": ("python", "s.py", "-a", "b c"),
    "options": ("python", "-u", "-W", "error::UserWarning", "-O", "-Xutf8=1", "/code/s.py"),
    "other spelling": ("python3", "./sub/../s.py"),
    "module": ("python", "-m", "s", "x"),
    "isolated": ("python", "-I", "s.py"),
}
FILES = {
    "helper.py": "import numpy\nVALUE = 4\n",
    "package/__init__.py": "",
    "package/part.py": "from . import inner\nimport pandas as pd\nNAME = pd.__name__\n",
    "package/inner.py": "def f(): return __name__\n",
    "sub/none": "",
}


def write(kit: Kit, script: str, files: dict[str, str] | None = None) -> None:
    for name, text in {**FILES, **(files or {})}.items():
        kit.script(name, text, 0o644)
    path = kit.code / "s.py"
    path.write_bytes(textwrap.dedent(script).strip("\n").encode("utf-8", "surrogateescape"))


def seen(kit: Kit, result: Result) -> tuple[object, ...]:
    """All that can be seen of a run, without what differs from one process to the next."""
    log = result.log.decode("utf-8", "backslashreplace")
    log = re.sub(r"0x[0-9a-f]+|slot\d+|line repeated \d+ more", "-", log)
    return result.error, result.exit_code, log, kit.contents(result)


def ways(kit: Kit, cmd: tuple[str, ...], sandbox: str = "auto", **more: object) -> tuple[Worker, Worker]:
    forked = kit.worker(kit.stage(*cmd, sandbox=sandbox, **more))
    return forked, kit.worker(kit.stage(*cmd, sandbox=sandbox, preload=False, **more))


@both
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_fork_is_as_a_process(kit: Kit, name: str, sandbox: str) -> None:
    write(kit, SCRIPTS[name])
    forked, single = ways(kit, COMMANDS["plain"], sandbox, stdin=("one", "two"))
    want = seen(kit, single.run(kit.task({"a": b"1"})))
    for _ in range(2):
        result = forked.run(kit.task({"a": b"1"}))
        assert result.environment["runtime"].startswith(FORKED), result.environment
        assert seen(kit, result) == want


@both
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["identity", "traceback", "chained", "warnings", "its own modules", "exit status"])
def test_however_it_is_called(kit: Kit, name: str, command: str, sandbox: str) -> None:
    write(kit, SCRIPTS[name])
    forked, single = ways(kit, COMMANDS[command], sandbox)
    want = seen(kit, single.run(kit.task()))
    result = forked.run(kit.task())
    assert result.environment["runtime"].startswith(FORKED), result.environment
    assert seen(kit, result) == want


def test_random_state_is_fresh(kit: Kit) -> None:
    """Nobody gets the numbers of the datum before, and whoever seeds gets the seed's."""
    numbers = "random.random(), np.random.rand(), uuid.uuid4(), secrets.token_hex(), os.urandom(4).hex()"
    write(kit, f"import random, uuid, secrets, numpy as np, os\nprint({numbers})")
    forked = kit.worker(kit.stage("python", "s.py"))
    logs = [forked.run(kit.task()).log.decode().split() for _ in range(3)]
    assert all(len(set(column)) == 3 for column in zip(*logs, strict=True))


@both
def test_nothing_leaks_from_one_datum_to_the_next(kit: Kit, sandbox: str) -> None:
    write(
        kit,
        """
        import json, os, resource, signal, sys, logging, numpy
        state = [os.getcwd(), os.environ.get("LEFT"), os.umask(0o22), signal.getsignal(signal.SIGUSR1),
                 getattr(json, "left", None), "left" in sys.modules, sys.path, len(os.listdir("/proc/self/fd")),
                 resource.getrlimit(resource.RLIMIT_CORE), logging.root.handlers, numpy.geterr(), globals().get("x"),
                 os.listdir(os.environ["TMPDIR"]), os.listdir(os.environ["HOME"]), os.nice(0)]
        print(state)
        x = json.left = 1
        sys.modules["left"] = json
        os.environ["LEFT"] = "1"
        os.umask(0)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.open("/dev/null", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        logging.basicConfig()
        numpy.seterr(all="raise")
        for folder in (os.environ["TMPDIR"], os.environ["HOME"]):
            open(f"{folder}/left", "w").close()
        sys.path.append("left")
        os.nice(1)
        os.chdir("/")
        """,
    )
    worker = kit.worker(kit.stage("python", "s.py", sandbox=sandbox))
    first, *others = [worker.run(kit.task()) for _ in range(3)]
    assert first.ok and first.log, first
    assert [other.log for other in others] == [first.log] * 2


@both
def test_environment_and_inputs_of_each_datum(kit: Kit, sandbox: str) -> None:
    write(
        kit, "import os, pathlib\nfor p in sorted(pathlib.Path(os.environ['PFS']).iterdir()): print(p.name, os.environ)"
    )
    stage = kit.stage("python", "s.py", sandbox=sandbox, env=(("PFS", "/pfs/in"), ("SAME", "1")))
    worker = kit.worker(stage)
    for number in range(3):
        log = worker.run(kit.task({f"f{number}": b"x"}, ONE=str(number), PACH_DATUM_ID=f"d{number}")).log.decode()
        assert log.startswith(f"f{number} ") and f"'ONE': '{number}'" in log and f"'d{number}'" in log
    log = worker.run(kit.task({"f": b"x"})).log.decode()
    assert "'SAME': '1'" in log and "ONE" not in log and "PACH_DATUM_ID" not in log


@both
def test_what_a_script_leaves_running_is_ended(kit: Kit, sandbox: str) -> None:
    """Also where its time is up; the interpreter that is kept goes on."""
    sleeper = seconds(5151)
    write(kit, f"""
        import os, subprocess, sys, time
        subprocess.Popen(["sleep", "{sleeper}"], start_new_session=True)
        print(os.getppid(), flush=True)
        if os.path.exists(os.environ["PFS"] + "/slow"): time.sleep({sleeper})
    """)  # fmt: skip
    stage = kit.stage("python", "s.py", sandbox=sandbox, env=(("PFS", "/pfs/in"),), timeout=60.0)
    worker = kit.worker(stage)
    parents = []
    for files in ({"a": b"1"}, {"b": b"1"}):
        result = worker.run(kit.task(files))
        assert result.ok, result
        parents.append(result.log)
        assert processes_with(sleeper) == []
    slow = kit.worker(kit.stage("python", "s.py", sandbox=sandbox, env=(("PFS", "/pfs/in"),), timeout=3.0))
    parents = []
    for _ in range(2):
        result = slow.run(kit.task({"slow": b"1"}))
        assert result.error == "timed out after 3 s", result
        parents.append(result.log)
        assert processes_with(sleeper) == []
    result = slow.run(kit.task({"a": b"1"}))
    assert result.ok and result.environment["runtime"].startswith(FORKED)
    assert {*parents, result.log} == {result.log}, "it is the same interpreter that is kept"


@both
def test_a_script_that_kills_the_kept_interpreter(kit: Kit, sandbox: str) -> None:
    """Its own datum fails; the next has a new one."""
    write(kit, "import os, sys\nif os.path.exists(os.environ['PFS'] + '/bad'): os.kill(os.getppid(), 9)\nprint('fine')")
    worker = kit.worker(kit.stage("python", "s.py", sandbox=sandbox, env=(("PFS", "/pfs/in"),)))
    assert worker.run(kit.task({"good": b"1"})).ok
    assert worker.run(kit.task({"bad": b"1"})).error == "killed by SIGKILL (out of memory?)"
    result = worker.run(kit.task({"good": b"1"}))
    assert result.ok and result.environment["runtime"].startswith(FORKED)


@needs_sandbox
def test_the_kept_interpreter_cannot_be_written_to(kit: Kit) -> None:
    write(kit, """
        import ctypes, os
        parent = os.getppid()
        for name in ("mem", "environ", "maps", "fd/0", "exe"):
            try:
                open(f"/proc/{parent}/{name}", "rb").read(1)
                print(name, "could be read")
            except OSError as error:
                print(name, error.errno)
        print(ctypes.CDLL(None, use_errno=True).ptrace(16, parent, 0, 0), ctypes.get_errno())
    """)  # fmt: skip
    result = kit.worker(kit.stage("python", "s.py")).run(kit.task())
    assert "could be read" not in result.log.decode() and result.log.decode().splitlines()[-1].startswith("-1 ")


LIBRARY = {
    "printing": ("print('imported')", "prints"),
    "warning": ("import warnings; warnings.warn('old')", "prints"),
    "threaded": (
        "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        "threads",
    ),
    "opening": ("held = open('/dev/null')", "leaves a file open"),
    "starting": ("import subprocess; held = subprocess.Popen(['sleep', '60'])", "starts a process"),
    "failing": ("raise RuntimeError('no device')", "its import fails (RuntimeError)"),
    "leaving": ("raise SystemExit(3)", "its import fails (SystemExit)"),
    "own": ("import helper", "pipeline's own code"),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_what_cannot_be_shared_is_imported_by_each_datum(kit: Kit, tmp_path: Path, name: str) -> None:
    """And all else is shared still; what is to be seen is the same as ever."""
    text, why = LIBRARY[name]
    library = tmp_path / "library"
    library.mkdir()
    (library / f"odd_{name}.py").write_text(f"import sys\n{text}\n")
    write(kit, f"""
        import pandas
        try:
            import odd_{name}
        except RuntimeError as error:
            print(error)
        print(len(pandas.__name__))
    """)  # fmt: skip
    forked, single = ways(kit, COMMANDS["plain"], "none", env=(("PYTHONPATH", str(library)),))
    want = seen(kit, single.run(kit.task()))
    for _ in range(2):
        result = forked.run(kit.task())
        assert seen(kit, result) == want
        way = result.environment["runtime"]
        assert way.startswith(f"{FORKED} that has imported pandas; not odd_{name}: ") and why in way


@pytest.mark.parametrize(
    ("cmd", "files", "why"),
    [
        (("python", "-c", "print(1)"), {}, "Python is called with -c"),
        (("python", "-i", "s.py"), {}, "Python is called with -i"),
        (("python",), {}, "Python is called without a script"),
        (("python", "-"), {}, "Python is called without a script"),
        (("python", "absent.py"), {}, "absent.py is no file of the pipeline's code"),
        (("python", "sub"), {"sub/__main__.py": "print('main')"}, "sub is no file of the pipeline's code"),
        (("python", "/pfs/in/script.py"), {}, "/pfs/in/script.py is no file of the pipeline's code"),
        (("python", "-m", "nothing_of_this_name"), {}, "there is no module nothing_of_this_name"),
        (("python", "s.py"), {"json.py": "loads = 1"}, "its code has a module 'json' of its own"),
        (("sh", "-c", "python s.py"), {}, "sh is not the `python` that"),
    ],
)
def test_a_process_where_it_has_to_be_one(kit: Kit, cmd: tuple[str, ...], files: dict[str, str], why: str) -> None:
    write(kit, "import json\nprint(json.loads)", files)
    forked, single = ways(kit, cmd, stdin=("print(2)",))
    task = kit.task({"script.py": b"print(3)"})
    result = forked.run(task)
    assert seen(kit, result) == seen(kit, single.run(task))
    assert result.environment["runtime"].startswith(f"a process for each datum: {why}")


def test_a_script_that_is_an_input(kit: Kit) -> None:
    """Modules among the inputs are each datum's own."""
    write(kit, "import sys; sys.path.insert(0, '/pfs/in'); import mine; print(mine.NAME)")
    worker = kit.worker(kit.stage("python", "s.py", env=(("PYTHONPATH", "/pfs/in"),)))
    for name in ("one", "two"):
        result = worker.run(kit.task({"mine.py": f"NAME = {name!r}".encode()}))
        assert result.log.decode() == f"{name}\n", result


def test_an_input_whose_name_python_reads_when_it_starts(kit: Kit) -> None:
    write(kit, "import os; print(os.environ['PYTHONOPTIMIZE'], __debug__)")
    worker = kit.worker(kit.stage("python", "s.py"))
    result = worker.run(kit.task(PYTHONOPTIMIZE="1"))
    assert result.log.decode() == "1 False\n"
    assert "PYTHONOPTIMIZE means something to Python" in result.environment["runtime"]


# --- callables --------------------------------------------------------------------------------------------------------


def call(kit: Kit, name: str, source: str, **more: object) -> Worker:
    kit.script("stages.py", textwrap.dedent(source), 0o644)
    return kit.worker(kit.stage(callable=name, **more))


@both
def test_a_function_is_called_for_each_datum(kit: Kit, sandbox: str) -> None:
    worker = call(
        kit,
        "stages:work",
        """
        import os
        from pathlib import Path
        CALLS = []
        def work(inputs: dict[str, Path], out: Path) -> None:
            CALLS.append(1)
            assert isinstance(out, Path) and os.getcwd() == os.path.dirname(__file__)
            text = inputs["in"].joinpath("a").read_text()
            (out / "b").write_text(f"{text} {len(CALLS)} {os.environ['ONE']}")
            print("did", text)
        """,
        sandbox=sandbox,
    )
    for number in (1, 2, 3):
        result = worker.run(kit.task({"a": b"x%d" % number}, ONE=str(number)))
        assert kit.contents(result) == {"b": b"x%d %d %d" % (number, number, number)}, result
        assert result.log == b"did x%d\n" % number and result.exit_code == 0
        assert result.environment["runtime"] == "called in one Python"


def test_a_class_is_made_once(kit: Kit) -> None:
    worker = call(
        kit,
        "stages:Models.Predict",
        """
        class Models:
            class Predict:
                def __init__(self): print("made"); self.calls = 0
                def __call__(self, inputs, out): self.calls += 1; print(self.calls, sorted(inputs))
        """,
    )
    assert [worker.run(kit.task({"a": b"1"})).log for _ in range(3)] == [
        b"made\n1 ['in']\n",
        b"2 ['in']\n",
        b"3 ['in']\n",
    ]


def test_paths_of_the_matches(kit: Kit) -> None:
    worker = call(kit, "stages:f", "def f(inputs, out): print({k: str(v) for k, v in inputs.items()}, out)")
    one, two = kit.task({"a/x": b"1"}, name="one").inputs + kit.task({"b": b"2"}, name="two").inputs
    import dataclasses

    inputs = (dataclasses.replace(one, match="/a/x"), two, dataclasses.replace(two, match="/b"))
    result = worker.run(Task("d", inputs[:2]))
    assert result.log.decode() == "{'one': '/pfs/one/a/x', 'two': '/pfs/two'} /pfs/out\n"
    group = kit.task({"a": b"1"}, name="g").inputs + kit.task({"b": b"1"}, name="g").inputs
    result = worker.run(Task("d", tuple(dataclasses.replace(i, match=f"/{i.files[0][0]}") for i in group)))
    assert result.log.decode() == "{'g': '/pfs/g'} /pfs/out\n", "a group's files of one name lie in one folder"


@both
def test_a_callable_that_fails(kit: Kit, sandbox: str) -> None:
    worker = call(
        kit,
        "stages:f",
        """
        import os, sys, time
        def f(inputs, out):
            (name,) = os.listdir(inputs["in"])
            (out / "begun").write_text(name)
            if name == "raise": raise ValueError("no")
            if name == "exit": sys.exit(7)
            if name == "message": sys.exit("because")
            if name == "gone": os._exit(9)
            if name == "killed": os.kill(os.getpid(), 9)
            if name == "slow": time.sleep(1000)
        """,
        sandbox=sandbox,
        timeout=5.0,
        accept_return_code=(7,),
    )
    raised = worker.run(kit.task({"raise": b""}))
    assert raised.error == "exit status 1" and raised.outputs == ()
    lines = raised.log.decode().splitlines()
    assert (
        lines[0] == "Traceback (most recent call last):" and "stages.py" in lines[1] and lines[-1] == "ValueError: no"
    )
    assert worker.run(kit.task({"exit": b""})).ok, "accept_return_code counts"
    assert worker.run(kit.task({"message": b""})).log == b"because\n"
    for name, said in (("gone", "exit status 9"), ("killed", "killed by SIGKILL"), ("slow", "timed out after 5 s")):
        assert worker.run(kit.task({name: b""})).error.startswith(said), name
        assert worker.run(kit.task({"good": b""})).ok, f"after {name} it is called in a new interpreter"


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("absent:f", "", "ModuleNotFoundError: No module named 'absent'"),
        ("stages:absent", "", "AttributeError: module 'stages' has no attribute 'absent'"),
        ("stages:f", "1 / 0", "ZeroDivisionError: division by zero"),
        ("stages:f", "def f(:", "SyntaxError: invalid syntax"),
        ("stages:f", "f = 3", "TypeError: 'int' object is not callable"),
        ("stages:f", "def f(): pass", "TypeError: f() takes 0 positional arguments but 2 were given"),
        ("stages:F", "class F:\n  def __init__(self, x): pass", "required positional argument: 'x'"),
    ],
)
def test_what_cannot_be_called(kit: Kit, name: str, source: str, said: str) -> None:
    result = call(kit, name, source).run(kit.task())
    assert result.error == "exit status 1" and said in result.log.decode().splitlines()[-1]


def test_no_python_to_call_it_in(kit: Kit) -> None:
    result = call(kit, "stages:f", "def f(i, o): pass", python="/nowhere/python").run(kit.task())
    assert result.error.startswith("cannot start /nowhere/python: ")


def test_other_pythons_are_kept_as_well(kit: Kit, tmp_path: Path) -> None:
    """A virtual environment of the user's, not the one that gitpipe lives in."""
    import venv

    venv.create(tmp_path / "venv", symlinks=True)
    python = str(tmp_path / "venv/bin/python")
    write(kit, "import sys; print(sys.prefix, sys.executable)")
    result = kit.worker(kit.stage("python", "s.py", python=python)).run(kit.task())
    assert result.log.decode().split() == [str(tmp_path / "venv"), python]
    assert result.environment["runtime"].startswith(FORKED)


@both
def test_what_a_callable_leaves_running_is_ended(kit: Kit, sandbox: str) -> None:
    """A child that was killed is its parent's to ask for, which a kept Python may never do."""
    sleeper = seconds(5252)
    worker = call(
        kit,
        "stages:f",
        f"""
        import os, subprocess
        def f(inputs, out):
            (out / "x").write_text(str(os.getpid()))
            subprocess.Popen(["sleep", "{sleeper}"], start_new_session=True)
            subprocess.Popen(["sleep", "{sleeper}"])
            if not os.fork():
                os._exit(2)
        """,
        sandbox=sandbox,
        timeout=60.0,
    )
    made = []
    for _ in range(3):
        result = worker.run(kit.task())
        assert result.ok, result
        assert processes_with(sleeper) == []
        made.append(kit.contents(result))
    assert made[0] == made[1] == made[2], "it is one interpreter that is called"


def test_how_a_callable_crashed(kit: Kit) -> None:
    worker = call(
        kit,
        "stages:f",
        """
        import ctypes, os, signal
        def f(inputs, out):
            (name,) = os.listdir(inputs["in"])
            {"read": lambda: ctypes.string_at(0), "deaf": lambda: os.closerange(3, 100),
             "gone": lambda: os._exit(0)}.get(name, lambda: None)()
        """,
    )
    assert worker.run(kit.task({"read": b""})).error == "killed by SIGSEGV"
    for name in ("deaf", "gone"):
        assert worker.run(kit.task({name: b""})).error == "exit status 1"
        assert worker.run(kit.task({"good": b""})).ok


@needs_sandbox
@pytest.mark.parametrize(
    "harm",
    [
        "rm -rf ~; ln -s /pfs/out ~",
        "rm -rf ~; ln -s /etc ~",
        "rmdir ~; echo x > ~",
        "chmod 0 ~",
        "chmod 0 /tmp",
        "chmod 0 /pfs/out",
        "chmod -R a-w /pfs/out",
        "chmod 0 /dev/shm /var/tmp",
    ],
)
def test_each_datum_finds_its_folders_anew(kit: Kit, harm: str) -> None:
    script = f"""
        set -e; test -z "$(ls -A ~)"; test -z "$(ls -A /pfs/out)"; test ! -L ~; test -d ~; touch ~/a /tmp/b
        touch /dev/shm/c /var/tmp/d; cp /pfs/in/* /pfs/out; rm -r ~/a; {harm}"""
    worker = kit.worker(kit.stage("sh", "-c", script))
    for name in ("one", "two", "three"):
        result = worker.run(kit.task({name: b"1"}))
        assert result.ok, result
        assert kit.contents(result) == {name: b"1"}


EFFECTS = {
    "environment": "import os\nos.environ['OPENBLAS_NUM_THREADS'] = '1'\nimport numpy\n"
    "print(__import__('threadpoolctl').threadpool_info()[0]['num_threads'])",
    "path": "import os, sys\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + '/vendor')\n"
    "import tqdm\nprint(tqdm.__file__)",
    "filters": "import warnings\nwarnings.simplefilter('error')\nimport numpy\nprint(warnings.filters)",
    "within a module": "import effect\nimport numpy\nprint(numpy.mine)",
    "in a block": "import sys\nwith open('/dev/null') as sys.held:\n    import numpy\nprint(numpy.__name__)",
    "spawned": "import multiprocessing as mp\nclass K:\n    v = 2\ndef g(x): return K()\nif __name__ == '__main__':\n"
    "    with mp.get_context('spawn').Pool(1) as p: print([k.v for k in p.map(g, [1])])",
    "held at the end": "import atexit, helper2\nclass A:\n    def __del__(self): print('gone')\n    def f(self): pass\n"
    "a = A(); atexit.register(a.f); helper2.a = A()",
}


@pytest.mark.parametrize("name", EFFECTS)
def test_what_a_script_does_before_it_imports_counts(kit: Kit, name: str) -> None:
    files = {
        "vendor/tqdm/__init__.py": "",
        "effect.py": "import sys, types\nsys.modules['numpy'] = types.SimpleNamespace(mine=7)\n",
        "helper2.py": "a = None\n",
    }
    write(kit, EFFECTS[name], files)
    forked, single = ways(kit, ("python", "s.py"), timeout=120.0)
    want = seen(kit, single.run(kit.task()))
    for _ in range(2):
        result = forked.run(kit.task())
        assert seen(kit, result) == want
        assert result.environment["runtime"].startswith(FORKED)
    if name in ("environment", "filters", "in a block"):
        line = {"in a block": 2}.get(name, 2)
        assert f"not numpy: imported after line {line} of s.py has done something" in result.environment["runtime"]


@pytest.mark.parametrize("way", ["script", "callable"])
def test_a_library_that_is_worked_on(kit: Kit, tmp_path: Path, way: str) -> None:
    """A kept Python is not kept longer than the files that it has loaded."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "worked_on.py").write_text("V = 1\n")
    path = (("PYTHONPATH", str(library)),)
    if way == "script":
        write(kit, "import worked_on; print(worked_on.V)")
        worker = kit.worker(kit.stage("python", "s.py", sandbox="none", env=path))
    else:
        worker = call(kit, "stages:f", "import worked_on\ndef f(i, o): print(worked_on.V)", sandbox="none", env=path)
    assert worker.run(kit.task()).log == b"1\n"
    (library / "worked_on.py").write_text("V = 22\n")
    end = time.monotonic() + 60
    while (log := worker.run(kit.task()).log) != b"22\n":
        assert log == b"1\n" and time.monotonic() < end


@pytest.mark.parametrize("source", ["async def f(i, o): pass", "def f(i, o): yield 1", "async def f(i, o): yield 1"])
def test_a_callable_that_would_not_run(kit: Kit, source: str) -> None:
    result = call(kit, "stages:f", source).run(kit.task())
    assert result.error == "exit status 1" and "it has to be an ordinary function" in result.log.decode()
