"""System calls that user code is not to make: a seccomp filter, as the bytes that bubblewrap reads.

Refused are the kernel's key rings (a user's keys are anyone's of that user, whatever the sandbox) and new user
namespaces (in one, a process has all capabilities again, and the kernel's doors that open to them).  As Docker does by
default.  Knows the kernel's numbers, and nothing of sandboxes.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NEW_USER = 0x10000000
_X32 = 0x40000000
"""What the numbers of x86-64's third calling convention begin with: one more way to all calls, used by no one."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What the calls are numbered on one architecture; `keys`: add_key, request_key, keyctl."""

    arch: int
    keys: tuple[int, int, int]
    clone: int
    unshare: int
    clone3: int = 435
    other_convention: bool = False


_X86 = (
    _Numbers(0xC000003E, (248, 249, 250), 56, 272, other_convention=True),
    _Numbers(0x40000003, (286, 287, 288), 120, 310),
)
_ARM = (_Numbers(0xC00000B7, (217, 218, 219), 220, 97), _Numbers(0x40000028, (309, 310, 311), 120, 337))
_MACHINES = {"x86_64": _X86, "aarch64": _ARM}
"""With what a machine runs beside its own: programs of 32 bits have other numbers for the same calls."""


def seccomp_filter(machine: str = "") -> bytes:
    """The filter for a machine as `platform.machine` names it, by default this one; b"" where none is known."""
    program = b""
    for numbers in _MACHINES.get(machine or platform.machine(), ()):
        rules = _rules(numbers)
        program += _step(_LOAD, _ARCH) + _step(_EQUAL, numbers.arch, 0, len(rules) // 8) + rules
    return program and program + _step(_RETURN, _ALLOW)


def _rules(numbers: _Numbers) -> bytes:
    rules = _step(_LOAD, _NUMBER)
    if numbers.other_convention:
        rules += _step(_AT_LEAST, _X32, 0, 1) + _refuse(errno.ENOSYS)
    # As from a kernel without them: programs do without, or use what came before.  The flags of `clone3` lie in
    # memory, where a filter cannot look.
    for number in (*numbers.keys, numbers.clone3):
        rules += _step(_EQUAL, number, 0, 1) + _refuse(errno.ENOSYS)
    for number in (numbers.clone, numbers.unshare):
        rules += _step(_EQUAL, number, 0, 4) + _step(_LOAD, _FIRST_ARGUMENT)
        rules += _step(_ANY_BIT, _NEW_USER, 0, 1) + _refuse(errno.EPERM) + _step(_RETURN, _ALLOW)
    return rules + _step(_RETURN, _ALLOW)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERROR | number)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
