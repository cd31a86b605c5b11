"""Does the filter let ordinary programs work, and refuse what it lists? Run by an interpreter of its own, for each kind
of machine."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.runtime.runner.sandbox.bpf import (
    ALLOW,
    ERRNO,
    FAMILIES,
    KILL,
    MACHINES,
    NAMESPACES,
    Machine,
    Step,
    assembled,
    program,
)

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


def verdict(steps: list[Step], number: int, *args: int, audit: int) -> int:
    """What the kernel would do with such a call."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    held = at = 0
    while True:
        code, when_true, when_false, operand = steps[at]
        at += 1
        if code == 0x20:
            held = struct.unpack_from("<I", data, operand)[0]
        elif code == 0x54:
            held &= operand
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: held == operand, 0x35: held >= operand, 0x45: bool(held & operand)}[code]
            at += when_true if holds else when_false


@machines
@given(number=st.integers(0, 600), args=st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_what_is_not_looked_at_is_allowed_and_what_is_listed_refused(
    machine: Machine, number: int, args: list[int]
) -> None:
    said = verdict(program(machine), number, *args, audit=machine.audit)
    looked_at = (machine.clone, machine.socket, machine.socketpair, machine.ioctl)
    if number in machine.refused.values():
        assert said == EPERM
    elif number == machine.clone3:
        assert said == ENOSYS
    elif number not in looked_at:
        assert said == ALLOW


@machines
@given(number=st.integers(0, 2**31 - 1), other=st.integers(0, 2**32 - 1))
def test_calls_of_another_machine_kill(machine: Machine, number: int, other: int) -> None:
    said = verdict(program(machine), number, audit=other)
    assert said == KILL or other == machine.audit


def test_the_second_table_of_numbers_of_one_machine_kills() -> None:
    machine = MACHINES["x86_64"]
    assert verdict(program(machine), 0x40000000 | 41, 1, 1, audit=machine.audit) == KILL


@machines
@given(flags=st.integers(0, 2**32 - 1))
def test_new_processes_and_threads_but_no_new_namespaces(machine: Machine, flags: int) -> None:
    said = verdict(program(machine), machine.clone, flags, audit=machine.audit)
    assert said == (EPERM if flags & NAMESPACES & ~0xFF else ALLOW)
    threads = 0x3D0F00
    assert verdict(program(machine), machine.clone, threads, audit=machine.audit) == ALLOW
    assert verdict(program(machine), machine.clone, 17, audit=machine.audit) == ALLOW


@machines
@given(
    family=st.integers(0, 60),
    kind=st.integers(0, 15),
    flags=st.sampled_from([0, 0o2000000, 0o4000]),
    protocol=st.integers(0, 300),
)
def test_sockets(machine: Machine, family: int, kind: int, flags: int, protocol: int) -> None:
    said = verdict(program(machine), machine.socket, family, kind | flags, protocol, audit=machine.audit)
    if family == 16:
        assert said == (ALLOW if protocol == 0 else EPERM)
    else:
        assert said == (ALLOW if family in FAMILIES and kind not in (3, 10) else EPERM)


@machines
def test_no_typing_into_a_terminal(machine: Machine) -> None:
    asked = {
        request: verdict(program(machine), machine.ioctl, 0, request, audit=machine.audit)
        for request in range(0x5401, 0x5460)
    }
    assert {request for request, said in asked.items() if said != ALLOW} == {0x5412, 0x541C}


@machines
def test_the_kernel_takes_it(machine: Machine) -> None:
    """Its own checks: not too long, no step beyond the end, a return at the end."""
    steps = program(machine)
    assert len(assembled(steps)) == 8 * len(steps)
    assert len(steps) < 4096
    for at, (code, when_true, when_false, _) in enumerate(steps):
        assert code in (0x20, 0x54, 0x06) or at + 1 + max(when_true, when_false) < len(steps)
    assert steps[-1][0] == 0x06
