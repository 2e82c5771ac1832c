"""Ways out of a sandboxed stage, each really tried from inside (I11); ``docs/isolation.md`` has the table.

As root and as an ordinary user where the tests run as root, else as who runs them.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prison import ROOT, Prison, python_for_nobody
from stagekit import Kit, needs_sandbox

from gitpipe.stage import sandbox

pytestmark = needs_sandbox
AM_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AM_ROOT, reason="only root can mount")
TESTS = Path(__file__).resolve().parent

Make = Callable[..., Prison]


def visible_folder() -> Path:
    """A new folder that the sandbox shows, if this user can make one; else one that it does not."""
    for parent in ("/opt", "/srv", "/var/lib"):
        if os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="gitpipe-test-", dir=parent))
    return Path(tempfile.mkdtemp(prefix="gitpipe-test-"))


@pytest.fixture(scope="module")
def make_prison() -> Iterator[Make]:
    made: list[Prison] = []

    def make(who: str, mode: str = "auto") -> Prison:
        if who == "root" and not AM_ROOT:
            pytest.skip("the tests do not run as root")
        nobody = who == "ordinary" and AM_ROOT
        if nobody and not python_for_nobody():
            pytest.skip("no interpreter here that an ordinary user can run")
        made.append(Prison(visible_folder(), mode, nobody))
        return made[-1]

    yield make
    for prison in made:
        prison.close()
        shutil.rmtree(prison.base)


@pytest.fixture(scope="module", params=["root", "ordinary"])
def prison(request: pytest.FixtureRequest, make_prison: Make) -> Prison:
    return make_prison(request.param)


@pytest.fixture(scope="module", params=["root", "ordinary"])
def strict(request: pytest.FixtureRequest, make_prison: Make) -> Prison:
    return make_prison(request.param, "strict")


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """All below `folder` but for blobs and slots: path -> mode, size, time of change, link count."""
    found = {}
    for path in folder.rglob("*"):
        if not {"slots", "files"} & set(path.relative_to(folder).parts):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_nlink)
    return found


# --- files ----------------------------------------------------------------------------------------------------------


def test_write_an_input(prison: Prison) -> None:
    outcome = prison.run("""
        import mmap
        x = '/pfs/in/x'
        attempt('open', lambda: write(x))
        attempt('append', lambda: write(x, os.O_WRONLY | os.O_APPEND))
        attempt('truncate', lambda: os.truncate(x, 0))
        attempt('chmod', lambda: os.chmod(x, 0o666))
        attempt('utime', lambda: os.utime(x, (0, 0)))
        attempt('xattr', lambda: os.setxattr(x, 'user.a', b'1'))
        attempt('unlink', lambda: os.unlink(x))
        attempt('rename', lambda: os.rename(x, '/pfs/in/y'))
        attempt('new file', lambda: write('/pfs/in/new', os.O_WRONLY | os.O_CREAT))
        attempt('new input', lambda: os.mkdir('/pfs/more'))
        attempt('hard link', lambda: os.link(x, '/pfs/out/x'))
        fd = os.open(x, os.O_RDONLY)
        attempt('by descriptor', lambda: write(f'/proc/self/fd/{fd}'))
        attempt('fchmod', lambda: os.fchmod(fd, 0o666))
        attempt('link of descriptor', lambda: os.link(f'/proc/self/fd/{fd}', '/pfs/out/x'))
        attempt('mmap', lambda: mmap.mmap(fd, 5, mmap.MAP_SHARED, mmap.PROT_WRITE))
        private = mmap.mmap(fd, 5, mmap.MAP_PRIVATE)
        attempt('private', lambda: private.__setitem__(slice(0, 5), b'other'))
        os.symlink(x, '/pfs/out/link')
        attempt('by symlink', lambda: write('/pfs/out/link'))
        os.unlink('/pfs/out/link')
        print(open(x).read())
    """)
    assert outcome.error == "" and outcome.files == {}
    wrong = {what: said for what, said in outcome.of.items() if said not in ("EROFS", "EXDEV", "EACCES")}
    assert wrong == {"private": "done"}  # a copy in its own memory
    assert outcome.of["chmod"] == outcome.of["utime"] == outcome.of["new file"] == "EROFS"
    assert outcome.said.endswith("input\n")
    blob = prison.blob(b"input")
    assert blob.read_bytes() == b"input" and blob.stat().st_mode & 0o777 == 0o444


def test_write_the_cache(prison: Prison) -> None:
    blob = prison.blob(b"input")
    prison.run("pass")
    outcome = prison.run(f"""
        blob, folder = {str(blob)!r}, {str(blob.parent)!r}
        attempt('write', lambda: write(blob))
        attempt('unlink', lambda: os.unlink(blob))
        attempt('chmod', lambda: os.chmod(blob, 0o666))
        attempt('link', lambda: os.link(blob, '/pfs/out/x'))
        attempt('create', lambda: write(folder + '/new', os.O_WRONLY | os.O_CREAT))
        attempt('folder', lambda: os.rmdir(folder))
    """)
    assert set(outcome.of.values()) <= {"EROFS", "EXDEV", "ENOENT", "EACCES"}, outcome
    assert blob.read_bytes() == b"input" and [path.name for path in blob.parent.iterdir()] == [blob.name]


def test_write_another_slot(prison: Prison) -> None:
    """Its own slot's real folder is as closed as those of others: `/pfs/out` is the one way."""
    other = prison.cache / "slots" / "other"
    other.mkdir(parents=True, exist_ok=True)
    outcome = prison.run(f"""
        slots = {str(prison.cache / "slots")!r}
        for name in ('slot0', 'other'):
            attempt(name, lambda: write(f'{{slots}}/{{name}}/lock', os.O_WRONLY | os.O_CREAT))
            attempt(name + ' pfs', lambda: os.makedirs(f'{{slots}}/{{name}}/pfs/in/new'))
        attempt('out', lambda: write(f'{{slots}}/slot0/pfs/out/x', os.O_WRONLY | os.O_CREAT))
        attempt('remove', lambda: os.rmdir(f'{{slots}}/other'))
    """)
    assert set(outcome.of.values()) <= {"EROFS", "ENOENT", "EACCES"}, outcome
    other.rmdir()


def test_write_the_repository_and_the_rest_of_the_host(prison: Prison) -> None:
    before = tree(prison.base)
    own = "/" if str(ROOT).startswith(("/tmp/", "/var/tmp/")) else str(ROOT)  # those are the stage's own, inside
    outcome = prison.run(f"""
        for folder in ({str(prison.repo)!r}, {str(prison.repo / ".git")!r}, {str(prison.repo / ".git/hooks")!r},
                       {str(prison.base)!r}, {str(prison.home)!r}, {own!r}, '/', '/code', '/etc', '/usr/bin',
                       '/opt', '/srv', '/var', '/var/lib', '/home', '/root', '/run', '/dev', '/pfs', '/mnt', '/sys',
                       '/proc', '/proc/sys', '/dev/pts', os.path.dirname(sys.executable)):
            attempt(folder, lambda: write(folder + '/gitpipe-escaped', os.O_WRONLY | os.O_CREAT))
        for path in ({str(prison.repo / ".git/config")!r}, {str(prison.base / "readable")!r}, '/etc/passwd',
                     sys.executable, '/bin/sh'):
            attempt(path, lambda: write(path))
            attempt(path, lambda: os.chmod(path, 0o777))
    """)
    assert set(outcome.of.values()) <= {"EROFS", "ENOENT", "EACCES", "EPERM"}, outcome
    assert outcome.of["/code"] == outcome.of["/pfs"] == "EROFS"
    assert tree(prison.base) == before


def test_write_devices(prison: Prison) -> None:
    outcome = prison.run("""
        attempt('mknod', lambda: os.mknod('/pfs/out/disk', 0o60600, os.makedev(8, 0)))
        attempt('mknod in tmp', lambda: os.mknod('/tmp/mem', 0o20600, os.makedev(1, 1)))
        for name in ('mem', 'kmem', 'port', 'kmsg', 'sda', 'vda', 'nvme0n1', 'loop0', 'loop-control', 'fuse', 'kvm',
                     'net/tun', 'console', 'tty0', 'uinput', 'input', 'snapshot', 'mapper/control'):
            attempt(name, lambda: write('/dev/' + name))
        print(*sorted(os.listdir('/dev')))
    """)
    assert set(outcome.of.values()) <= {"ENOENT", "EPERM"}, outcome
    usual = set("core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split())  # noqa: SIM905
    there = set(outcome.said.splitlines()[-1].split())
    assert there <= usual | {"dri", "kfd"} | {name for name in there if name.startswith("nvidia")}


# --- secrets --------------------------------------------------------------------------------------------------------


def test_read_keys_and_passwords(prison: Prison) -> None:
    outcome = prison.run(f"""
        home = {str(prison.home)!r}
        for name in ('.ssh/id_ed25519', '.git-credentials', '.netrc', '.aws/credentials', '.gnupg/secring.gpg',
                     '.config/gh/hosts.yml', '.local/share/keyrings/login', '.bashrc'):
            attempt(name, lambda: open(f'{{home}}/{{name}}').read())
            attempt('~/' + name, lambda: open(os.path.expanduser('~/' + name)).read())
        print('in it:', os.listdir(home))
        print('homes:', os.listdir('/home') if os.path.isdir('/home') else [], os.listdir('/root'))
    """)
    in_it, homes = outcome.of.pop("in it"), outcome.of.pop("homes")
    refused = {said for what, said in outcome.of.items() if what not in ("in it", "homes")}
    assert refused == {"ENOENT"} and in_it == "[]", outcome
    assert ".ssh" not in homes and ".bashrc" not in homes


def test_tokens_in_environments(prison: Prison) -> None:
    outcome = prison.run("""
        import glob
        for path in glob.glob('/proc/[0-9]*/environ'):
            try:
                found = open(path).read()
            except OSError as error:
                found = str(error)
            print('GITPIPE_TOKEN' in found, 'RAY_AUTH_TOKEN' in found, 'SSH_AUTH_SOCK' in found)
        print(sorted(os.environ))
    """)
    assert "True" not in outcome.said and "'HOME'" in outcome.said
    assert not re.search("RAY|GITPIPE_TOKEN|SSH_", outcome.said.splitlines()[-1])


def test_key_rings(prison: Prison) -> None:
    """They are the user's, not the sandbox's: a ticket that lies there would be readable."""
    if "a filter of system calls" in sandbox.describe("auto"):
        pytest.skip("system calls cannot be filtered here")
    outcome = prison.run("""
        SYS = {'x86_64': (248, 249, 250), 'aarch64': (217, 218, 219)}[os.uname().machine]
        for ring in (-3, -4, -5):
            attempt(f'keyctl {ring}', lambda: libc.syscall(SYS[2], 0, ring, 0))
        attempt('request_key', lambda: libc.syscall(SYS[1], b'user', b'x', 0, -4))
        attempt('add_key', lambda: libc.syscall(SYS[0], b'user', b'x', b'data', 4, -4))
        if os.uname().machine == 'x86_64':
            attempt('x32', lambda: libc.syscall(0x40000000 | 250, 0, -4, 0))
    """)
    assert set(outcome.of.values()) == {"ENOSYS"}, outcome


# --- sockets and the network ----------------------------------------------------------------------------------------

CONNECT = """
    import socket
    def connect(family, address):
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(address)
"""


def test_sockets_of_agents_and_docker(prison: Prison, tmp_path: Path) -> None:
    places = [Path(tempfile.mkdtemp(prefix="ssh-")) / "agent"]
    if AM_ROOT:
        places.append(Path(f"/run/gitpipe-test-{os.getpid()}"))
    listeners = [socket.socket(socket.AF_UNIX) for _ in places]
    try:
        for listener, path in zip(listeners, places, strict=True):
            listener.bind(str(path))
            listener.listen()
            path.chmod(0o777)
        outcome = prison.run(f"""{CONNECT}
    for path in {[*map(str, places), "/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket"]!r}:
        attempt(path, lambda: connect(socket.AF_UNIX, path))
    """)
    finally:
        for listener, path in zip(listeners, places, strict=True):
            listener.close()
            path.unlink()
        places[0].parent.rmdir()
    assert set(outcome.of.values()) == {"ENOENT"}, outcome


def knock(prison: Prison) -> dict[str, str]:
    """What a stage gets of two servers on this machine, and of the wire."""
    name = f"\0gitpipe-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        outcome = prison.run(f"""{CONNECT}
    attempt('loopback', lambda: connect(socket.AF_INET, ('127.0.0.1', {server.getsockname()[1]})))
    attempt('abstract', lambda: connect(socket.AF_UNIX, {name!r}))
    attempt('raw', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    print('interfaces:', len(open('/proc/net/dev').read().splitlines()) - 2)
    """)
    return outcome.of


def test_network(prison: Prison) -> None:
    """Open in auto: what listens on this machine, abstract sockets too, is reached as from any program."""
    found = knock(prison)
    assert (found["loopback"], found["abstract"], found["raw"]) == ("done", "done", "EPERM")


def test_strict_has_no_network(strict: Prison) -> None:
    found = knock(strict)
    assert (found["loopback"], found["abstract"], found["raw"]) == ("ECONNREFUSED", "ECONNREFUSED", "EPERM")
    assert found["interfaces"] == "1"


# --- the kernel -----------------------------------------------------------------------------------------------------


def test_mounts(prison: Prison) -> None:
    outcome = prison.run("""
        MS_REMOUNT, MS_BIND = 32, 4096
        mount = lambda *a: libc.mount(*a)
        for folder in ('/', '/pfs', '/pfs/in', '/code', '/usr', '/etc', '/home', '/proc/sys'):
            attempt('remount ' + folder, lambda: mount(b'none', folder.encode(), None, MS_REMOUNT | MS_BIND, None))
        attempt('bind', lambda: mount(b'/pfs/out', b'/pfs/in', None, MS_BIND, None))
        attempt('tmpfs', lambda: mount(b'none', b'/tmp', b'tmpfs', 0, None))
        for folder in ('/home', '/run', '/tmp', '/proc'):
            attempt('umount ' + folder, lambda: libc.umount2(folder.encode(), 2))
        attempt('chroot', lambda: os.chroot('/tmp'))
        attempt('pivot', lambda: libc.syscall({'x86_64': 155}.get(os.uname().machine, 41), b'/tmp', b'/tmp'))
        attempt('fsopen', lambda: libc.syscall(430, b'tmpfs', 0))
        attempt('open_tree', lambda: libc.syscall(428, -100, b'/pfs/in', 1))
    """)
    assert {said for what, said in outcome.of.items() if what != "remount /home"} == {"EPERM"}, outcome
    assert outcome.of["remount /home"] in ("EPERM", "ENOENT")


def test_user_namespaces(prison: Prison) -> None:
    if "a filter of system calls" in sandbox.describe("auto"):
        pytest.skip("system calls cannot be filtered here")
    outcome = prison.run("""
        import subprocess, threading
        NEW_USER = 0x10000000
        numbers = {'x86_64': (56, 272), 'aarch64': (220, 97)}[os.uname().machine]
        attempt('unshare', lambda: libc.unshare(NEW_USER))
        attempt('with mounts', lambda: libc.unshare(NEW_USER | 0x20000))
        attempt('clone', lambda: libc.syscall(numbers[0], NEW_USER | 17, 0, 0, 0, 0))
        attempt('clone3', lambda: libc.syscall(435, (ctypes.c_uint64 * 11)(NEW_USER, 0, 0, 0, 17), 88))
        attempt('setns', lambda: libc.setns(os.open('/proc/self/ns/user', os.O_RDONLY), 0))
        attempt('mounts alone', lambda: libc.unshare(0x20000))
        if os.uname().machine == 'x86_64':
            attempt('x32', lambda: libc.syscall(0x40000000 | 272, NEW_USER))
        print('program:', subprocess.run(['unshare', '-Ur', 'true'], capture_output=True).returncode != 0)
        thread = threading.Thread(target=lambda: print('thread: runs'))
        thread.start()
        thread.join()
    """)
    assert outcome.of.pop("clone3") == "ENOSYS" and outcome.of.get("x32", "ENOSYS") == "ENOSYS"
    assert outcome.of["unshare"] == outcome.of["with mounts"] == outcome.of["clone"] == "EPERM", outcome
    assert outcome.of["setns"] in ("EPERM", "EINVAL") and outcome.of["mounts alone"] == "EPERM"
    assert outcome.of["program"] == "True" and outcome.of["thread"] == "runs"


def test_privileges(prison: Prison) -> None:
    """No capability, and no program that gives one: setuid bits count for nothing."""
    program = prison.base / "setuid-id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    outcome = prison.run(f"""
        import subprocess
        print(open('/proc/self/status').read())
        attempt('setuid', lambda: os.setresuid(1234, 1234, 1234))
        attempt('setgroups', lambda: os.setgroups([0]))
        attempt('nice', lambda: os.nice(-5))
        attempt('chown', lambda: (write('/tmp/x', os.O_WRONLY | os.O_CREAT), os.chown('/tmp/x', 1234, 1234)))
        done = subprocess.run([{str(program)!r}, '-u'], capture_output=True, text=True)
        print('id: ' + done.stdout.strip() + done.stderr)
    """)
    program.unlink()
    status = {what: said.strip() for what, said in re.findall(r"^(\w+):\s+(.*)", outcome.said, re.MULTILINE)}
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"  # so that what is left in CapBnd cannot be had
    refused = {status[name] for name in ("setuid", "setgroups", "nice", "chown")}
    assert refused <= {"EPERM", "EINVAL", "EACCES"}, outcome
    assert str(prison.uid) in status["id"] or "o such file" in outcome.said, status["id"]


def test_kernel_settings(prison: Prison) -> None:
    outcome = prison.run("""
        import glob
        paths = ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/vm/overcommit_memory',
                 '/proc/sys/kernel/modprobe', '/proc/sysrq-trigger', '/proc/kcore', '/proc/kmsg', '/proc/mtrr',
                 '/sys/kernel/uevent_helper', '/sys/power/state', '/sys/module/kernel/parameters/panic',
                 '/sys/kernel/mm/transparent_hugepage/enabled', *glob.glob('/sys/fs/cgroup/**/cgroup.procs')]
        for path in paths:
            attempt(path, lambda: os.close(os.open(path, os.O_WRONLY)))  # opened only: should it get through …
        attempt('out of memory, not me', lambda: write('/proc/self/oom_score_adj', data=b'-1000'))
        attempt('hostname', lambda: libc.sethostname(b'x', 1))
        attempt('reboot', lambda: libc.reboot(0x1234567))
        attempt('swapoff', lambda: libc.swapoff(b'/x'))
        attempt('module', lambda: libc.syscall({'x86_64': 175}.get(os.uname().machine, 105), b'', 0, b''))
    """)
    assert set(outcome.of.values()) <= {"EROFS", "EACCES", "EPERM", "ENOENT", "ENOSYS"}, outcome
    assert outcome.of["/proc/sys/kernel/core_pattern"] in ("EROFS", "EACCES")
    assert outcome.of["reboot"] == outcome.of["hostname"] == "EPERM"


# --- processes ------------------------------------------------------------------------------------------------------


def test_processes_outside(prison: Prison) -> None:
    outcome = prison.run(f"""
        import signal
        print('there:', len([name for name in os.listdir('/proc') if name.isdigit()]))
        for pid in ({prison.pid}, {os.getpid()}):
            attempt('kill', lambda: os.kill(pid + 1_000_000 * (pid < 20), signal.SIGKILL))
            attempt('group', lambda: os.killpg(pid + 1_000_000 * (pid < 20), signal.SIGKILL))
        attempt('parent', lambda: os.kill(os.getppid(), 0))
        print('parent is:', os.getppid())
    """)
    assert outcome.of["there"] == "2" and outcome.of["kill"] == outcome.of["group"] == "ESRCH", outcome
    assert outcome.of["parent is"] == "1"


def test_the_agent(prison: Prison) -> None:
    """Process 1 of the sandbox is ours: it reports what came of a datum, and runs the next one."""
    outcome = prison.run("""
        import signal
        for name in ('mem', 'environ', 'fd/0', 'fd/1', 'fd/3', 'fd/4', 'root/tmp', 'cwd/tmp', 'maps', 'task/1/mem'):
            attempt(name, lambda: os.open('/proc/1/' + name, os.O_RDONLY))
        attempt('ptrace', lambda: libc.ptrace(16, 1, 0, 0))
        attempt('pidfd', lambda: libc.syscall(438, libc.syscall(434, 1, 0), 1, 0))
        for number in set(signal.Signals) - {signal.SIGCHLD}:
            os.kill(1, number)
        print('alive: done')
    """)
    assert outcome.of.pop("alive") == "done" and not outcome.lost and not outcome.error, outcome
    got = {what: said for what, said in outcome.of.items() if what != "alive" and said not in ("EACCES", "EPERM")}
    assert got == {}
    assert not prison.run("print('next')").lost


def test_the_agents_limits(prison: Prison) -> None:
    """They are not protected by the kernel, so a sandbox whose agent has others than before is not used again."""
    harm = """
        import resource
        resource.prlimit(1, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(1, resource.RLIMIT_FSIZE, (1000, 1000))
        os.sched_setaffinity(1, {min(os.sched_getaffinity(1))})
        os.setpriority(os.PRIO_PROCESS, 1, 19)
    """
    look = """
        import resource
        print(resource.getrlimit(resource.RLIMIT_FSIZE), os.sched_getaffinity(0), os.nice(0))
    """
    before = prison.run(look).said
    assert not prison.run(harm).error
    after = prison.run(look)
    if after.lost:  # the sandbox had ended: the executor gives the datum to a new one
        after = prison.run(look)
    assert after.said == before


def test_the_limits_of_a_python_that_is_kept(tmp_path: Path) -> None:
    """The same for the interpreter that Python scripts are forked from."""
    kit = Kit(tmp_path)
    kit.script(
        "s.py",
        """
import os, resource
kept = os.getppid()
if os.path.exists('/pfs/in/harm'):
    resource.prlimit(kept, resource.RLIMIT_NOFILE, (50, 50))
print(resource.getrlimit(resource.RLIMIT_CPU), resource.prlimit(kept, resource.RLIMIT_NOFILE))
""",
    )
    worker = kit.worker(kit.stage("python", "s.py"))
    first, harm = worker.run(kit.task()), worker.run(kit.task({"harm": b""}))
    assert first.environment["runtime"].startswith("forked") and b"(50, 50)" in harm.log
    after = worker.run(kit.task())
    assert after.lost or after.log == first.log
    if after.lost:
        assert kit.worker(kit.stage("python", "s.py")).run(kit.task()).log == first.log
    kit.close()


def test_fork_bombs_and_daemons(prison: Prison) -> None:
    """All of them end with their datum, however fast they make others."""
    outcome = prison.run("""
        import time
        def forever():
            os.setsid()
            while True:
                if os.fork():
                    os._exit(0)  # each lives for a moment only: whoever lists them sees the last one
        for _ in range(20):
            if os.fork() == 0:
                forever()
        for _ in range(200):
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
                for number in range(1, 65):
                    try:
                        libc.signal(number, 1)
                    except OSError:
                        pass
                open(f'/pfs/out/{os.getpid()}', 'w').close()
                time.sleep(1000)
        while len(os.listdir('/pfs/out')) < 200:
            time.sleep(0.01)
    """)
    assert outcome.error == "" and len(outcome.files) == 200
    assert prison.run("print(len([n for n in os.listdir('/proc') if n.isdigit()]))").said == "2\n"


def test_the_terminal(prison: Prison) -> None:
    outcome = prison.run("""
        import fcntl, termios
        attempt('open', lambda: os.open('/dev/tty', os.O_RDWR))
        for fd in (0, 1, 2):
            attempt(f'TIOCSTI {fd}', lambda: fcntl.ioctl(fd, 0x5412, b'x'))
        print('terminals:', [name for name in os.listdir('/dev/pts') if name != 'ptmx'])
        print('inherited:', [fd for fd in range(3, 100) if os.path.lexists(f'/proc/self/fd/{fd}')])
    """)
    assert outcome.of == {"open": "ENXIO", "terminals": "[]", "inherited": "[]",
                          **{f"TIOCSTI {fd}": "ENOTTY" for fd in (0, 1, 2)}}  # fmt: skip


def test_left_for_the_next_datum(prison: Prison) -> None:
    """Files, shared memory, queues, semaphores: what one datum leaves would be an input that no record shows."""
    look = """
        for folder in ('/tmp', '/var/tmp', '/dev/shm', '/dev/mqueue', os.environ['HOME']):
            print(folder + ':', sorted(os.listdir(folder)))
        for kind in ('shm', 'msg', 'sem'):
            print(kind + ':', len(open('/proc/sysvipc/' + kind).read().splitlines()) - 1)
        attempt('queue', lambda: libc.mq_open(b'/q', os.O_RDONLY))
    """
    first = prison.run(look)
    left = prison.run("""
        for folder in ('/tmp', '/var/tmp', '/dev/shm', os.environ['HOME']):
            os.makedirs(folder + '/a/.b')
            write(folder + '/a/.b/c', os.O_WRONLY | os.O_CREAT)
            os.chmod(folder + '/a', 0)
        for name, call in (('shm', lambda: libc.shmget(1, 4096, 0o1666)), ('msg', lambda: libc.msgget(1, 0o1666)),
                           ('sem', lambda: libc.semget(1, 1, 0o1666)),
                           ('queue', lambda: libc.mq_open(b'/q', os.O_RDWR | os.O_CREAT, 0o666, None))):
            attempt(name, call)
    """)
    assert not left.error and {left.of[name] for name in ("shm", "msg", "sem")} == {"done"}, left
    second = prison.run(look)
    assert second.said == first.said
    assert (second.of["shm"], second.of["msg"], second.of["sem"]) == ("0", "0", "0")
    assert second.of["queue"] in ("ENOENT", "ENOSYS")


def test_temporary_folders_are_limited(prison: Prison) -> None:
    """They are memory, and no process's: the kernel could not get it back by killing one."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    outcome = prison.run(f"""
        for folder in ('/tmp', '/var/tmp', '/dev/shm'):
            there = os.statvfs(folder)
            print('size:', there.f_blocks * there.f_frsize <= {limit} + 4096)
            fd = os.open(folder + '/x', os.O_RDWR | os.O_CREAT)
            attempt(folder, lambda: os.posix_fallocate(fd, 0, {limit} + (1 << 20)))  # refused before it takes any
    """)
    assert "False" not in outcome.said
    assert {outcome.of[folder] for folder in ("/tmp", "/var/tmp", "/dev/shm")} == {"ENOSPC"}


# --- mounts below the folders that are shown ------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("who", ["root", "ordinary"])
def test_other_file_systems(who: str, make_prison: Make) -> None:
    """Those that were mounted before are read-only too; those that come later do not appear at all."""
    if "private mounts" in sandbox.describe("auto"):
        pytest.skip("mounts cannot be made private here")
    prison = make_prison(who)
    shared = prison.base / "shared"
    early, late = shared / "early", shared / "late"
    mounted = []

    def mount(*argv: str) -> None:
        subprocess.run(["mount", *argv], check=True)
        mounted.append(argv[-1])

    try:
        for folder in (early, late):
            folder.mkdir(parents=True)
        mount("--bind", str(shared), str(shared))
        subprocess.run(["mount", "--make-shared", str(shared)], check=True)
        mount("-t", "tmpfs", "-o", "mode=777", "none", str(early))
        assert not prison.run("print('the sandbox is there')").error
        mount("-t", "tmpfs", "-o", "mode=777", "none", str(late))
        outcome = prison.run(f"""
            for folder in ({str(early)!r}, {str(late)!r}):
                attempt(folder, lambda: write(folder + '/x', os.O_WRONLY | os.O_CREAT))
        """)
        assert outcome.of == {str(early): "EROFS", str(late): "EROFS"}
    finally:
        for path in reversed(mounted):
            subprocess.run(["umount", path], check=True)


# --- strict ---------------------------------------------------------------------------------------------------------


def test_strict_shows_neither_home_nor_repository(strict: Prison) -> None:
    outcome = strict.run(f"""
        for path in ({str(strict.home / ".ssh/id_ed25519")!r}, {str(strict.home / ".git-credentials")!r},
                     {str(strict.repo / ".git/config")!r}, {str(strict.cache / "files")!r}):
            attempt(path, lambda: os.stat(path))
        for folder in ('/home', '/root', '/srv', '/mnt', '/media', '/var', '/run'):
            if os.path.isdir(folder):
                print(folder + ':', *(n for n in os.listdir(folder) if (folder, n) != ('/var', 'tmp')))
        print('proxies:', [name for name in os.environ if 'proxy' in name.lower()])
        print(open('/pfs/in/x').read(), file=open('/pfs/out/y', 'w'))
    """)
    assert outcome.files == {"y": "input\n"}, outcome
    assert [said for what, said in outcome.of.items() if what.startswith(str(strict.base))] == ["ENOENT"] * 4
    assert outcome.of["proxies"] == "[]"
    assert {outcome.of[f].strip() for f in ("/home", "/srv", "/mnt", "/media", "/var") if f in outcome.of} <= {""}


def test_status_says_which_is_in_force(lab: object) -> None:
    from tests.lab import Lab

    assert isinstance(lab, Lab)
    said = {}
    for mode in ("auto", "strict", "none"):
        lab.git("config", "gitpipe.sandbox", mode)
        said[mode] = lab.project.status().sandbox.partition(" (without ")[0]
    assert said == {
        "auto": "bubblewrap",
        "strict": "bubblewrap, strict: no network, no home, no repository",
        "none": "none (switched off)",
    }


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_names_these_tests() -> None:
    """``docs/isolation.md``: the tests that it names are there, and none of here is left out."""
    page = (ROOT / "docs" / "isolation.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {
        name for file in TESTS.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert named <= there, named - there
    here = set(re.findall(r"^def (test_\w+)\((?:prison|strict|who)", Path(__file__).read_text(), re.M))
    here |= set(re.findall(r"^def (test_\w+)", (TESTS / "test_scarce.py").read_text(), re.M)) - {"test_killed_says_so"}
    assert here <= named, here - named


def test_the_page_lists_what_is_inherited() -> None:
    page = (ROOT / "docs" / "isolation.md").read_text()
    listed = re.search(r"<!-- inherited -->\n```text\n(.*?)```", page, re.DOTALL)
    assert listed and set(listed[1].split()) == {*sandbox.INHERITED, "LC_*"}
