"""How is the kernel asked for namespaces, mounts and filters? By its C library; what fails is an OSError and named."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Mapping

from swell.wire.identity import stat

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000

NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE, SLAVE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000, 0x80000
DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 0x1, 0x2, 0x4

_AT_FDCWD, _AT_RECURSIVE, _AT_EMPTY_PATH = -100, 0x8000, 0x1000
_NO_FOLLOW = 8
_CLONE_TREE, _FROM_EMPTY_PATH, _SET_STRING, _CREATE = 1, 4, 1, 6
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 22, 24, 38, 47
_SECCOMP_MODE_FILTER, _AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION_3 = 0x20080522
CAP_SYS_ADMIN = 21
_CAPABILITIES_MAX = 64
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_OPENAT2, _NO_SYMLINKS, _BENEATH = 437, 0x04, 0x08
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446
"""The same on every machine: they came after the numbers were agreed on."""
_NUMBERS = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_numbers = _NUMBERS.get(os.uname().machine, {})


def _checked(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *args: int | bytes | None) -> int:
    assert _libc is not None
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in args]
    return _checked(what, int(_libc.syscall(ctypes.c_long(number), *given)))


def _prctl(what: str, option: int, *args: int) -> int:
    assert _libc is not None
    given = [ctypes.c_ulong(each) for each in (*args, 0, 0, 0, 0)[:4]]
    return _checked(what, int(_libc.prctl(option, *given)))


# -- namespaces and mounts ------------------------------------------------------------------------


def unshare(flags: int, what: str) -> None:
    assert _libc is not None
    _checked(f"unshare ({what})", int(_libc.unshare(flags)))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    assert _libc is not None
    words = [each.encode() or None for each in (source, target, kind)]
    _checked(f"mount {kind or source} on {target}", int(_libc.mount(*words, ctypes.c_ulong(flags), options.encode())))


def set_attributes(target: str, attributes: int, recursive: bool = True) -> None:
    """Make what is mounted there read-only and the like, with all that is mounted below it."""
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _syscall(f"mount_setattr {target}", _MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, wanted, len(wanted))


def detached_overlay(parts: Mapping[str, str]) -> int:
    """A descriptor of an overlay of these (`lowerdir`, …) that is mounted nowhere yet."""
    made = _syscall("fsopen overlay", _FSOPEN, b"overlay", 1)
    try:
        for name, value in parts.items():
            _syscall(f"overlay {name}", _FSCONFIG, made, _SET_STRING, name.encode(), value.encode(), 0)
        _syscall("overlay", _FSCONFIG, made, _CREATE, None, None, 0)
        return _syscall("fsmount overlay", _FSMOUNT, made, 1, ATTR_NOSUID | ATTR_NODEV)
    finally:
        os.close(made)


def detached_view(folder: str) -> int:
    """A descriptor of a folder, read-only, that is mounted nowhere else yet."""
    tree = detached_copy(folder)
    wanted = struct.pack("=QQQQ", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0, 0, 0)
    _syscall("mount_setattr", _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, len(wanted))
    return tree


def detached_copy(path: str) -> int:
    """A descriptor of what is mounted there, once more and nowhere yet."""
    return _syscall(f"open_tree {path}", _OPEN_TREE, _AT_FDCWD, path.encode(), _CLONE_TREE | os.O_CLOEXEC)


def attach(descriptor: int, target: str) -> None:
    """Mount there what was detached."""
    _syscall(f"mount on {target}", _MOVE_MOUNT, descriptor, b"", _AT_FDCWD, target.encode(), _FROM_EMPTY_PATH)


def unmount(target: str) -> None:
    """OSError EBUSY where something of it is in use."""
    assert _libc is not None
    _checked(f"umount {target}", int(_libc.umount2(target.encode(), _NO_FOLLOW)))


def join(descriptor: int, kind: int, what: str) -> None:
    """Be in the namespace that a descriptor is of."""
    assert _libc is not None
    _checked(f"setns ({what})", int(_libc.setns(descriptor, kind)))


def open_beneath(folder: int, path: str) -> int:
    """A file to be read that lies in the folder of this descriptor: no link leads out of it, or to it, whatever others
    do there meanwhile."""
    how = struct.pack("=QQQ", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _NO_SYMLINKS | _BENEATH)
    return _syscall(f"open {path}", _OPENAT2, folder, os.fsencode(path), how, len(how))


def sync_all(descriptor: int) -> None:
    """All that was written to the file system of this descriptor is on disk."""
    assert _libc is not None
    _checked("syncfs", int(_libc.syncfs(descriptor)))


def enter_root() -> None:
    """The working directory, on which a file system is mounted, becomes the root; the old one is gone."""
    assert _libc is not None
    _syscall("pivot_root", _numbers["pivot_root"], b".", b".")
    _checked("umount of the old root", int(_libc.umount2(b".", DETACH)))
    os.chdir("/")


def loopback_up() -> None:
    """The loopback of a new network namespace is there, and down."""
    import fcntl
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("=16sH14x", b"lo", 0)
        _, flags = struct.unpack("=16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("=16sH14x", b"lo", flags | _IFF_UP))


# -- privileges -----------------------------------------------------------------------------------


def effective_capabilities() -> int:
    """Those of this process, as bits; none where the system does not say."""
    try:
        with open("/proc/self/status") as status:
            return next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    except OSError:
        return 0


def drop_bounding_set() -> None:
    """No program that is exec'ed from here on can give a capability back."""
    for capability in range(_CAPABILITIES_MAX):
        try:
            _prctl(f"giving up capability {capability}", _PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL or capability <= CAP_SYS_ADMIN:
                raise
            # There are no more.
            return


def drop_capabilities() -> None:
    _prctl("clearing ambient capabilities", _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _syscall("capset", _numbers["capset"], header, none)


def no_new_privileges() -> None:
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """Nobody of the same user reads this process's memory."""
    _prctl("not dumpable", _PR_SET_DUMPABLE, 0)


def forget_command() -> None:
    """Nobody reads in /proc with which arguments and variables this program was started: they are wiped."""
    fields = stat(os.getpid())
    for first, last in (fields[45:47], fields[47:49]) if len(fields) > 48 else ():
        if 0 < int(first) < int(last):
            ctypes.memset(int(first), 0, int(last) - int(first))


def filter_calls(program: bytes) -> None:
    """Install an assembled seccomp filter, for good."""
    assert _libc is not None
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    buffer = ctypes.create_string_buffer(header, len(header))
    _prctl("seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(buffer))


# -- landlock -------------------------------------------------------------------------------------

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
SCOPES = 0b11
"""Abstract unix sockets, signals."""


def landlock_abi() -> int:
    """The version this kernel has. Raises OSError where it has none, or it is switched off."""
    return _syscall("landlock", _LANDLOCK_CREATE, None, 0, 1)


def landlock_rights(abi: int) -> int:
    """Every right over files that this version knows."""
    return max(rights for since, rights in _RIGHTS_BY_ABI.items() if since <= abi)


def enclose() -> None:
    """No signals and no abstract sockets from here to others of the same sandbox: a fork's own domain. Where landlock
    cannot do that, the walls around the whole sandbox are all there is."""
    try:
        if landlock_abi() < 6:
            return
    except OSError:
        return
    rules = _syscall("landlock ruleset", _LANDLOCK_CREATE, struct.pack("=QQQ", 0, 0, SCOPES), 24, 0)
    _syscall("landlock", _LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def landlock(abi: int, allowed: dict[str, int]) -> None:
    """From here on files are only used as said: folder → rights; those of a folder hold in all below it."""
    rights = landlock_rights(abi)
    scopes = SCOPES if abi >= 6 else 0
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("=QQQ", rights, 0, scopes)[:size]
    rules = _syscall("landlock ruleset", _LANDLOCK_CREATE, attributes, size, 0)
    try:
        for folder, wanted in allowed.items():
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            try:
                rule = struct.pack("=Qi", wanted & rights, descriptor)
                _syscall(f"landlock rule for {folder}", _LANDLOCK_ADD, rules, 1, rule, 0)
            finally:
                os.close(descriptor)
        _syscall("landlock", _LANDLOCK_RESTRICT, rules, 0)
    finally:
        os.close(rules)
