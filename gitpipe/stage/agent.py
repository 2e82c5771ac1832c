"""The process that lives inside a sandbox and runs the user's command for one datum after another.

Only the standard library, started as ``python -I -S agent.py PLACE PARENT MAX_LOG``.  Knows nothing of datums, of
caches or of gitpipe: it reads a request (a line of JSON) from its standard input, runs that command, ends every
process that it left behind, and answers on its standard output (a line of JSON, then the log's bytes).

A request may also be for a Python that is kept (``warm.py``), which forks or calls for each: then that one process
lives on.  Where it cannot be had the command is started as any other, and the answer says why.

It ends when its standard input does.  PLACE says what it may take for its own: ``inside`` a sandbox it is process 1
of a process namespace, and empties the sandbox's temporary folders after each command; ``outside`` it is an ordinary
process that adopts its orphans.
"""

import contextlib
import errno
import json
import os
import select
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket  # neither of them when run: they would cost each worker's start some milliseconds
    from typing import Any

SET_PARENT_DEATH_SIGNAL, SET_DUMPABLE, SET_CHILD_SUBREAPER = 1, 4, 36
IPC_REMOVE = 0
LIMITS = range(16)
"""All of Linux's RLIMIT_ numbers."""
HOME = "/tmp/home"
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")
READ = 1 << 18
PATIENCE = 30.0
"""Seconds to wait for a killed process to go, before the agent gives itself up for lost."""
WARMING = 600.0
"""Seconds that the imports of a script may take."""
FRESH = 1.0
"""Seconds in which the files of a kept Python are not looked at again."""
TELL_SECONDS = 0.5
"""Between two reports of what a command has printed so far: one that is quicker makes none."""
MAX_NEWS = 1 << 14
"""Bytes of such a report; of more only the newest are told."""
MOST_STARTS = 10
"""How often a kept Python is started anew without a module that cannot be shared."""


class Log:
    """What a command printed: all of it, or the first quarter and the newest rest of `limit` bytes.

    Attributes:
        told: whether some of it was reported while the command ran; then the rest is to be, too.
        due: when the next report is, by the monotonic clock.
    """

    def __init__(self, limit: int, told: bool = False) -> None:
        self.told = told
        self.due = time.monotonic() + TELL_SECONDS
        self._news = bytearray()
        self._skipped = 0
        self._limit = limit
        self._head_size = limit // 4
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    def add(self, data: bytes) -> None:
        self._news += data[-MAX_NEWS:]
        surplus = len(self._news) - MAX_NEWS
        if surplus > 0:
            del self._news[:surplus]
        self._skipped += max(0, surplus) + max(0, len(data) - MAX_NEWS)
        if len(self._head) < self._head_size:
            room = self._head_size - len(self._head)
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 4 * self._limit:
            self._trim()

    def has_news(self) -> bool:
        return bool(self._news)

    def news(self) -> "tuple[int, bytes]":
        """What came since the last call: (bytes left out, the newest ones)."""
        found = self._skipped, bytes(self._news)
        self._news.clear()
        self._skipped = 0
        self.told, self.due = True, time.monotonic() + TELL_SECONDS
        return found

    def _trim(self) -> None:
        surplus = len(self._tail) - (self._limit - self._head_size - 64)
        if surplus > 0:
            del self._tail[:surplus]
            self._cut += surplus

    def bytes(self) -> bytes:
        if self._cut or len(self._head) + len(self._tail) > self._limit:
            self._trim()
            return bytes(self._head) + b"\n[... %d bytes left out ...]\n" % self._cut + bytes(self._tail)
        return bytes(self._head) + bytes(self._tail)


def find_program(name: str, path: str) -> str:
    """The file that `name` stands for, looked up in `path` as a shell would; FileNotFoundError, PermissionError."""
    if "/" in name:
        return name
    refused = ""
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or ".", name)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            refused = candidate
    if refused:
        raise PermissionError(errno.EACCES, "not executable", refused)
    raise FileNotFoundError(errno.ENOENT, "not found in PATH", name)


def explain(name: str, error: OSError) -> str:
    """Why the program could not be started, in one line that names it."""
    if isinstance(error, FileNotFoundError):
        if "/" in name and os.path.exists(name):
            return f"cannot start {name}: the interpreter in its first line does not exist"
        return f"cannot start {name}: no such program; install it or correct transform.cmd"
    if isinstance(error, PermissionError):
        return f"cannot start {name}: permission denied; is it an executable file?"
    return f"cannot start {name}: {error.strerror or error}"


def children(of: int = 0) -> "list[int]":
    """The direct children of a process, by default of this one."""
    of = of or os.getpid()
    try:
        found = []
        for task in os.listdir(f"/proc/{of}/task"):
            with open(f"/proc/{of}/task/{task}/children") as file:
                found += [int(pid) for pid in file.read().split()]
        return found
    except OSError:
        return children_by_stat(of)


def children_by_stat(of: int) -> "list[int]":
    """The same where the kernel keeps no list of children; none without /proc."""
    me, found = str(of), []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat") as file:
                if file.read().rpartition(")")[2].split()[1] == me:
                    found.append(int(name))
    return found


class Warm:
    """Our end of a Python that is kept; see ``warm.py``.

    Attributes:
        way: how it runs things, for the record.
        busy: whether it was asked for something that is not done yet.
        child: the process that it has forked for that, as far as it is known.
        limits: what it had when it was ready to fork; empty where it calls, since user code may change its own.
    """

    def __init__(self, pid: int, connection: "socket.socket", calls: bool) -> None:
        self.pid = pid
        self.calls = calls
        self.way = ""
        self.busy = False
        self.child = 0
        self.limits: list[Any] = []
        self._files: dict[str, Any] = {}
        self._looked = 0.0
        self._socket = connection

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: "dict[str, Any]", fds: "list[int]") -> None:
        """Raises OSError where it has ended."""
        import socket

        body = json.dumps(message).encode()
        data = b"%08x" % len(body) + body
        sent = socket.send_fds(self._socket, [data], fds) if fds else self._socket.send(data)
        self._socket.sendall(data[sent:])
        self.busy, self.child = True, 0

    def receive(self) -> "dict[str, Any] | None":
        """The next message; None where it has ended."""
        head = self._read(8)
        body = self._read(int(head, 16)) if head else None
        if body is None:
            return None
        message: dict[str, Any] = json.loads(body)
        self._files.update((file, signature(file)) for file in message.get("files", ()))
        if "pid" in message:
            self.child = message["pid"]
        else:
            self.busy = False
        return message

    def _read(self, size: int) -> "bytes | None":
        data = b""
        while len(data) < size:
            try:
                more = self._socket.recv(size - len(data))
            except OSError:
                more = b""
            if not more:
                return None
            data += more
        return data

    def stale(self) -> bool:
        """Whether a file has changed that it has loaded, a library's that is worked on, say; asked once a second."""
        now = time.monotonic()
        if now - self._looked < FRESH:
            return False
        self._looked = now
        return any(signature(file) != before for file, before in self._files.items())

    def close(self) -> None:
        """It ends itself when it hears nothing any more; at the latest when it is killed."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Agent:
    """One command after the other; all that a command left behind is gone before the answer is given."""

    def __init__(self, inside: bool, requests: int, replies: int, max_log: int) -> None:
        self._inside = inside
        self._requests = requests
        self._replies = replies
        self._max_log = max_log
        self._buffer = b""
        self._devices = devices() if inside else {}
        self._warm: Warm | None = None
        self._cold = ""
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        self._reply({"ready": True}, b"")
        if self._inside:
            before, ipc = limits(), Ipc()
        while True:
            request = self._next_request()
            if request is None:
                return
            answer, log = self._run(request)
            self._reply(answer, log)
            if self._inside:
                empty_temporary()
                ipc.remove()
                warm = self._warm
                changed = limits() != before or (warm and warm.limits and limits(warm.pid) != warm.limits)
                if changed or not self._keeps_devices():
                    return  # the command changed them for us: a new sandbox will be made for the next datum

    def _next_request(self) -> "dict[str, Any] | None":
        while b"\n" not in self._buffer:
            data = os.read(self._requests, READ)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        return request

    def _keeps_devices(self) -> bool:
        """Remove what a command left in /dev, which container engines leave writable; False if it broke a device."""
        for name in devices().keys() - self._devices.keys():
            remove("/dev/" + name)
        return devices() == self._devices

    def _reply(self, answer: "dict[str, Any]", log: bytes) -> None:
        answer["log"] = len(log)
        data = memoryview(json.dumps(answer).encode() + b"\n" + log)
        while data:
            data = data[os.write(self._replies, data) :]

    def _tell(self, log: Log) -> None:
        """Report what was printed since the last time, in a message of its own before the answer."""
        skipped, news = log.news()
        self._reply({"said": True, "skipped": skipped}, news)

    def _run(self, request: "dict[str, Any]") -> "tuple[dict[str, Any], bytes]":
        out, out_write = os.pipe()
        stdin, stdin_write = (os.open(os.devnull, os.O_RDONLY), -1) if request["stdin"] is None else os.pipe()
        log = Log(self._max_log, request["told"])
        try:
            try:
                os.chdir(request["cwd"])
            except OSError as error:
                return {"error": f"cannot enter the working directory {request['cwd']}: {error.strerror}"}, b""
            warm = self._warmed(request)
            start = time.monotonic()
            try:
                warm, pid = self._begin(warm, request, stdin, out_write)
            except OSError as error:
                return {"error": explain((request["argv"] or request["warm"]["argv"])[0], error)}, b""
            os.close(stdin)
            os.close(out_write)
            stdin = out_write = -1
            feed = (request["stdin"] or "").encode("utf-8", "surrogateescape")
            status = self._watch(pid, warm, out, stdin_write, feed, log, request["timeout"], request["live"])
            seconds = time.monotonic() - start
            self._end_rest()
            drain(out, log)
            if log.told and log.has_news():
                self._tell(log)
        finally:
            for fd in (stdin, out, out_write, stdin_write):
                if fd >= 0:
                    with contextlib.suppress(OSError):  # the last of them is closed when all was written
                        os.close(fd)
        code = None if status is None else os.waitstatus_to_exitcode(status)
        way = warm.way if warm else f"a process for each datum: {self._cold or request['way']}"
        return {"code": code, "seconds": seconds, "timed_out": status is None, "way": way}, log.bytes()

    def _warmed(self, request: "dict[str, Any]") -> "Warm | None":
        """The Python that is kept, started if need be; None where this command cannot be run by one (`_cold`)."""
        wanted = request["warm"]
        exclude: dict[str, str] = {}
        if wanted and self._warm is not None and self._warm.stale():
            self._drop_warm()
            self._end_rest()
        while wanted and self._warm is None and not self._cold:
            try:
                warm = self._start_warm(wanted["argv"], wanted["env"], "callable" in wanted["setup"])
            except OSError as error:
                self._cold = error.strerror or str(error)
                break
            try:
                warm.send({**wanted["setup"], "exclude": exclude}, [])
                answer = self._await(warm)
            except OSError:
                answer = None
            if answer and "ready" in answer:
                self._warm = warm
                if self._inside and not warm.calls:
                    warm.limits = limits(warm.pid)
                warm.way = describe_way(answer.get("loaded"), {**exclude, **answer.get("later", {})})
                if self._inside:
                    empty_temporary()  # what its imports left there is not to be seen by the first datum alone
                break
            warm.close()
            self._end_rest()
            if answer and "again" in answer and len(exclude) < MOST_STARTS:
                package, why = answer["again"]
                exclude[package] = why
            else:
                self._cold = answer["refused"] if answer and "refused" in answer else "its Python cannot be kept"
        return self._warm if wanted else None  # of two commands in turn, such as err_cmd, one may need a process

    def _start_warm(self, argv: "list[str]", env: "dict[str, str]", calls: bool) -> Warm:
        import socket

        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.set_inheritable(theirs.fileno(), True)
            actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
            argv = [*argv, str(theirs.fileno())]
            defaults = [signal.SIGPIPE, signal.SIGXFSZ]
            program = find_program(argv[0], env.get("PATH", os.defpath))
            pid = os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigdef=defaults)
        finally:
            os.close(null)
            theirs.close()
        return Warm(pid, ours, calls)

    def _await(self, warm: Warm) -> "dict[str, Any] | None":
        """The answer of a Python that imports things; None where it ended, or takes too long."""
        poller = select.poll()
        poller.register(warm, select.POLLIN)
        poller.register(self._requests, 0)
        for fd, _ in poller.poll(WARMING * 1000):
            if fd == self._requests:
                self.give_up()
            return warm.receive()
        return None

    def _begin(self, warm: "Warm | None", request: "dict[str, Any]", stdin: int, out: int) -> "tuple[Warm | None, int]":
        """Start the command: in the Python that is kept, or as a process of its own, whose id is returned, else 0."""
        for _ in (1, 2):
            if warm is None:
                break
            try:
                warm.send({**request["warm"]["request"], "cwd": request["cwd"]}, [stdin, out])
                return warm, 0
            except OSError:  # killed since the last time, by the kernel in want of memory, say
                self._drop_warm()
                warm = self._warmed(request)
        if not request["argv"]:
            raise OSError(0, self._cold)
        return None, self._spawn(request, stdin, out)

    def _drop_warm(self) -> None:
        if self._warm is not None:
            self._warm.close()
            self._warm = None

    def _spawn(self, request: "dict[str, Any]", stdin: int, out: int) -> int:
        argv, env = request["argv"], request["env"]
        program = find_program(argv[0], env.get("PATH", os.defpath))
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
        # Python ignores SIGPIPE, and an ignored signal stays so over exec: `yes | head` would never end.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        try:
            return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigdef=defaults)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        argv = ["/bin/sh", program, *argv[1:]]  # a script without a `#!` line, as a shell would run it
        return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigdef=defaults)

    def _watch(
        self,
        pid: int,
        warm: "Warm | None",
        out: int,
        stdin: int,
        feed: bytes,
        log: Log,
        timeout: "float | None",
        live: bool,
    ) -> "int | None":
        """Read the log, feed the input and wait; the command's wait status, or None when its time was up.

        With `live`, report now and then what was printed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(out, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        poller.register(self._requests, 0)
        if warm is not None:
            poller.register(warm, select.POLLIN)
        rest = memoryview(feed)
        if stdin >= 0:
            os.set_blocking(stdin, False)
            poller.register(stdin, select.POLLOUT)
        while True:
            # A day at most at a time: poll takes no more than 24 of them in its milliseconds.
            left = None if deadline is None else min(max(0.0, deadline - time.monotonic()), 86400.0)
            if live and log.has_news():
                pause = log.due - time.monotonic()
                if pause <= 0:
                    self._tell(log)
                else:
                    left = pause if left is None else min(left, pause)
            ready = poller.poll(None if left is None else left * 1000)
            if not ready and left is not None and deadline is not None and time.monotonic() >= deadline:
                return None
            for fd, _ in ready:
                if fd == out:
                    data = os.read(out, READ)
                    if data:
                        log.add(data)
                    else:
                        poller.unregister(out)
                elif fd == self._requests:  # hung up: whoever asked is dead
                    self.give_up()
                elif fd == stdin:
                    rest = write_some(stdin, rest)
                    if not rest:
                        poller.unregister(stdin)
                        os.close(stdin)
                elif fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                    if warm is None:
                        status = reap_until(pid)
                        if status is not None:
                            return status
                elif warm is not None and fd == warm.fileno():
                    message = warm.receive()
                    if message is None:  # the script, or somebody else, has ended the Python that is kept
                        return self._fate(warm)
                    if "status" in message:
                        return int(message["status"])

    def _fate(self, warm: Warm) -> int:
        """The wait status of a Python that is kept no more."""
        deadline = time.monotonic() + 1.0
        status = None
        while status is None and time.monotonic() < deadline:
            status = reap_until(warm.pid)
            time.sleep(0.001)
        self._drop_warm()
        # It was to answer: an end by itself is none, whatever its status says; for a fork it is somebody's kill.
        return status if status and warm.calls else int(signal.SIGKILL) if not warm.calls else 1 << 8

    def give_up(self) -> None:
        """The other side is gone: take all processes along."""
        self._end_rest()
        os._exit(0)

    def _end_rest(self) -> None:
        """Kill every descendant that still lives, and wait until it is gone; orphans are our children.

        A Python that is kept lives on, but for one that calls and has not come back.
        """
        deadline = time.monotonic() + PATIENCE
        if self._warm is not None and self._warm.busy:
            self._end_child(self._warm, deadline)
        while self._others():
            if time.monotonic() > deadline:
                os._exit(3)
            time.sleep(0.001)

    def _end_child(self, warm: Warm, deadline: float) -> None:
        """Kill what the Python that is kept runs, and hear from it that it is gone."""
        poller = select.poll()
        poller.register(warm, select.POLLIN)
        while warm.busy and not warm.calls:
            if warm.child:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(warm.child, signal.SIGKILL)
            left = deadline - time.monotonic()
            if left < 0 or (poller.poll(left * 1000) and warm.receive() is None):
                break
        if warm.busy:
            self._drop_warm()

    def _others(self) -> bool:
        """Collect the dead and kill the living; whether there were any of these."""
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if self._warm is not None and dead == self._warm.pid:
                    self._drop_warm()
        if self._warm is None:
            if self._inside:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            else:
                kill_all(children())
            return has_children()
        spared = (os.getpid(), self._warm.pid)
        found = processes() if self._inside else [*children(), *children(self._warm.pid)]
        others = [pid for pid in found if pid not in spared and lives(pid)]
        kill_all(others)
        return bool(others)


def lives(pid: int) -> bool:
    """Whether a process has not ended.  One that has may be there still: its parent, a kept Python, has not asked."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def kill_all(pids: "list[int]") -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def signature(file: str) -> "Any":
    """What changes with a file's content, as far as one can tell without reading it."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def processes() -> "list[int]":
    """All processes of this namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def describe_way(loaded: "list[str] | None", exclude: "dict[str, str]") -> str:
    """How a Python that is kept runs datums, in a line."""
    if loaded is None:
        return "called in one Python"
    shown = ", ".join(loaded) or "no library"
    return "; ".join([f"forked from a Python that has imported {shown}",
                      *(f"not {package}: {why}" for package, why in exclude.items())])  # fmt: skip


def reap_until(pid: int) -> "int | None":
    """Collect the dead; the wait status of `pid` if it is among them."""
    while True:
        try:
            dead, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if dead == pid:
            return status
        if not dead:
            return None


def write_some(fd: int, rest: memoryview) -> memoryview:
    """Write what fits; what is left (nothing, where the reader has gone)."""
    try:
        return rest[os.write(fd, rest) :] if rest else rest
    except BlockingIOError:
        return rest
    except OSError:
        return rest[:0]


def drain(fd: int, log: Log) -> None:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            data = os.read(fd, READ)
            if not data:
                return
            log.add(data)


def devices() -> "dict[str, tuple[int, int]]":
    """What lies in /dev: name -> (mode, device number)."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir("/dev"):
            status = entry.stat(follow_symlinks=False)
            found[entry.name] = status.st_mode, status.st_rdev
    return found


def empty_temporary() -> None:
    """Leave nothing of one datum for the next: it would be an input that no record shows."""
    for folder in TEMPORARY:
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o1777)  # root without its capabilities may have shut itself out
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                if path != HOME:
                    remove(path)
    make_home()


LINKS: "set[str]" = set()
"""Symlinks of the sandbox's own in there: by them an interpreter is found that lies in such a folder."""


def note_links() -> None:
    for top in TEMPORARY:
        for folder, below, names in os.walk(top):
            LINKS.update(f"{folder}/{name}" for name in (*below, *names) if os.path.islink(f"{folder}/{name}"))
            below[:] = [name for name in below if not os.path.ismount(f"{folder}/{name}")]


def make_home() -> None:
    """An empty folder, whatever a command has put in its place: a link would lead to its outputs, say."""
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(os.lstat(HOME).st_mode):
            os.unlink(HOME)
    with contextlib.suppress(OSError):
        os.makedirs(HOME, exist_ok=True)
        os.chmod(HOME, 0o755)
        for name in os.listdir(HOME):
            remove(os.path.join(HOME, name))


class Ipc:
    """The shared memory, queues and semaphores of System V that commands leave.  Looked for after each command."""

    def __init__(self) -> None:
        self._lists: dict[str, int] = {}
        for kind in ("shm", "msg", "sem"):
            with contextlib.suppress(OSError):
                self._lists[kind] = os.open(f"/proc/sysvipc/{kind}", os.O_RDONLY)

    def remove(self) -> None:
        for kind, fd in self._lists.items():
            if os.pread(fd, 1024, 0).count(b"\n") < 2:
                continue  # the headline alone, as nearly always
            import ctypes

            libc = ctypes.CDLL(None)
            with open(f"/proc/sysvipc/{kind}") as file:
                for line in file.read().splitlines()[1:]:
                    number = int(line.split()[1])
                    if kind == "sem":
                        libc.semctl(number, 0, IPC_REMOVE)
                    else:
                        getattr(libc, f"{kind}ctl")(number, IPC_REMOVE, None)


def limits(pid: int = 0) -> "list[Any]":
    """What a command can set for another process, too, that has its user id, and its successors would inherit."""
    import resource

    found: list[Any] = [resource.prlimit(pid, number) for number in LIMITS]
    return [*found, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid), os.sched_getaffinity(pid)]


def remove(path: str) -> None:
    """Remove a file or a whole folder; what cannot be removed stays."""
    if path in LINKS:
        return
    try:
        os.unlink(path)
        return
    except OSError:
        pass
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)
        for name in os.listdir(path):
            remove(os.path.join(path, name))
        os.rmdir(path)


def prepare(inside: bool, parent: int) -> None:
    """Ask the kernel for what keeps orphans in reach and this process out of the command's."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(SET_DUMPABLE, 0, 0, 0, 0)  # the command could trace us, or write our answers through /proc/1/fd
    if not inside:
        prctl(SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(0)


def main() -> None:
    inside, parent, max_log = sys.argv[1] == "inside", int(sys.argv[2]), int(sys.argv[3])
    requests, replies = os.dup(0), os.dup(1)  # not inherited by commands, as opposed to 0 and 1
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.umask(0o022)
    if inside:
        note_links()
        empty_temporary()  # before the agent takes note of what there is
    agent = Agent(inside, requests, replies, max_log)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Inside, process 1 is out of reach of all signals that it has no handler for; the sandbox's end is ours.
        signal.signal(number, signal.SIG_DFL if inside else lambda *_: agent.give_up())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare(inside, parent)
    with contextlib.suppress(BrokenPipeError):
        agent.serve()


if __name__ == "__main__":
    main()
