"""Does each argument of a function, a class or an image change what its user sees? On a real platform."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import swell
from journey.apps import subject
from journey.running import running
from private_swell import PrivateSwell, wait_until
from wheels import make_wheel, repack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]


def of_each(*names: str) -> pytest.MarkDecorator:
    """These arguments of a function, and of a class."""
    return pytest.mark.parametrize(
        "kind", [pytest.param(kind, marks=pytest.mark.shows(f"App.{kind}", *names)) for kind in ("function", "cls")]
    )


def ready(swell: PrivateSwell, *roles: str) -> list[dict[str, Any]]:
    """The replicas of these roles that are loaded; not those of apps that were stopped, which may still be going."""
    with swell.connect() as client:
        apps = {f"{row['namespace']}/{row['name']}" for row in client.get("/api/apps").value}
    loaded = [one for one in swell.replicas() if one["phase"] == "ready"]
    return [one for one in loaded if one["role"] in roles and one["workload"].rpartition("/")[0] in apps]


@contextmanager
def busy(function: swell.Function, *args: str, gate: Path, calls: int = 1) -> Iterator[None]:
    """So many calls are at work meanwhile."""
    with ThreadPoolExecutor(calls) as callers:
        answers = [callers.submit(function.remote, *args, str(gate)) for _ in range(calls)]
        try:
            yield
        finally:
            gate.touch()
    assert all(answer.result() for answer in answers)


# -- what a replica is ------------------------------------------------------------------------------


@of_each("image", "env")
def test_variables(kind: str) -> None:
    image = swell.Image.debian_slim().env({"A": "the image's", "B": "the image's"})
    with running(kind, image=image, env={"B": "its own"}) as do:
        assert do.remote("variables", "A", "B") == ["the image's", "its own"]


@pytest.mark.shows("App", "image")
def test_the_image_of_an_app_is_that_of_its_functions() -> None:
    app = swell.App("subject", image=swell.Image.debian_slim().env({"A": "the app's"}))
    with running("function", app) as do:
        assert do.remote("variables", "A") == ["the app's"]


@of_each("include_source")
def test_source_that_is_left_out_is_not_there(kind: str) -> None:
    with pytest.raises(swell.Error, match="No module named 'subject'"), running(kind, include_source=False):
        pass


@pytest.mark.shows("App", "include_source")
def test_source_that_an_app_leaves_out_is_not_there() -> None:
    app = swell.App("subject", include_source=False)
    with pytest.raises(swell.Error, match="No module named 'subject'"), running("function", app):
        pass
    with running("function", swell.App("subject", include_source=False), include_source=True) as do:
        assert do.remote("echo") == [[], {}]


@of_each("cpu", "memory", "gpu")
def test_more_than_there_is_is_refused(kind: str) -> None:
    for given, words in (
        ({"cpu": 10_000}, "it asks for 10000 cores"),
        ({"memory": 1_000_000_000}, "it asks for 1000000000 MiB of memory"),
        ({"gpu": ["H100:2", "L4"]}, "it asks for 2 GPUs of kind H100 or 1 of kind L4"),
    ):
        with pytest.raises(swell.Error, match=words), running(kind, **given):
            pass


@of_each("cpu", "memory")
def test_limits_hold(own_server: PrivateSwell, kind: str) -> None:
    with running(kind, cpu=(0.1, 0.2), memory=(64, 200)) as do:
        do.remote("pid")
        (replica,) = ready(own_server, "serving")
        limited = any("cpu 0.2 cores" in words for words in replica["applied"])
        # Who may not set one says so, and why.
        assert limited or any(words.startswith("no cpu limit: ") for words in replica["applied"])
        assert not limited or do.remote("spin", 1.0) < 0.6
        with pytest.raises((MemoryError, swell.exception.RemoteError)):
            do.remote("fill", 400)


@pytest.mark.shows("Image.workdir", "path")
@pytest.mark.shows("Image.add_local_file", "local_path", "remote_path")
@pytest.mark.shows("Image.add_local_dir", "local_path", "remote_path", "ignore")
@pytest.mark.shows("Image.add_local_python_source", "modules", "ignore")
@pytest.mark.shows("Image.pipe", "func", "args", "kwargs")
def test_files_that_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, text in {
        "one.txt": "one",
        "folder/kept.txt": "kept",
        "folder/left.log": "left",
        "greens/__init__.py": "taste = 'mild'",
        "greens/peas.txt": "peas",
    }.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def with_folder(image: swell.Image, source: Path, *, place: str) -> swell.Image:
        return image.add_local_dir(source, place, ignore=["*.log"])

    image = (
        swell.Image.debian_slim()
        .workdir(str(tmp_path))
        .add_local_file(tmp_path / "one.txt", "in/first.txt")
        .pipe(with_folder, tmp_path / "folder", place="data")
        .add_local_python_source("greens", ignore=["*.md"])
    )
    with running("function", image=image) as do:
        assert do.remote("files") == {"in/first.txt": "one", "data/kept.txt": "kept", "greens/peas.txt": "peas"}
        assert do.remote("value", "greens", "taste") == "mild"
        assert do.remote("folder") == str(tmp_path)


@pytest.mark.shows("Image.debian_slim", "python_version")
def test_the_version_of_python() -> None:
    image = swell.Image.debian_slim(python_version="3.99")
    with pytest.raises(swell.Error, match=r"3\.99"), running("function", image=image):
        pass


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where packages are found: two package indexes, and a folder, each with something that the others do not have.

    Their names are not those of anybody's packages elsewhere.
    """
    top = tmp_path_factory.mktemp("indexes")
    for place in ("first/ours-leek", "first/msgspec", "first/httptools", "extra/ours-onion", "links"):
        (top / place).mkdir(parents=True)
    make_wheel(top / "first" / "ours-leek", "ours_leek", "1.0", {"ours_leek.py": b"taste = 'mild'"})
    make_wheel(top / "extra" / "ours-onion", "ours_onion", "1.0", {"ours_onion.py": b"taste = 'sharp'"})
    needy = b"Metadata-Version: 2.1\nName: ours_stew\nVersion: 1.0\nRequires-Dist: ours_water\n"
    make_wheel(top / "links", "ours_stew", "1.0", {"ours_stew.py": b"", "ours_stew-1.0.dist-info/METADATA": needy})
    for version in ("1.0", "2.0rc1"):
        make_wheel(top / "links", "ours_garlic", version, {"ours_garlic.py": f"version = '{version}'".encode()})
    for name in ("msgspec", "httptools"):
        repack(top / "first" / name, name)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(top))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield {"index_url": f"{url}/first", "extra_index_url": f"{url}/extra", "find_links": str(top / "links")}
        server.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


FOUND = ("find_links", "index_url", "extra_index_url", "pre", "extra_options")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("pip_install", marks=pytest.mark.shows("Image.pip_install", "packages", *FOUND)),
        pytest.param(
            "uv_pip_install", marks=pytest.mark.shows("Image.uv_pip_install", "packages", "requirements", *FOUND)
        ),
        *(
            pytest.param(method, marks=pytest.mark.shows(f"Image.{method}", *FOUND))
            for method in ("pip_install_from_requirements", "pip_install_from_pyproject")
        ),
    ],
)
def test_packages(indexes: dict[str, str], method: str, tmp_path: Path) -> None:
    """Each is somewhere else, the newest garlic is a pre-release, and what stew needs is nowhere."""
    packages: tuple[Any, ...] = ("ours-leek", ["ours-stew", "ours-garlic"], "ours-onion")
    given: dict[str, Any] = {**indexes, "pre": True, "extra_options": "--no-deps"}
    if method == "uv_pip_install":
        (tmp_path / "requirements.txt").write_text("ours-onion\n")
        packages, given["requirements"] = packages[:2], [str(tmp_path / "requirements.txt")]
    named = ["ours-leek", "ours-stew", "ours-garlic", "ours-onion"]
    if method == "pip_install_from_requirements":
        (tmp_path / "requirements.txt").write_text("\n".join(named))
        packages = (str(tmp_path / "requirements.txt"),)
    elif method == "pip_install_from_pyproject":
        (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {named}\n")
        packages = (str(tmp_path / "pyproject.toml"),)
    image = getattr(swell.Image.debian_slim(), method)(*packages, **given)
    with running("function", image=image) as do:
        found = ["mild", "sharp", "2.0rc1", "ours_stew"]
        wanted = [("leek", "taste"), ("onion", "taste"), ("garlic", "version"), ("stew", "__name__")]
        assert list(do.starmap([("value", f"ours_{name}", what) for name, what in wanted])) == found


# -- how many replicas there are, and for how long ------------------------------------------------------


@pytest.mark.shows("App.cls", "min_containers")
def test_one_is_there_before_anyone_asks(own_server: PrivateSwell) -> None:
    with running("cls", min_containers=1):
        wait_until("one is ready", lambda: len(ready(own_server, "serving")) == 1, wait_s=120)


@pytest.mark.shows("App.cls", "max_containers")
def test_one_at_most() -> None:
    with running("cls", max_containers=1) as do:
        assert len(set(do.map(["sleep"] * 4, [0.5] * 4))) == 1


@pytest.mark.shows("App.cls", "buffer_containers")
def test_one_in_reserve(own_server: PrivateSwell, tmp_path: Path) -> None:
    with running("cls", buffer_containers=1) as do, busy(do, "until", gate=tmp_path / "gate"):
        wait_until("one more than is needed", lambda: len(ready(own_server, "serving")) == 2, wait_s=120)


@pytest.mark.shows("App.cls", "scaledown_window")
def test_an_idle_one_goes(own_server: PrivateSwell) -> None:
    with running("cls", scaledown_window=1) as do:
        do.remote("pid")
        wait_until("none serves", lambda: not ready(own_server, "serving"), wait_s=120)


@pytest.mark.shows("App.cls", "single_use_containers")
def test_one_for_each_input() -> None:
    with running("cls", single_use_containers=True) as do:
        assert do.remote("pid") != do.remote("pid")


@pytest.mark.shows("App.function", "enable_memory_snapshot")
def test_a_snapshot_is_forked_where_a_plain_template_is_not(own_server: PrivateSwell) -> None:
    """One that asks for more than a core is started fresh, unless its author asked for a snapshot."""
    for asked in (False, True):
        with running("function", enable_memory_snapshot=asked, cpu=1.5) as do:
            do.remote("pid")
            assert bool(ready(own_server, "template")) is asked
            assert ready(own_server, "serving")


@pytest.mark.shows("concurrent", "target_inputs")
def test_replicas_are_started_for_the_inputs_they_aim_at(own_server: PrivateSwell, tmp_path: Path) -> None:
    app = swell.App("subject")
    spread = app.function()(subject.spread)
    with app.run(), busy(spread, gate=tmp_path / "gate", calls=3):
        wait_until("one for each", lambda: len(ready(own_server, "serving")) == 3, wait_s=120)


# -- how long, and how often ----------------------------------------------------------------------------


@pytest.mark.shows("App.cls", "timeout")
def test_an_input_ends_at_its_timeout() -> None:
    with running("cls", timeout=1) as do, pytest.raises(swell.exception.FunctionTimeoutError):
        do.remote("sleep", 60)


@of_each("timeout_max")
def test_progress_gives_an_input_its_timeout_anew(kind: str) -> None:
    with running(kind, timeout=2, timeout_max=60) as do:
        assert do.remote("goes_on", 3.0)
        with pytest.raises(swell.exception.FunctionTimeoutError, match=r"2 s \(timeout= of .* without swell.progress"):
            do.remote("sleep", 60)


@pytest.mark.shows("App.function", "startup_timeout")
def test_a_start_that_takes_longer_than_allowed() -> None:
    with (
        running("function", startup_timeout=0.001, timeout=5) as do,
        pytest.raises(swell.Error, match=r"startup_timeout= gave it 0\.001 s"),
    ):
        do.remote("pid")


@pytest.mark.shows("App.cls", "retries")
def test_a_failed_call_is_tried_again(tmp_path: Path) -> None:
    with running("cls", retries=1) as do:
        assert len(do.remote("fail", str(tmp_path / "tries"), 1)) == 2
        with pytest.raises(ConnectionError, match="try 2"):
            do.remote("fail", str(tmp_path / "more"), 2)


def test_each_try_has_the_timeout_anew(tmp_path: Path) -> None:
    with running("cls", retries=1, timeout=1) as do:
        assert do.remote("hang", str(tmp_path / "tries"), 1) == 2
        with pytest.raises(swell.exception.FunctionTimeoutError):
            do.remote("hang", str(tmp_path / "more"), 2)


@pytest.mark.shows("Retries", "max_retries", "initial_delay", "backoff_coefficient", "max_delay")
def test_how_long_tries_are_apart(tmp_path: Path) -> None:
    def waits(**given: Any) -> list[float]:
        file = tmp_path / str(sorted(given.items()))
        with running("function", retries=swell.Retries(**given)) as do:
            began = do.remote("fail", str(file), given["max_retries"])
        return [after - before for before, after in itertools.pairwise(began)]

    assert waits(max_retries=1, initial_delay=2.5)[0] >= 2.5
    assert waits(max_retries=2, initial_delay=0.2, backoff_coefficient=10.0)[1] >= 2.0
    assert max(waits(max_retries=1, initial_delay=60.0, max_delay=0.1)) < 50


# -- what keeps it apart ---------------------------------------------------------------------------


@contextmanager
def walled(kind: str, **given: Any) -> Iterator[swell.Function | None]:
    """As `running`; None where this machine cannot make such a sandbox, and says which layer of it is not there."""
    try:
        with running(kind, **given) as do:
            yield do
    except swell.Error as error:
        if error.code != "not_available" or "lacks its layer" not in error.message:
            raise
        yield None


@of_each("block_network")
def test_a_network_that_is_blocked(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        with running(kind) as do:
            assert do.remote("reach", port) == "reached"
        with walled(kind, block_network=True) as do:
            assert do is None or do.remote("reach", port) == "ConnectionRefusedError"


@of_each("restrict_modal_access")
def test_a_replica_that_may_not_call_others(kind: str) -> None:
    with running(kind) as do:
        assert do.remote("ask_another") == "unknown_app"
    with walled(kind, restrict_modal_access=True) as do:
        assert do is None or do.remote("ask_another") == "isolated"
