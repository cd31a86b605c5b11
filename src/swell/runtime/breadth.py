"""How many threads may work side by side? As few as are of use: waking one and handing it the interpreter costs.

Jobs that are over soon share one thread, and jobs that mostly wait for something else get a thread each. Of those
between, which compute, some hold the interpreter, and are done no sooner side by side; others let it go, and are. One
thread and many are tried in turn, and what does more jobs is kept for longer.
"""

from __future__ import annotations

SHORT_NS = 200_000
"""Jobs that take less than this on average share a thread, whatever they do."""
COMPUTING_NS = 1_000_000
"""…and those that compute may, up to this: longer ones would keep each other waiting, and cost little side by side."""
COMPUTES = 0.5
"""Jobs compute if this share of their time is CPU time; the rest may be the loop's, which shares the interpreter."""
GAINS = 0.8
"""Side by side is kept if a job was done in less than this share of the time that one takes alone."""
MEAN_OVER = 16
"""Jobs over which averages are taken, the newest counting most."""
OUTLIER_NS = 2_000_000
"""Of one job no more counts than this when jobs are sorted by how long they take: its core may have been another's."""
TRIED_FOR = 500
"""Jobs for which one thread, or many, are tried."""
KEPT_FOR = 10_000
"""Jobs for which what did more of them is kept, before it is tried again."""
WIDE_FOR = 1_000
"""Jobs that wait, or are long, after which it is seen anew whether they still do."""


class Breadth:
    """What was learnt of jobs so far. `limit`: most threads there may be. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.width = 1
        """Threads that may be busy now."""
        self.narrow = True
        """One is enough, unless jobs are held up."""
        self.mean_ns = 0.0
        """How long jobs take. Of little meaning while threads side by side hold each other up."""
        self._usual_ns = 0.0
        self._usual_cpu_ns = 0.0
        """The same without what counts as an accident, and its CPU time, while one thread is enough."""
        self._short = 0
        """Jobs in a row that were short."""
        self._alone_ns = 0.0
        """What a job took on the one thread, when that was tried last."""
        self._stays_for = TRIED_FOR
        self._since_ns = 0
        self._jobs = 0
        self._took_ns = 0
        """Since when it is as it is, jobs that began since then, and how long they took."""

    def learn(self, took_ns: int, cpu_ns: int, now_ns: int) -> None:
        """A job is over: it took so long, and so much CPU time."""
        self.mean_ns += (took_ns - self.mean_ns) / MEAN_OVER
        if now_ns - took_ns < self._since_ns:
            return
        self._jobs += 1
        self._took_ns += took_ns
        if self.narrow:
            self._learn_alone(min(took_ns, OUTLIER_NS), cpu_ns, now_ns)
        elif self._jobs >= self._stays_for:
            self._learn_side_by_side(now_ns)

    def double(self) -> None:
        """Jobs wait and none was done for long."""
        self.width = min(self._limit, 2 * self.width)

    def no_more_than(self, threads: int) -> None:
        """The system allows no further one now."""
        self.width = max(1, threads)

    def rest(self) -> None:
        """No job waits."""
        if self.narrow:
            self.width = 1

    def _learn_alone(self, took_ns: int, cpu_ns: int, now_ns: int) -> None:
        self._usual_ns += (took_ns - self._usual_ns) / MEAN_OVER
        self._usual_cpu_ns += (min(cpu_ns, took_ns) - self._usual_cpu_ns) / MEAN_OVER
        if self._usual_ns <= SHORT_NS:
            self._short += 1
            if self._short >= TRIED_FOR:
                # Whatever comes after so many short ones is another kind, of which nothing is known.
                self._stays_for, self._jobs, self._took_ns = TRIED_FOR, 0, 0
            return
        self._short = 0
        if self._usual_cpu_ns < COMPUTES * self._usual_ns or self._usual_ns > COMPUTING_NS:
            self._turn(narrow=False, stays_for=WIDE_FOR, now_ns=now_ns)
        elif self._jobs >= self._stays_for:
            self._alone_ns = self._took_ns / self._jobs
            self._turn(narrow=False, stays_for=TRIED_FOR, now_ns=now_ns)

    def _learn_side_by_side(self, now_ns: int) -> None:
        tried = self._stays_for == TRIED_FOR
        if tried and now_ns - self._since_ns < GAINS * self._alone_ns * self._jobs:
            self._turn(narrow=False, stays_for=KEPT_FOR, now_ns=now_ns)
        else:
            self._turn(narrow=True, stays_for=KEPT_FOR if tried else TRIED_FOR, now_ns=now_ns)

    def _turn(self, *, narrow: bool, stays_for: int, now_ns: int) -> None:
        self.narrow, self.width = narrow, 1 if narrow else self._limit
        self._stays_for, self._since_ns = stays_for, now_ns
        self._jobs = self._took_ns = 0
        self._usual_ns = self._usual_cpu_ns = 0.0
        if narrow:
            self.mean_ns = 0.0
