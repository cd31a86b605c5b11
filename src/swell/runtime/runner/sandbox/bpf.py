"""Which system calls does a sandboxed process not get? A seccomp program, made of tables. Pure.

What is listed is refused with EPERM, as if a privilege were missing, which programs know how to take; everything
else is left to the other layers. `clone3` does not exist (ENOSYS): its flags are in memory, where no filter can
read them, and the C library then uses `clone`, whose flags are looked at.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

import msgspec

AUDIT_X86_64 = 0xC000003E
AUDIT_AARCH64 = 0xC00000B7

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL = 0x80000000

_LD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
"""Offsets in what the filter sees; an argument is 8 bytes, the low half first (both machines are little-endian)."""
_X32 = 0x40000000

NAMESPACES = 0x7E020080
"""Every CLONE_NEW… flag: NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_CLONE_NAMESPACES = NAMESPACES & ~0xFF
"""In `clone` the lowest byte is the signal a parent gets."""
FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""
_NETLINK = 16
_SOCK_RAW, _SOCK_PACKET, _KIND = 3, 10, 0xF
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

X86_64: Mapping[str, int] = {
    "ptrace": 101, "syslog": 103, "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164,
    "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170,
    "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "unshare": 272, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
}  # fmt: skip
"""Refused on this machine, by number."""
AARCH64: Mapping[str, int] = {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "quotactl": 60, "acct": 89,
    "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116,
    "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171,
    "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225, "perf_event_open": 241,
    "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294, "io_uring_setup": 425, "io_uring_enter": 426,
    "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
}  # fmt: skip


class Machine(msgspec.Struct, frozen=True):
    """What of the filter differs between kinds of processor."""

    audit: int
    refused: Mapping[str, int]
    clone: int
    clone3: int
    socket: int
    socketpair: int
    ioctl: int


MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(AUDIT_X86_64, X86_64, clone=56, clone3=435, socket=41, socketpair=53, ioctl=16),
    "aarch64": Machine(AUDIT_AARCH64, AARCH64, clone=220, clone3=435, socket=198, socketpair=199, ioctl=29),
}
"""By what `os.uname().machine` says."""

Step = tuple[int, int, int, int]
"""One instruction: code, steps to skip when true, when false, operand."""


def program(machine: Machine) -> list[Step]:
    """The filter. A process of another kind of machine (32 bits on 64) is killed: its numbers mean other calls."""
    refuse = (_RET, 0, 0, ERRNO | errno.EPERM)
    steps: list[Step] = [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 1, 0, machine.audit),
        (_RET, 0, 0, KILL),
        (_LD, 0, 0, _NR),
    ]
    if machine.audit == AUDIT_X86_64:
        steps += [(_JGE, 0, 1, _X32), (_RET, 0, 0, KILL)]
    steps += [(_JEQ, 0, 1, machine.clone3), (_RET, 0, 0, ERRNO | errno.ENOSYS)]
    for number in sorted(machine.refused.values()):
        steps += [(_JEQ, 0, 1, number), refuse]
    clone = [(_LD, 0, 0, _ARGS), (_JSET, 0, 1, _CLONE_NAMESPACES), refuse, (_RET, 0, 0, ALLOW)]
    for number, body in (
        (machine.clone, clone),
        (machine.socket, _socket(refuse)),
        (machine.socketpair, _socket(refuse)),
        (machine.ioctl, _ioctl(refuse)),
    ):
        steps += [(_JEQ, 0, len(body), number), *body]
    return [*steps, (_RET, 0, 0, ALLOW)]


def _socket(refuse: Step) -> list[Step]:
    """Ordinary families only; nothing raw, except with netlink, whose sockets are all called so: there, routes only."""
    allow = (_RET, 0, 0, ALLOW)
    netlink: list[Step] = [(_LD, 0, 0, _ARGS + 16), (_JEQ, 0, 1, 0), allow, refuse]
    plain: list[Step] = [
        (_LD, 0, 0, _ARGS + 8),
        (_AND, 0, 0, _KIND),
        (_JEQ, 1, 0, _SOCK_RAW),
        (_JEQ, 0, 1, _SOCK_PACKET),
        refuse,
        allow,
    ]
    known: list[Step] = []
    others = [family for family in FAMILIES if family != _NETLINK]
    for at, family in enumerate(others):
        # Past the families after it, and past the refusal.
        known.append((_JEQ, len(others) - at, 0, family))
    return [(_LD, 0, 0, _ARGS), (_JEQ, 0, len(netlink), _NETLINK), *netlink, *known, refuse, *plain]


def _ioctl(refuse: Step) -> list[Step]:
    """No typing into the terminal of whoever started the server."""
    return [(_LD, 0, 0, _ARGS + 8), (_JEQ, 1, 0, _TIOCSTI), (_JEQ, 0, 1, _TIOCLINUX), refuse, (_RET, 0, 0, ALLOW)]


def assembled(steps: list[Step]) -> bytes:
    """As the kernel takes it."""
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
