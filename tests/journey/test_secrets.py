"""Do replicas have their secrets, do new values reach them, and does nobody else see them? On a real platform: what
the platform writes and shows is searched for the values."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import swell
from journey.running import running
from private_swell import Failed, PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import ctypes
import os
import subprocess
import sys

import swell

PR_GET_DUMPABLE = 3
app = swell.App("vault", secrets=[swell.Secret.from_name("db", required_keys=["PASSWORD"])])
LOADED = os.environ.get("PASSWORD")


def file(name: str) -> str:
    with open(os.path.join(os.environ["SWELL_SECRETS_DIR"], name)) as opened:
        return opened.read()


@app.function(secrets=[swell.Secret.from_dict({"TOKEN": "brought-along-7"})])
def look() -> dict:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.environ['PASSWORD'])"], capture_output=True)
    return {
        "now": os.environ["PASSWORD"],
        "loaded": LOADED,
        "user": os.environ.get("USER"),
        "user_file": os.path.exists(os.path.join(os.environ["SWELL_SECRETS_DIR"], "db/USER")),
        "token": os.environ["TOKEN"],
        "file": file("db/PASSWORD"),
        "token_file": file("vault/TOKEN"),
        "child": child.stdout.decode().strip(),
        "pid": os.getpid(),
        "dumpable": ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
    }


@app.function()
def say(text: str) -> None:
    print(text.format(os.environ["PASSWORD"]))
    os.system("echo from a shell: $PASSWORD")


@app.function()
def fail() -> None:
    raise ValueError("no access with " + os.environ["PASSWORD"])


@app.cls(enable_memory_snapshot=True)
class Snapped:
    @swell.enter(snap=True)
    def load(self) -> None:
        self.made_of = os.environ["PASSWORD"]

    @swell.method()
    def tell(self) -> list:
        return [self.made_of, os.environ["PASSWORD"]]
"""


@pytest.fixture
def vault(own_swell: PrivateSwell, tmp_path: Path) -> Iterator[PrivateSwell]:
    """The program, deployed with a secret of its own."""
    own_swell.run("secret", "create", "db", "PASSWORD=first-value-1", "USER=me")
    file = tmp_path / "vault.py"
    file.write_text(PROGRAM)
    own_swell.run("deploy", str(file))
    yield own_swell
    own_swell.run("app", "stop", "vault")
    wait_until("the app is gone", lambda: not own_swell.replicas())
    if any(row["name"] == "db" for row in json.loads(own_swell.run("secret", "list", "--json"))):
        own_swell.run("secret", "delete", "db")


def call(swell: PrivateSwell, target: str, **arguments: Any) -> Any:
    with swell.connect() as client:
        return client.call(f"vault/{target}", arguments).value


def look(swell: PrivateSwell) -> dict[str, Any]:
    found: dict[str, Any] = call(swell, "look")
    return found


def logged(swell: PrivateSwell, words: str) -> str:
    """The app's log, once it has these words."""
    wait_until(f"{words!r} is in the log", lambda: words in swell.run("logs", "vault", "--tail", "-1"))
    return swell.run("logs", "vault", "--tail", "-1")


def test_a_replica_has_them_and_so_has_what_it_loads(vault: PrivateSwell) -> None:
    found = look(vault)
    for where in ("now", "loaded", "file", "child"):
        assert found[where] == "first-value-1", where
    assert found["token"] == found["token_file"] == "brought-along-7"
    assert call(vault, "Snapped.tell") == ["first-value-1"] * 2
    assert any("secrets as files" in row["applied"] for row in vault.replicas())


def test_new_values_reach_what_runs_and_what_was_loaded_with_the_old_is_made_anew(vault: PrivateSwell) -> None:
    before = look(vault)
    assert (before["user"], before["user_file"]) == ("me", True)
    assert call(vault, "Snapped.tell") == ["first-value-1"] * 2
    wait_until("templates are there", lambda: sum(row["role"] == "template" for row in vault.replicas()) >= 2)
    loaded = {row["pid"] for row in vault.replicas() if row["role"] == "template"}
    vault.run("secret", "rotate", "db", "PASSWORD=second-value-2", "--unset", "USER")
    # The same process, without a restart.
    wait_until("the file is new", lambda: look(vault)["file"] == "second-value-2")
    wait_until("what is unset is gone", lambda: (found := look(vault))["user"] is None and not found["user_file"])
    after = look(vault)
    assert (after["pid"], after["now"], after["child"]) == (before["pid"], "second-value-2", "second-value-2")
    assert after["loaded"] == "first-value-1"
    wait_until("old templates are gone", lambda: not loaded & {row["pid"] for row in vault.replicas()})
    for row in vault.serving():
        os.kill(row["pid"], signal.SIGKILL)
    wait_until("old replicas are gone", lambda: not any(row["pid"] == before["pid"] for row in vault.replicas()))
    wait_until("a new one has loaded it", lambda: look(vault)["loaded"] == "second-value-2")
    wait_until("and snapped it", lambda: call(vault, "Snapped.tell") == ["second-value-2"] * 2)


def test_no_process_shows_them(vault: PrivateSwell) -> None:
    assert look(vault)["dumpable"] == 0
    call(vault, "Snapped.tell")
    wait_until("templates are there", lambda: any(row["role"] == "template" for row in vault.replicas()))
    replicas = {row["pid"] for row in vault.replicas()}
    seen = set()
    for process in vault.processes():
        for shown in ("environ", "cmdline"):
            try:
                content = Path(f"/proc/{process.pid}/{shown}").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            assert b"first-value" not in content, f"{shown} of {process}"
            assert b"brought-along" not in content, f"{shown} of {process}"
            seen.add(process.pid)
    assert replicas <= seen
    for pid in replicas:
        soft_and_hard = resource.prlimit(pid, resource.RLIMIT_CORE)
        assert soft_and_hard == (0, 0)
        # The owner of what stands below /proc/PID is root where a process cannot be dumped or traced.
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    for name in ("control", "gateway", "runner"):
        assert resource.prlimit(vault.server(name), resource.RLIMIT_CORE) in ((1, 1), (0, 0)), name


def test_nothing_that_is_kept_or_answered_has_them(vault: PrivateSwell) -> None:
    look(vault)
    # Also of the former values, and what was printed in other forms.
    call(vault, "say", text="it is {}, as they say")
    vault.run("secret", "rotate", "db", "PASSWORD=second-value-2")
    wait_until("it is told", lambda: look(vault)["now"] == "second-value-2")
    call(vault, "say", text="it was first-value-1")
    call(vault, "say", text="in base64 Zmlyc3QtdmFsdWUtMQ==")
    with pytest.raises(Failed, match="no access with second-value-2"):
        call(vault, "fail")
    log = logged(vault, "no access with [secret db.PASSWORD]")
    for line in ("it is [secret db.PASSWORD], as", "shell: [secret db.PASSWORD]", "was [secret", "base64 [secret"):
        assert line in log
    told = "".join(vault.run(*words, "--json") for words in (("secret", "list"), ("ps",), ("why",), ("usage",)))
    wait_until("records are written", lambda: "vault" in vault.run("why"))
    kept = [path for path in vault.home.rglob("*") if path.is_file()]
    assert vault.home / "control.db" in kept
    for value in ("first-value-1", "second-value-2"):
        assert value not in told + log
        for path in kept:
            assert value.encode() not in path.read_bytes(), path
    assert (vault.home / "master.key").stat().st_mode & 0o777 == 0o600


def test_a_replica_that_outlives_its_runner_has_new_values_and_its_output_is_cleaned(vault: PrivateSwell) -> None:
    before = look(vault)["pid"]
    runner = vault.server("runner")
    os.kill(runner, signal.SIGKILL)
    call(vault, "say", text="alone with {}")
    wait_until("there is another runner", lambda: vault.server("runner") != runner)
    vault.run("secret", "rotate", "db", "PASSWORD=second-value-2")
    wait_until("it is told", lambda: look(vault)["now"] == "second-value-2")
    assert look(vault)["pid"] == before
    assert "alone with [secret db.PASSWORD]" in logged(vault, "alone with")


def test_what_cannot_be_says_what_to_do(vault: PrivateSwell, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="There is a secret 'db' already: `swell secret rotate db"):
        vault.run("secret", "create", "db", "A=b")
    with pytest.raises(Failed, match=r"There is no secret 'nobody'\. There are: db\."):
        vault.run("secret", "rotate", "nobody", "A=b")
    with pytest.raises(Failed, match="vault requires PASSWORD of the secret 'db'"):
        vault.run("secret", "rotate", "db", "--unset", "PASSWORD")
    with pytest.raises(Failed, match="The secret 'db' is used by vault"):
        vault.run("secret", "delete", "db")
    with pytest.raises(Failed, match="Give KEY=VALUE, KEY, --from-dotenv FILE or --from-stdin"):
        vault.run("secret", "create", "empty")
    with pytest.raises(Failed, match="'A-B' is no variable's name"):
        vault.run("secret", "create", "odd", "A-B=hunter22")
    other = tmp_path / "other.py"
    other.write_text(PROGRAM.replace('["PASSWORD"]', '["PORT", "HOST"]').replace('"vault"', '"other"'))
    with pytest.raises(Failed, match=r"'db' has no HOST and no PORT, .* `swell secret rotate db HOST=… PORT=…`"):
        vault.run("deploy", str(other))
    other.write_text(PROGRAM.replace('"db"', '"bd"').replace('"vault"', '"other"'))
    with pytest.raises(Failed, match=r"There is no secret 'bd'\. There are: db\. `swell secret create bd"):
        vault.run("deploy", str(other))


def test_a_secret_that_is_gone_drains_what_has_it_and_fails_what_starts(vault: PrivateSwell) -> None:
    look(vault)
    assert "db is deleted" in vault.run("secret", "delete", "db", "--force")
    wait_until("what had it is gone", lambda: not vault.serving())
    with pytest.raises(Failed, match=r"a secret it needs is gone.*swell secret create db KEY=VALUE"):
        look(vault)
    vault.run("secret", "create", "db", "PASSWORD=third-value-3")
    # Nobody waits for a next try that former failures have put off.
    assert look(vault)["now"] == "third-value-3"


LATER = """
import os

import swell

app = swell.App("vault", secrets=[swell.Secret.from_name("db", required_keys=["USER"])])


@app.function()
def user() -> str:
    return os.environ["USER"]
"""


def test_a_version_is_not_gone_back_to_whose_secret_was_rotated_away(vault: PrivateSwell, tmp_path: Path) -> None:
    later = tmp_path / "later.py"
    later.write_text(LATER)
    vault.run("deploy", str(later))
    # Nothing that is deployed asks for it any more.
    vault.run("secret", "rotate", "db", "--unset", "PASSWORD")
    with pytest.raises(Failed, match=r"'db' has no PASSWORD, .* `swell secret rotate db PASSWORD=…` adds it"):
        vault.run("app", "rollback", "vault")
    assert call(vault, "user") == "me"
    vault.run("secret", "rotate", "db", "PASSWORD=fourth-value-4")
    vault.run("app", "rollback", "vault")
    assert look(vault)["now"] == "fourth-value-4"


def test_values_come_from_files_and_standard_input(own_swell: PrivateSwell, tmp_path: Path) -> None:
    (tmp_path / "mine.env").write_text("A=from a file\nexport B='two'\n")
    own_swell.run("secret", "create", "filed", "--from-dotenv", str(tmp_path / "mine.env"), "C=three")
    words = ["secret", "rotate", "filed", "--from-stdin"]
    argv = [sys.executable, "-m", "swell.cli.main", *words]
    done = subprocess.run(argv, input="D=four\n", env=own_swell.environ, capture_output=True, text=True, timeout=100)
    assert done.stdout == "filed is v2 now: A, B, C, D.\n", done.stderr
    (row,) = json.loads(own_swell.run("secret", "list", "--json"))
    assert (row["keys"], row["versions"], row["apps"]) == (["A", "B", "C", "D"], [1, 2], [])
    assert "filed v1 is deleted" in own_swell.run("secret", "delete", "filed", "--version", "1")
    own_swell.run("secret", "delete", "filed")
    assert "There is no secret" in own_swell.run("secret", "list")


@pytest.mark.shows("App", "secrets")
@pytest.mark.shows("App.function", "secrets")
@pytest.mark.shows("App.cls", "secrets")
@pytest.mark.shows("Secret.from_name", "name", "environment_name", "required_keys")
@pytest.mark.parametrize("kind", ["function", "cls"])
def test_those_of_an_app_and_of_its_functions_and_classes(own_server: PrivateSwell, kind: str) -> None:
    for namespace, where in (("default", "here"), ("other", "there")):
        own_server.run("secret", "create", "named", f"WHERE={where}", f"{where.upper()}=1", "--namespace", namespace)
    here = swell.Secret.from_name("named", required_keys=["WHERE", "HERE"])
    there = swell.Secret.from_name("named", environment_name="other")
    try:
        with running(kind, swell.App("subject", secrets=[here]), secrets=[there], env={"WHERE": "env"}) as do:
            assert do.remote("variables", "WHERE", "HERE", "THERE") == ["there", "1", "1"]
        with running(kind, swell.App("subject", secrets=[here])) as do:
            assert do.remote("variables", "WHERE", "THERE") == ["here", None]
        lacking = swell.Secret.from_name("named", required_keys=["THERE"])
        with pytest.raises(swell.Error, match="'named' has no THERE"), running(kind, secrets=[lacking]):
            pass
    finally:
        for namespace in ("default", "other"):
            own_server.run("secret", "delete", "named", "--force", "--namespace", namespace)


def test_a_lost_master_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    # The module's server has its key in the environment.
    with unstarted_swell({name: value for name, value in os.environ.items() if name != "SWELL_KEY"}) as alone:
        alone.run("up", "-d")
        alone.run("secret", "create", "db", "PASSWORD=first-value-1")
        alone.run("down")
        key = alone.home / "master.key"
        away = key.rename(tmp_path / "away")
        said = subprocess.run(["swell", "up", "-d"], env=alone.environ, capture_output=True, text=True, timeout=100)
        assert said.returncode == 0
        assert f"cannot be opened with {key}: default/db" in said.stderr
        with pytest.raises(Failed, match=r"put the former `master\.key` back"):
            alone.run("secret", "create", "b", "A=b")
        away.rename(key)
        alone.run("secret", "create", "b", "A=b")
        alone.run("down")
