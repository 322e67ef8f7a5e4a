"""Load a filter of system calls into this process, and see what it denies.

Goes through libseccomp's own library by ctypes: its interface is stable since 2.5, it
knows every system call's number, and any Python can load it. Debian's python3-seccomp
is for the distribution's Python alone.

What the filter denies is not answered by the kernel but handed to another process
(seccomp_unotify(2)), which writes it down and then does what the unit says: an error,
or the end of the program by SIGSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

_ALLOW: Final = 0x7FFF0000
_NOTIFY: Final = 0x7FC00000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_MASKED_EQUAL: Final = 7
_ATTRIBUTE_FOREIGN_ARCHITECTURE: Final = 2
_NO_SUCH_CALL: Final = -1


class Condition(NamedTuple):
    """`argument & mask == value`, the argument counted from 0."""

    argument: int
    mask: int
    value: int


#: Condition lists of which one must hold; each list holds when all its conditions do.
Alternatives = Sequence[Sequence[Condition]]


@dataclass(frozen=True)
class Filter:
    """The system calls that a program may make.

    Attributes:
        allowed: names that pass, with any arguments.
        conditional: names that pass when their arguments fit.
        absent: names that do not exist (ENOSYS): the C library then uses older calls,
            as systemd intends with `clone3`. Not a denial.
        errors: the error number of a denied call; others get `default_error`.
        default_error: None ends the program by SIGSYS.
    """

    allowed: frozenset[str]
    conditional: Mapping[str, Alternatives]
    absent: frozenset[str]
    errors: Mapping[str, int]
    default_error: int | None


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Notification(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("call", ctypes.c_int),
        ("architecture", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class _Response(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint64),
        ("value", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


def load_library() -> Any:
    """Return libseccomp.

    Raises:
        OSError: when it is not on this machine.
    """
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_notify_alloc.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    return library


def install(filter_: Filter) -> int:
    """Load the filter into this process; return the descriptor of its denials.

    Raises:
        OSError: when libseccomp or the kernel refuses it.
    """
    library = load_library()
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_NOTIFY)))
    _check(
        library.seccomp_attr_set(
            context, _ATTRIBUTE_FOREIGN_ARCHITECTURE, ctypes.c_uint32(_KILL_PROCESS)
        )
    )
    for name in filter_.allowed - filter_.conditional.keys() - filter_.absent:
        _add(library, context, _ALLOW, name, ())
    for name in filter_.conditional.keys() & filter_.allowed - filter_.absent:
        for conditions in filter_.conditional[name]:
            _add(library, context, _ALLOW, name, conditions)
    for name in filter_.absent & filter_.allowed:
        _add(library, context, _ERRNO | errno.ENOSYS, name, ())
    _check(library.seccomp_load(context))
    descriptor = library.seccomp_notify_fd(context)
    _check(descriptor)
    return int(descriptor)


def _add(
    library: Any,
    context: ctypes.c_void_p,
    action: int,
    name: str,
    conditions: Sequence[Condition],
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    # Of another architecture, or newer than this libseccomp: systemd leaves it out too.
    if number <= _NO_SUCH_CALL:
        return
    compared = (_Comparison * max(len(conditions), 1))(
        *(_Comparison(c.argument, _MASKED_EQUAL, c.mask, c.value) for c in conditions)
    )
    _check(
        library.seccomp_rule_add_array(
            context, ctypes.c_uint32(action), number, len(conditions), compared
        )
    )


def answer_one(descriptor: int, filter_: Filter) -> str | None:
    """Answer the next denied call by the filter and describe it in one line.

    Returns:
        None when the caller was gone before it was read.
    """
    library = load_library()
    request, response = ctypes.c_void_p(), ctypes.c_void_p()
    _check(library.seccomp_notify_alloc(ctypes.byref(request), ctypes.byref(response)))
    try:
        if library.seccomp_notify_receive(descriptor, request) != 0:
            return None
        call = ctypes.cast(request, ctypes.POINTER(_Notification)).contents
        name = _name_of(library, call.architecture, call.call)
        line = _describe(name, call)
        error = filter_.errors.get(name, filter_.default_error)
        if error is None:
            os.kill(call.pid, signal.SIGSYS)
        answer = ctypes.cast(response, ctypes.POINTER(_Response)).contents
        answer.id = call.id
        answer.error = -(error or errno.EPERM)
        library.seccomp_notify_respond(descriptor, response)
        return line
    finally:
        library.seccomp_notify_free(request, response)


def _name_of(library: Any, architecture: int, number: int) -> str:
    found = library.seccomp_syscall_resolve_num_arch(
        ctypes.c_uint32(architecture), number
    )
    return ctypes.string_at(found).decode() if found else f"call {number}"


def _describe(name: str, call: _Notification) -> str:
    shown = ", ".join(hex(argument) for argument in call.arguments[:4])
    try:
        words = Path(f"/proc/{call.pid}/cmdline").read_bytes().split(b"\0")
        thread = Path(f"/proc/{call.pid}/comm").read_text().strip()
    except OSError:
        return f"{name}({shown})"
    command = b" ".join(words).decode(errors="replace").strip()
    return f"{name}({shown}) by thread {thread!r} of {command}"


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp: {os.strerror(-result)}")
