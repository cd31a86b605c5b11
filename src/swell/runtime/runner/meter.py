"""How much did a replica use? Sampled from outside, about once a second, and exactly at its end.

CPU is what the kernel accounted: the cpuacct (v1) or cpu (v2) group of the replica with all its
processes; where there is no group, /proc/{pid}/stat with the children it waited for, and at the end
what wait4 gives. Of a template without its forks: those it waits for are counted as what they are, replicas.

Memory of a replica is what is charged to its memory group: pages a fork shares with its template are the
template's. Without such a group it is the resident set of the process, shared pages included.

A template's group is charged for more than the template holds: what it or a fork writes to first is copied, and the
old page stays charged to it for as long as any fork has it. That grows with every fork and goes with the forks, and
would not come free by stopping the template. So a template costs the memory that is resident in its own processes
and in no file.
"""

from __future__ import annotations

from swell.model.replica import Role
from swell.model.request import Usage
from swell.runtime.runner import processes
from swell.runtime.runner.cgroup import Group


def cpu_s(group: Group, pid: int | None, role: Role = "serving", in_all_s: float | None = None) -> float:
    """CPU seconds used so far. `in_all_s`: known once its process is over, without its forks."""
    used = group.cpu_s()
    if used is not None:
        return used
    if in_all_s is not None:
        return in_all_s
    return processes.cpu_s(pid, children=role == "serving") if pid is not None else 0.0


def memory_mib(group: Group, pid: int | None, role: Role = "serving") -> float:
    """Memory used now."""
    charged = group.memory_mib()
    if role == "template":
        held = sum(map(processes.own_mib, group.pids() or ({pid} if pid is not None else ())))
        # Processes that a template started by fork share pages too, each of which is charged once.
        return held if charged is None else min(held, charged)
    if charged is None:
        return processes.rss_mib(pid) if pid is not None else 0.0
    return charged


class Meter:
    """Turns readings of one replica's counters into what it used since the last one."""

    def __init__(self, replica: str, pool: str, role: Role, now: float, cpu_s: float = 0.0) -> None:
        """`now`: seconds since the epoch. `cpu_s`: already accounted for by someone else (an earlier runner)."""
        self._who = (replica, pool, role)
        self._at = now
        self._cpu_s = cpu_s
        self._memory_mib = 0.0

    def sample(self, now: float, cpu_s: float, memory_mib: float, starting: bool) -> Usage:
        """Use since the last sample. Counters never run back, so a failed (zero) reading costs nothing."""
        wall_s = max(0.0, now - self._at)
        used_s = max(0.0, cpu_s - self._cpu_s)
        replica, pool, role = self._who
        usage = Usage(
            replica=replica,
            pool=pool,
            role=role,
            at=now,
            wall_s=wall_s,
            cpu_s=used_s,
            memory_mib_s=(self._memory_mib + memory_mib) / 2 * wall_s,
            starting_s=wall_s if starting else 0.0,
        )
        self._at = max(now, self._at)
        self._cpu_s = max(cpu_s, self._cpu_s)
        self._memory_mib = memory_mib
        return usage
