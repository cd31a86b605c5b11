"""Is the Python a revision runs in the one it asked for, and is every failure said in useful words?"""

from __future__ import annotations

import asyncio
import functools
import gzip
import importlib.metadata
import io
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swell.model.environment import CALLER_REQUIREMENT, Environment
from swell.model.errors import SwellError
from swell.runtime.runner import bundle, environment
from swell.runtime.runner.processes import Reaper
from wheels import make_wheel, repack

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def with_reaper(work: Callable[[Reaper], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        reaper = Reaper(lambda _pid, _exit: None)
        reaper.start()
        return await asyncio.wait_for(work(reaper), 100)

    return asyncio.run(main())


ensure = functools.partial(environment.ensure, server=os.environ)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels that stands for a package index."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("msgspec", "httptools"):
        repack(folder, name)
    make_wheel(folder, "leek", "1.0", {"leek.py": b"taste = 'mild'\n"})
    make_wheel(folder, "onion", "2.0", {"onion.py": b"taste = 'sharp'\n"})
    old = "Metadata-Version: 2.1\nName: garlic\nVersion: 1.0\nRequires-Dist: msgspec<0.10\n"
    make_wheel(folder, "garlic", "1.0", {"garlic.py": b"", "garlic-1.0.dist-info/METADATA": old.encode()})
    return folder


def wanted(shelf: Path, *packages: str) -> Environment:
    return Environment(
        interpreter=sys.executable,
        python=PYTHON,
        packages=packages,
        index_options=("--no-index", "--find-links", str(shelf)),
    )


@pytest.mark.slow
def test_packages_and_the_runtime_share_one_environment_built_once(shelf: Path, tmp_path: Path) -> None:
    want = wanted(shelf, "leek==1.0")
    assert environment.built(want, tmp_path) is None
    lines: list[str] = []
    both = with_reaper(
        lambda reaper: asyncio.gather(
            *(ensure(want, tmp_path, reaper, progress) for progress in (lines.append, lines.append))
        )
    )
    assert both[0] == both[1] == environment.built(want, tmp_path)
    assert sum("making an environment" in line for line in lines) == 1
    assert any("leek" in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == [environment.digest(want)]
    # The shelf has no uvloop: that is said, and stops nothing.
    assert any("standard event loop" in line for line in lines)
    code = "import leek, swell.runtime.child, swell, sys; print(leek.taste, swell.__file__, sys.prefix)"
    out = subprocess.run([both[0], "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    import swell

    lock = (tmp_path / environment.digest(want) / environment.LOCK).read_text()
    installed = {name: importlib.metadata.version(name) for name in ("msgspec", "httptools")}
    assert pinned(lock) == {"leek": "1.0", **installed}
    taste, where, prefix = out.split()
    assert taste == "mild"
    assert Path(where).resolve() == Path(swell.__file__).resolve()
    assert Path(prefix) == tmp_path / environment.digest(want)


def pinned(lock: str) -> dict[str, str]:
    """Name → version of every line of a lock file."""
    return dict(line.split("==") for line in lock.splitlines() if "==" in line)


@pytest.mark.slow
def test_what_is_installed_is_what_was_locked_and_says_who_wants_it(shelf: Path, tmp_path: Path) -> None:
    """A package that another one brings is in the lock, and nothing but the lock is installed."""
    stew = b"Metadata-Version: 2.1\nName: stew\nVersion: 3.0\nRequires-Dist: onion\n"
    make_wheel(shelf, "stew", "3.0", {"stew.py": b"", "stew-3.0.dist-info/METADATA": stew})
    want = wanted(shelf, "stew")
    python = with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
    lock = (tmp_path / environment.digest(want) / environment.LOCK).read_text()
    assert re.search(r"^onion==2\.0\n +# via stew$", lock, re.MULTILINE), lock
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert pinned(done.stdout.replace(" ", "\n")) == pinned(lock)


@pytest.mark.slow
def test_a_uvloop_of_the_users_own_choice_is_left_alone(shelf: Path, tmp_path: Path) -> None:
    make_wheel(shelf, "uvloop", "0.17", {"uvloop/__init__.py": b"__version__ = '0.17'\n"})
    make_wheel(shelf, "uvloop", "0.22", {"uvloop/__init__.py": b"__version__ = '0.22'\n"})
    try:
        for packages, version in ((("leek", "uvloop==0.17"), "0.17"), (("leek",), "0.22")):
            want = wanted(shelf, *packages)
            python = with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
            argv = [python, "-c", "import uvloop; print(uvloop.__version__)"]
            assert subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip() == version
    finally:
        for wheel in shelf.glob("uvloop-*"):
            wheel.unlink()


@pytest.mark.slow
def test_a_package_does_not_say_what_python_its_environment_was_made_of(shelf: Path, tmp_path: Path) -> None:
    """A sandbox is shown the folder that is named there."""
    make_wheel(shelf, "mole", "1.0", {"mole.py": b"", "mole-1.0.data/data/pyvenv.cfg": b"home = /elsewhere/bin\n"})
    want = wanted(shelf, "mole")
    python = with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
    assert "/elsewhere" not in (tmp_path / environment.digest(want) / "pyvenv.cfg").read_text()
    subprocess.run([python, "-c", "import mole"], check=True, timeout=60)


@pytest.mark.slow
def test_an_interrupted_build_is_thrown_away(shelf: Path, tmp_path: Path) -> None:
    want = wanted(shelf, "onion")
    half = tmp_path / environment.digest(want)
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("not a python")
    assert environment.built(want, tmp_path) is None
    python = with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
    subprocess.run([python, "-c", "import onion"], check=True, timeout=60)


@pytest.mark.slow
def test_a_conflict_with_the_runtime_names_both_sides(shelf: Path, tmp_path: Path) -> None:
    want = wanted(shelf, "garlic")
    with pytest.raises(SwellError) as caught:
        with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
    assert caught.value.code == "environment"
    assert "runtime needs" in caught.value.message
    assert "garlic" in caught.value.detail
    assert "msgspec>=0.20" in caught.value.detail
    assert environment.built(want, tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["leek", "httpx2==0.0.1"])
def test_a_conflict_with_what_calls_need_names_swell_and_the_way_out(shelf: Path, tmp_path: Path, asked: str) -> None:
    needy = "Metadata-Version: 2.1\nName: httpx2\nVersion: 2.10\nRequires-Dist: leek>=9\n"
    make_wheel(shelf, "httpx2", "2.10", {"httpx2.py": b"", "httpx2-2.10.dist-info/METADATA": needy.encode()})
    try:
        want = wanted(shelf, asked, CALLER_REQUIREMENT)
        says = r"what Swell calls other functions with \(httpx2>=2\.10,<3.*--no-deps"
        with pytest.raises(SwellError) as caught:
            with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
        assert re.search(says, caught.value.message), caught.value.detail
    finally:
        for wheel in shelf.glob("httpx2-*"):
            wheel.unlink()


def test_a_python_that_cannot_be_had_is_named_instead_of_the_packages(tmp_path: Path) -> None:
    lines: list[str] = []
    want = Environment(interpreter=sys.executable, python="3.99", packages=("onion", CALLER_REQUIREMENT))
    offline = functools.partial(environment.ensure, server={**os.environ, "UV_PYTHON_DOWNLOADS": "never"})
    with pytest.raises(SwellError, match=r"Python 3\.99 is not on the server") as caught:
        with_reaper(lambda reaper: offline(want, tmp_path, reaper, lines.append))
    assert "python_version=" in caught.value.message
    assert f"own is {PYTHON}" in caught.value.message
    assert "packages" not in caught.value.message
    # What was asked for is named, and not what we add to it.
    assert lines[0] == "making an environment for onion"


@pytest.mark.slow
def test_a_package_that_is_not_there_is_said_in_the_installers_words(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(SwellError) as caught:
        with_reaper(lambda reaper: ensure(wanted(shelf, "celery-root"), tmp_path, reaper, lambda _: None))
    assert "celery-root" in caught.value.detail
    assert "could not be installed" in caught.value.message


def test_the_digest_is_of_what_is_installed_and_nothing_else(shelf: Path) -> None:
    base = wanted(shelf, "leek", "onion")
    import msgspec

    def but(**changes: Any) -> str:
        return environment.digest(msgspec.structs.replace(base, **changes))

    assert but(variables=(("A", "1"),), workdir="/tmp", interpreter="/usr/bin/python3") == environment.digest(base)
    changed = [but(python="3.99"), but(packages=("leek",)), but(packages=("onion", "leek")), but(index_options=())]
    assert len({environment.digest(base), *changed}) == 5


def test_the_users_own_interpreter_is_used_as_it_is(tmp_path: Path) -> None:
    plain = Environment(interpreter=sys.executable, python=PYTHON)
    assert with_reaper(lambda reaper: ensure(plain, tmp_path, reaper, lambda _: None)) == Path(sys.executable)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "without swell"])
def test_an_interpreter_that_cannot_serve_is_refused_with_the_way_out(kind: str, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    if kind == "without swell":
        interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        interpreter.chmod(0o700)
    want = Environment(interpreter=str(interpreter), python=PYTHON)
    with pytest.raises(SwellError, match="environment is built") as caught:
        with_reaper(lambda reaper: ensure(want, tmp_path, reaper, lambda _: None))
    assert caught.value.code == "environment"
    assert ("No module named" in caught.value.detail) == (kind == "without swell")


def test_pips_settings_reach_uv_and_missing_folders_do_not(tmp_path: Path) -> None:
    made = environment.uv_environ(
        {
            "PIP_FIND_LINKS": f"{tmp_path} {tmp_path}/none",
            "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/none file://{tmp_path} https://index.example/simple",
            "PIP_INDEX_URL": "https://main.example/simple",
            "PIP_CERT": "/etc/ca.pem",
            "UV_DEFAULT_INDEX": "https://own.example/simple",
            "KEPT": "yes",
        }
    )
    assert made["UV_FIND_LINKS"] == str(tmp_path)
    assert made["UV_INDEX"] == f"file://{tmp_path} https://index.example/simple"
    assert made["UV_DEFAULT_INDEX"] == "https://own.example/simple"
    assert (made["SSL_CERT_FILE"], made["KEPT"]) == ("/etc/ca.pem", "yes")
    assert "UV_FIND_LINKS" not in environment.uv_environ({"PIP_FIND_LINKS": str(tmp_path / "none")})


# -- source bundles --------------------------------------------------------------------------


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for member, data in members:
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_a_bundle_is_unpacked_once_whole_and_named_by_its_blob(tmp_path: Path) -> None:
    blob = tmp_path / "sha256-1"
    blob.write_bytes(archive((tarfile.TarInfo("pkg/mod.py"), b"x = 1"), (tarfile.TarInfo("./top.py"), b"y = 2")))
    folder = bundle.unpack(blob, tmp_path / "bundles")
    assert folder == tmp_path / "bundles" / "sha256-1"
    assert (folder / "pkg/mod.py").read_bytes() == b"x = 1"
    assert (folder / "top.py").read_bytes() == b"y = 2"
    blob.unlink()
    assert bundle.unpack(blob, tmp_path / "bundles") == folder
    assert [p.name for p in (tmp_path / "bundles").iterdir()] == ["sha256-1"]


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "content",
    [
        archive((tarfile.TarInfo("/tmp/evil"), b"")),
        archive((tarfile.TarInfo("a/../../evil"), b"")),
        archive((link("evil", tarfile.SYMTYPE, "/etc/passwd"), b"")),
        archive((link("evil", tarfile.LNKTYPE, "top"), b"")),
        archive((link("evil", tarfile.FIFOTYPE, ""), b"")),
        archive((tarfile.TarInfo("twice"), b"1"), (tarfile.TarInfo("twice"), b"2")),
        b"not a gzip file",
        gzip.compress(b"not a tar file" * 100),
        archive((tarfile.TarInfo("cut"), b"x" * 5000))[:60],
    ],
    ids=["absolute", "above", "symlink", "hard link", "fifo", "twice", "no gzip", "no tar", "cut"],
)
def test_a_bundle_that_is_not_plain_files_inside_it_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    blob = tmp_path / "sha256-2"
    blob.write_bytes(content)
    with pytest.raises(SwellError, match="sha256-2") as caught:
        bundle.unpack(blob, tmp_path / "bundles")
    assert caught.value.code == "bad_bundle"
    assert list((tmp_path / "bundles").iterdir()) == []


WHOLE = archive(*((tarfile.TarInfo(f"pkg/m{n}.py"), random.Random(n).randbytes(40_000).hex().encode()) for n in (1, 2)))


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=30))
@example(12, b"\xff" * 20)
@example(10_000, bytes(range(64)))
def test_a_damaged_bundle_is_refused_as_such_and_never_in_part(at: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        blob, bundles = Path(folder) / "sha256-3", Path(folder) / "bundles"
        blob.write_bytes(WHOLE[:at] + damage + WHOLE[at + len(damage) :])
        with suppress(SwellError):
            bundle.unpack(blob, bundles)
        assert [path.name for path in bundles.iterdir()] in ([], [blob.name])
