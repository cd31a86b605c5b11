"""In which order and how thoroughly do tests run, how long did each part take, may one be skipped or hang, and
what was tried in sandboxes?"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

import debian
from private_swell import PrivateSwell, private_swell

# A shell's background jobs ignore Ctrl-C, and what runs under nohup a hangup; whatever they start would too: some tests
# interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No deadline for one example: how long it takes is the machine's business.
settings.register_profile("thorough", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", action="store_true", help="say how many minutes each part of the suite took")
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shows(callable, *arguments): shows what they do, or that they are refused")
    config.pluginmanager.register(Hung(os.dup(2)), "hung")
    config.pluginmanager.register(Minutes(), "minutes")
    config.pluginmanager.register(Attempts(), "attempts")
    config.pluginmanager.register(Order(), "order")
    # A run of the quick tests alone has a minute; the whole suite tries four times as many examples.
    settings.load_profile("quick" if config.getoption("-m") == "not slow" else "thorough")


def pytest_unconfigure() -> None:
    debian.remove_unpacked()


class Order:
    """Quick tests first, so that a plain mistake shows within a minute, also where workers take a file each."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=_is_slow)


class Hung:
    """Ends the process of a test whose timeout did not end it, and says where all its threads and tasks stand.

    The alarm is an exception in whatever runs just then: an event loop that is busy takes it for its callback's, and
    after it a clean-up may wait for ever. Side by side with others it counts as failed, and the run ends there.
    """

    GRACE_S = 60.0

    def __init__(self, stderr: int) -> None:
        self.stderr = stderr
        """Of this process, not what is captured of a test."""
        self.timer: threading.Timer | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> Generator[None, object, object]:
        if settings.timeout:
            self.timer = threading.Timer(settings.timeout + self.GRACE_S, self._end, (item.nodeid,))
            self.timer.daemon = True
            self.timer.start()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_timeout_cancel_timer(self) -> Generator[None, object, object]:
        if self.timer is not None:
            self.timer.cancel()
        return (yield)

    def _end(self, test: str) -> None:
        with open(self.stderr, "w") as said:
            print(f"\n{test} hangs: its timeout did not end it", file=said, flush=True)
            faulthandler.dump_traceback(said)
            for task in gc.get_objects():
                if isinstance(task, asyncio.Task) and not task.done():
                    task.print_stack(file=said)
        os._exit(1)


class Minutes:
    """Adds up what each part (folder under tests/, quick and slow apart) and each file took, and counts skips.

    By the reports of tests, which come here also from workers that run them side by side.
    """

    FILES_MAX = 20
    """Files that are told: those that took longest."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[bool, str], float] = defaultdict(float)
        self.tests: dict[tuple[bool, str], int] = defaultdict(int)
        self.files: dict[str, float] = defaultdict(float)
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        part = ("slow" in report.keywords, _part(report.nodeid))
        self.seconds[part] += report.duration
        self.tests[part] += report.when == "teardown"
        self.files[report.nodeid.partition("::")[0]] += report.duration
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.skipped and session.config.getoption("--no-skips") and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if config.getoption("--minutes"):
            terminalreporter.section("minutes")
            for slow in (False, True):
                parts = [key for key in self.seconds if key[0] is slow]
                if parts:
                    total = sum(self.seconds[key] for key in parts)
                    terminalreporter.write_line(f"{'slow' if slow else 'quick':<16}{total / 60:7.2f}")
                for key in sorted(parts, key=lambda key: -self.seconds[key]):
                    terminalreporter.write_line(f"  {key[1]:<14}{self.seconds[key] / 60:7.2f}{self.tests[key]:6} tests")
            for file in sorted(self.files, key=lambda file: -self.files[file])[: self.FILES_MAX]:
                terminalreporter.write_line(f"{self.files[file] / 60:8.2f}  {file}")
        if config.getoption("--no-skips"):
            for test in self.skipped:
                terminalreporter.write_line(f"SKIPPED, which counts as failed here: {test}", red=True)


class Attempts:
    """Shows what hostile code tried in a sandbox (tests/escape), and what came of it: an error's name is a refusal."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == "attempt":
                    what, _, outcome = str(value).partition(" ")
                    self.outcomes[what][outcome if outcome.isidentifier() else "other"] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        if self.outcomes and config.getoption("--minutes"):
            terminalreporter.section("attempts in a sandbox")
            for what, outcomes in sorted(self.outcomes.items()):
                told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
                terminalreporter.write_line(f"{what:<16}{told}")
            refused = sum(n for each in self.outcomes.values() for outcome, n in each.items() if outcome.isupper())
            tried = sum(outcomes.total() for outcomes in self.outcomes.values())
            terminalreporter.write_line(f"{'refused':<16}{refused} of {tried}")


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _part(nodeid: str) -> str:
    """`tests/gateway/test_link.py::…` → gateway."""
    folders = nodeid.partition("::")[0].split("/")[1:-1]
    return folders[0] if folders else "project"


@pytest.fixture(scope="module")
def own_swell() -> Iterator[PrivateSwell]:
    """A running platform for the tests of one module; at the end it is stopped, and nothing of it may be left."""
    with private_swell(template_idle_s=60) as swell:
        yield swell
