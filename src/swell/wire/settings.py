"""Where a setting comes from.

Flag, then environment, then swell.toml, then [tool.swell] in pyproject.toml, then its default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from swell.model.errors import SwellError
from swell.model.policy import Policy
from swell.wire.paths import Home, default_home


class Settings(msgspec.Struct, frozen=True):
    """One resolved set of settings for a server or a client."""

    home: str
    """State directory; default $XDG_STATE_HOME/swell, else ~/.local/state/swell."""
    host: str = "127.0.0.1"
    """Address the gateway listens on. Anywhere but on loopback, every call needs the key."""
    port: int = 8470
    """Port the gateway listens on."""
    url: str = ""
    """What clients call; empty = http://{host}:{port}."""
    orphan_s: float = 10.0
    """A runner without supervisor, or a replica without runner, ends itself after this long."""
    hold_max: int = 1000
    """Requests one pool may hold at a gateway while none of its replicas has a free slot."""
    hold_bytes_max: int = 256 * 1024 * 1024
    """Bytes of bodies all held requests may take together."""
    body_max: int = 100 * 1024 * 1024
    """Bytes of one request's body."""
    header_timeout_s: float = 10.0
    """A client must have sent its whole header by then."""
    body_timeout_s: float = 30.0
    """A body must go on arriving: a client silent for this long in the middle of one is refused."""
    idle_timeout_s: float = 75.0
    """A kept-alive connection without a request is closed after this long."""
    records_per_pool: int = 200
    """Ordinary request records kept per pool (errors, cold and slow ones are kept apart)."""
    slow_ms: float = 1000.0
    """A request that took longer is a slow one."""
    history_days: float = 7.0
    """Records of requests, usage and the log of events are kept for this long."""
    log_max_mib: int = 64
    """Size at which an app's log file is turned over; one older file is kept."""
    policy: Policy = Policy()

    @property
    def base_url(self) -> str:
        return (self.url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def paths(self) -> Home:
        return Home(Path(self.home))


_PLAIN = {f.name: f for f in msgspec.structs.fields(Settings) if f.name not in ("home", "policy")}


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Settings:
    """Resolve all settings. Unknown names and values of the wrong type are refused, naming where they stand."""
    env = os.environ if environ is None else environ
    folder = Path.cwd() if cwd is None else cwd
    chosen: dict[str, Any] = {}
    for origin, values in _files(folder):
        _take(chosen, values, origin)
    if "SWELL_HOME" in env:
        chosen["home"] = env["SWELL_HOME"]
    for name in _PLAIN:
        value = env.get(f"SWELL_{name.upper()}")
        if value is not None:
            chosen[name] = value
    policy = {f: env[f"SWELL_{f.upper()}"] for f in Policy.__struct_fields__ if f"SWELL_{f.upper()}" in env}
    if policy:
        chosen["policy"] = {**chosen.get("policy", {}), **policy}
    for name, value in (flags or {}).items():
        if value is not None:
            chosen[name] = {**chosen.get("policy", {}), **value} if name == "policy" else value
    chosen["home"] = str(Path(chosen["home"]).expanduser().absolute()) if chosen.get("home") else str(default_home())
    try:
        return msgspec.convert(chosen, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SwellError(
            "bad_setting", f"A setting cannot be used: {error}. See `swell up --help` for names and units."
        ) from None


def _files(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """[tool.swell] first, swell.toml over it."""
    found = []
    for name, table in (("pyproject.toml", ("tool", "swell")), ("swell.toml", ())):
        path = folder / name
        if not path.is_file():
            continue
        try:
            values: Any = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise SwellError("bad_setting", f"{path} is not valid TOML: {error}.") from None
        for key in table:
            values = values.get(key, {})
        found.append((str(path), values))
    return found


def _take(chosen: dict[str, Any], values: dict[str, Any], origin: str) -> None:
    for name, value in values.items():
        if name not in _PLAIN and name not in ("home", "policy"):
            raise SwellError("bad_setting", f"{origin}: there is no setting called {name!r}.")
        chosen[name] = value
