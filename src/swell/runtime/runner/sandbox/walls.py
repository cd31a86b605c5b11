"""How does a process that is about to become a user's wall itself in? In this order, each step once and for good.

Its namespaces; in them, as the first process there, its root; then the limits of any replica; then nobody, no
privileges, landlock, and last the filter of system calls, which would refuse all that comes before it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from swell.runtime import volumes
from swell.runtime.runner.sandbox import bpf, kernel
from swell.runtime.runner.sandbox.view import DEVICES, SETTINGS, SYSTEM, View
from swell.wire.child import Mount

NOBODY = 65534
_NAMESPACES = {
    "mount": kernel.NEWNS,
    "pid": kernel.NEWPID,
    "ipc": kernel.NEWIPC | kernel.NEWUTS,
    "network": kernel.NEWNET,
}
_READ = kernel.EXECUTE | kernel.READ_FILE | kernel.READ_DIR
_WRITE_THERE = kernel.WRITE_FILE | kernel.TRUNCATE | kernel.IOCTL_DEV
_EVERYTHING = (1 << 16) - 1
_VOLUME = _EVERYTHING & ~(kernel.MAKE_CHAR | kernel.MAKE_BLOCK | kernel.IOCTL_DEV)


class Walls(msgspec.Struct, frozen=True):
    """What is to be put around one process."""

    layers: tuple[str, ...]
    """Those that this node has, of those that were asked for."""
    view: View
    root: str
    """An empty folder of ours, to make the new root on."""
    scratch_mib: int
    """What its /tmp and its /dev/shm may each hold."""
    privileged: bool
    """The server is root, and needs no user namespace."""
    mounts: tuple[Mount, ...] = ()
    """Its volumes."""


def privileged() -> bool:
    """May this process make namespaces by itself? If not, a user namespace lets it."""
    return os.geteuid() == 0 and bool(kernel.effective_capabilities() >> kernel.CAP_SYS_ADMIN & 1)


def leave(walls: Walls) -> None:
    """New namespaces. The one for processes is entered by the next child."""
    wanted = [layer for layer in walls.layers if layer in _NAMESPACES]
    if not walls.privileged and (wanted or "capabilities" in walls.layers):
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.NEWUSER, "user")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    for layer in wanted:
        kernel.unshare(_NAMESPACES[layer], layer)
    if "network" in wanted:
        kernel.loopback_up()


def furnish(walls: Walls) -> None:
    """As the first process of the new namespaces: a root of its own, with what the view lists."""
    if "mount" not in walls.layers:
        return
    kernel.mount("none", "/", flags=kernel.REC | kernel.PRIVATE)
    root = walls.root
    kernel.mount("tmpfs", root, "tmpfs", kernel.NOSUID | kernel.NODEV, "size=1m,mode=755")
    _system(root)
    _devices(root, walls.scratch_mib)
    _scratch(root, walls.view.scratch, walls.scratch_mib)
    for path in walls.view.readable:
        _bind(path, root + path, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV)
    for path in walls.view.writable:
        _bind(path, root + path, kernel.ATTR_NOSUID | kernel.ATTR_NODEV)
    for mount in walls.mounts:
        os.makedirs(root + mount.path, exist_ok=True)
        volumes.put(mount, root + mount.path)
    os.mkdir(f"{root}/proc")
    if "pid" in walls.layers:
        kernel.mount("proc", f"{root}/proc", "proc", kernel.NOSUID | kernel.NODEV | kernel.NOEXEC)
    os.chdir(root)
    kernel.enter_root()
    kernel.set_attributes("/", kernel.ATTR_RDONLY, recursive=False)


def _system(root: str) -> None:
    attributes = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
    for path in SYSTEM:
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path):
            _bind(path, root + path, attributes)
    os.mkdir(f"{root}/etc")
    for name in SETTINGS:
        if os.path.exists(f"/etc/{name}"):
            # A link may lead out of what is there: what it leads to is put in its place.
            _bind(os.path.realpath(f"/etc/{name}"), f"{root}/etc/{name}", attributes)


def _devices(root: str, scratch_mib: int) -> None:
    os.mkdir(f"{root}/dev")
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{root}/dev/{name}", kernel.ATTR_NOSUID)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    # Terminals, none of the node. Only a shell asks for one: where they cannot be had, nothing else is lost.
    os.mkdir(f"{root}/dev/pts")
    with suppress(OSError):
        kernel.mount("devpts", f"{root}/dev/pts", "devpts", kernel.NOSUID | kernel.NOEXEC, "newinstance,ptmxmode=0666")
        os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.mkdir(f"{root}/dev/shm")
    kernel.mount("tmpfs", f"{root}/dev/shm", "tmpfs", kernel.NOSUID | kernel.NODEV, f"size={scratch_mib}m,mode=1777")


def _scratch(root: str, folders: tuple[str, ...], scratch_mib: int) -> None:
    first, *others = [root + folder for folder in folders]
    os.makedirs(first)
    kernel.mount("tmpfs", first, "tmpfs", kernel.NOSUID | kernel.NODEV, f"size={scratch_mib}m,mode=1777")
    for other in others:
        # One that lies in the first is a folder of it, which its user may not write to unless it is that itself.
        os.makedirs(other)
        kernel.mount(first, other, flags=kernel.BIND)


def _bind(source: str, target: str, attributes: int) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
    kernel.mount(source, target, flags=kernel.BIND | kernel.REC)
    kernel.set_attributes(target, attributes)


def submit(walls: Walls) -> None:
    """Give up what is left: the user, privileges, most of the system calls. Nothing of this comes back."""
    layers = walls.layers
    if "capabilities" in layers:
        kernel.drop_bounding_set()
        if walls.privileged:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.drop_capabilities()
    kernel.no_new_privileges()
    if "landlock" in layers:
        kernel.landlock(kernel.landlock_abi(), _rules(walls))
    if "seccomp" in layers:
        kernel.filter_calls(bpf.assembled(bpf.program(bpf.MACHINES[os.uname().machine])))


def _rules(walls: Walls) -> dict[str, int]:
    """Read and run whatever is seen; write where writing is meant to be."""
    # By the folder they are in: after a reload there is another file system at the path itself, which no rule knows.
    own = {os.path.dirname(mount.path): _VOLUME for mount in walls.mounts if mount.own}
    writable = (*walls.view.scratch, *walls.view.writable, "/dev/shm")
    return {"/": _READ, "/dev": _WRITE_THERE, "/proc": kernel.WRITE_FILE, **own, **dict.fromkeys(writable, _EVERYTHING)}
