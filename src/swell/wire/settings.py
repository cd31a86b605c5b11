"""Where a setting comes from.

Flag, then environment, then swell.toml, then [tool.swell] in pyproject.toml, then its default.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from swell.model import gpu
from swell.model.errors import SwellError
from swell.model.near import did_you_mean, near_names
from swell.model.policy import Policy
from swell.model.urls import shown
from swell.wire.paths import Home, default_home, local_url

OTHER_VARIABLES = ("key", "debug", "request_id", "secrets_dir")
"""SWELL_KEY and the like: no settings of a server, and read all the same."""
GPUS_FOUND = "auto"
GPUS_NONE = "none"
GATEWAYS_MAX = 64
"""More processes at one port than cores are of no use, and each costs some 40 MiB."""


class Settings(msgspec.Struct, frozen=True):
    """One resolved set of settings for a server or a client."""

    home: str
    """State directory; default $XDG_STATE_HOME/swell, else ~/.local/state/swell."""
    host: str = "127.0.0.1"
    """Address the gateway listens on. Anywhere but on loopback, every call needs the key."""
    port: int = 8470
    """Port the gateway listens on."""
    grpc_port: int | None = None
    """Port for the Open Inference Protocol over gRPC (docs/inference.md), 0 for a free one; without, there is none."""
    gateways: int = 1
    """Processes that take requests at `port` at once, each on one core at most. What bounds a gateway, `hold_max` and
    the like, are of each."""
    store: str = ""
    """Where the server's state is kept: empty for a file in `home`, or postgresql://USER:PASSWORD@HOST/DATABASE. The
    password is no flag: it stands in the environment or a file, and is told to nobody who need not have it."""
    url: str = ""
    """Where clients find a server that is elsewhere; empty = the one on `home`."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that web endpoints, `/metrics`, lists of models and `/api` may be reached by (as in Host), beside
    loopback and, but for `/api`, any address. `/api` also takes `host` and, where that is a wildcard, this machine's
    name and any address. A list in a file, else names between commas."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may use `/api` from a browser, as `http://host:port`; none by default."""
    restarts_max: int = 5
    """A process of the server (control, gateway, runner) that ends is started again this often…"""
    restarts_within_s: float = 60.0
    """…within this time; once more, and everything is stopped."""
    drain_s: float = 30.0
    """A server that is stopped waits this long for requests in flight; then they are cut."""
    cpu_overcommit: float = 16.0
    """CPU requests on a node may add up to this many times its cores: who is idle takes none. Memory is never promised
    twice."""
    gpus: str = "auto"
    """The GPUs of a node: those that `nvidia-smi` tells of, where it is there (auto), no one's business (none), or a
    list like H100:8 or A100:4,L4:2, whose numbers go by their order on the PCI bus."""
    spot: bool = False
    """The machine may be taken away at any time: `swell node list` says so of it. What it is told of that before, it
    says by `swell node leave` (docs/jobs.md)."""
    orphan_s: float = 10.0
    """A runner without supervisor, or a replica without runner, ends itself after this long."""
    owner_silent_s: float = 60.0
    """A program on another machine that says nothing for this long has ended, and what belongs to it ends. It says that
    it is there six times as often."""
    cancel_grace_s: float = 0.5
    """An input whose caller left has this long to stop; then its replica is ended, or lists it if it has others."""
    fork_probe_s: float = 5.0
    """A template whose first fork has not come to life by then is not forked again. Hooks are not counted."""
    hold_max: int = 1000
    """Requests one pool may hold at a gateway while none of its replicas has a free slot."""
    hold_s: float = 600.0
    """A request waits at most this long for a replica that takes it, a cold start included."""
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
    """Ordinary request records kept per pool (errors, cold and slow ones are kept apart). Of one second, at most the
    first 50 are."""
    slow_ms: float = 1000.0
    """A request that took longer is a slow one."""
    history_days: float = 7.0
    """Records of requests, usage (the last day by the minute, before that by the hour) and the log of events are kept
    for this long; what an app printed, until it has printed nothing for this long."""
    versions_kept: int = 20
    """Versions kept of each app, with their source: as far back as `swell app rollback` goes."""
    log_max_mib: int = 64
    """Size at which an app's log file is turned over; one older file is kept."""
    cache_days: float = 30.0
    """Environments and unpacked bundles that nothing deployed or running uses are removed after this long…"""
    cache_max_gib: float = 20.0
    """…or sooner, the longest unused first, once all together take more than this."""
    response_cache_bytes_max: int = 64 * 1024 * 1024
    """Bytes of answers of `@swell.cached` functions that a gateway keeps; 0 keeps none."""
    blobs_max_gib: float = 20.0
    """Source of all apps and of the versions kept of them, packed as it was sent, may take this much; a deploy that
    would need more is refused."""
    results_max_gib: float = 20.0
    """Results of queued calls over 2 MiB, each in a file until its call is forgotten, may take this much; over it no
    further call is accepted. Those of calls that were are kept all the same."""
    queue_free_mib: int = 256
    """While the disk of the state directory has less than this left, or less than a twentieth of a small one, no
    further call is accepted into the queue: the rest is for what runs, for deploys and for results. 0: none is left."""
    queued_calls_max: int = 1_000_000
    """Calls of one function, or of one class with its parameters, that may wait in the queue, due or not; one more is
    refused."""
    variants_max: int = 100
    """Sets of parameters and options that a function or class may be in use with at the same time. One more takes the
    place of the longest unused; where none is, it is refused."""
    variant_idle_s: float = 3600.0
    """One that nobody has called for this long, and of which nothing runs, is forgotten."""
    volume_bytes_max: int = 100 * 1024**3
    """Bytes that the files of a volume may have together, where it has no quota of its own."""
    volume_files_max: int = 100_000
    """Files, links and folders that a volume may have, where it has no quota of its own."""
    sandbox_volume_bytes_max: int = 100 * 1024**3
    """Bytes on disk that a replica in a sandbox may have written to its volumes; one with more is ended."""
    metrics_pools_max: int = 1000
    """Workloads that `/metrics` tells one by one; the others are summed as `app="_other"`. A process whose part is over
    16 MiB, which takes some thousands, tells none."""
    policy: Policy = Policy()
    sources: dict[str, str] = {}
    """Where each of those that are not by default was said: "flag", "environment", "file:PATH"."""

    @property
    def base_url(self) -> str:
        """What clients call: `url`, else where the server on `home` says it listens, else where one would."""
        return (self.url or self.paths.server_url() or local_url(self.host, self.port)).rstrip("/")

    @property
    def paths(self) -> Home:
        return Home(Path(self.home))


_NOTHING_AT_ZERO = {
    "cpu_overcommit": "no replica would find room",
    "fork_probe_s": "no template could be forked; templates=false does without them",
    "gateways": "nobody would listen",
    "hold_max": "nothing that sleeps could be called",
    "hold_s": "nothing that sleeps could be called",
    "hold_bytes_max": "nothing that sleeps could be called with a body",
    "body_max": "nothing could be called with a body",
    "header_timeout_s": "no client would be heard out",
    "body_timeout_s": "no client would be heard out",
    "idle_timeout_s": "no connection would stay open",
    "owner_silent_s": "what programs elsewhere run would end at once",
    "blobs_max_gib": "nothing could be deployed",
    "results_max_gib": "nothing could be queued",
    "queued_calls_max": "nothing could be queued",
    "variants_max": "no class that has parameters could be called",
    "volume_bytes_max": "no volume could hold anything",
    "volume_files_max": "no volume could hold anything",
    "sandbox_volume_bytes_max": "no sandbox could write to a volume",
    "versions_kept": "not even what is deployed would be in the history",
}
"""Settings that leave a server of no use when they are 0, and what would come of it."""

_PLAIN = tuple(name for name in Settings.__struct_fields__ if name not in ("home", "policy", "sources"))
_LISTS = ("allowed_hosts", "allowed_origins")
_POLICY = Policy.__struct_fields__
NAMES = (*_PLAIN, *_POLICY)
"""What `--set`, SWELL_… and swell.toml can set, beside the home."""


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Settings:
    """Resolve all settings; `flags` that are None count as not given.

    Policies may be given by their own name or in a table `policy`. Raises SwellError for an unknown name and for
    a value that does not fit, naming where it stands.
    """
    env = os.environ if environ is None else environ
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for origin, values in _files(cwd):
        _take(chosen, values, origin)
        sources |= dict.fromkeys({*values, *values.get("policy", {})}, f"file:{origin}")
    variables = {name: env[f"SWELL_{name.upper()}"] for name in ("home", *NAMES) if f"SWELL_{name.upper()}" in env}
    _take(chosen, variables, "the environment")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    _keep_hidden(given)
    _take(chosen, given, "--set")
    sources |= dict.fromkeys(variables, "environment") | dict.fromkeys(given, "flag")
    chosen["sources"] = {name: source for name, source in sources.items() if name != "policy"}
    home = chosen.pop("home", None)
    try:
        chosen["home"] = str(Path(home).expanduser().absolute() if home else default_home())
    except (RuntimeError, FileNotFoundError):
        # A user without one (a container's, say), `~name` of somebody who is not there, or no directory to begin at.
        what = f"{home!r} leads nowhere" if home else "there is no home directory to have it in"
        raise SwellError("bad_setting", f"No state directory: {what}. Set SWELL_HOME (or --home) to a path.") from None
    chosen["policy"] = {name: chosen.pop(name) for name in _POLICY if name in chosen}
    for name in _LISTS:
        if isinstance(chosen.get(name), str):
            chosen[name] = [word.strip() for word in chosen[name].split(",") if word.strip()]
    try:
        settings = msgspec.convert(chosen, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _unfit(_misfit(str(error), chosen)) from None
    _check(settings)
    return settings


def assignments(words: Sequence[str]) -> dict[str, str]:
    """The flags that `--set name=value` words stand for."""
    flags = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise SwellError("bad_setting", f"--set takes name=value, not {word!r}.")
        flags[name.strip().removeprefix("policy.")] = value.strip()
    return flags


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Variables that are nothing here, and look like one that is: a sentence for each."""
    known = ("home", *OTHER_VARIABLES, *NAMES)
    said = []
    for variable in sorted(environ):
        name = variable.removeprefix("SWELL_").lower()
        near = near_names(name, known, most=1)
        if variable.startswith("SWELL_") and name not in known and near:
            said.append(f"{variable} is not read. Did you mean SWELL_{near[0].upper()}?")
    return said


def _check(settings: Settings) -> None:
    """Numbers that no type keeps from being nonsense."""
    for name, port in (("port", settings.port), ("grpc_port", settings.grpc_port or 0)):
        if not 0 <= port <= 65535:
            raise _unfit(f"{name} is {port}; it must be 0 (any free one) to 65535")
    for owner in (settings, settings.policy):
        for name in owner.__struct_fields__:
            value = getattr(owner, name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise _unfit(f"{name} is {value}; it must be a number that is not below 0")
    for name, outcome in _NOTHING_AT_ZERO.items():
        if not getattr(settings, name):
            default = getattr(Settings(home=""), name)
            raise _unfit(f"{name} is 0: {outcome}. Give it a number above 0; without one it is {default}")
    if settings.gateways > GATEWAYS_MAX:
        raise _unfit(f"gateways is {settings.gateways}; there may be {GATEWAYS_MAX} at most")
    if settings.url and not _is_address(settings.url):
        raise _unfit(f"url is {settings.url!r}; it must begin with http:// or https:// and name a host")
    if settings.store and not settings.store.startswith(("postgresql://", "postgres://")):
        raise _unfit("store is neither empty nor an address that begins with postgresql://")
    if settings.gpus not in (GPUS_FOUND, GPUS_NONE):
        try:
            gpu.read(settings.gpus)
        except ValueError as error:
            words = f"gpus is {settings.gpus!r}, which {error}; it may also be {GPUS_FOUND} or {GPUS_NONE}"
            raise _unfit(words) from None
    if settings.policy.template_memory_share > 1:
        raise _unfit("template_memory_share is above 1, which is all of a node's memory")


def _keep_hidden(flags: Mapping[str, Any]) -> None:
    """What flags say everybody on this machine can read."""
    store = str(flags.get("store", ""))
    if shown(store) != store:
        words = (
            "The store's password is no flag, which everybody here could read: set SWELL_STORE, or store in swell.toml."
        )
        raise SwellError("bad_setting", words)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Asking for the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_MISFIT = re.compile(r"Expected `(\w+)(?: \| null)?`.*at `\$\.(?:policy\.)?(\w+)`")
_WORDS = {"bool": "true or false (1 or 0)", "int": "a whole number", "float": "a number", "array": "a list of names"}


def _misfit(told: str, chosen: Mapping[str, Any]) -> str:
    """What a setting is and what it must be, out of a validation error's words."""
    found = _MISFIT.match(told)
    if found is None:
        return told
    kind, name = found.groups()
    value = {**chosen, **chosen["policy"]}.get(name)
    return f"{name} is {value!r}; it must be {_WORDS.get(kind, kind)}"


def _unfit(why: str) -> SwellError:
    return SwellError("bad_setting", f"A setting cannot be used: {why}.")


def _files(cwd: Path | None) -> list[tuple[str, dict[str, Any]]]:
    """[tool.swell] first, swell.toml over it; none where the working directory is not there any more."""
    found = []
    try:
        folder = cwd or Path.cwd()
    except FileNotFoundError:
        return []
    for name, tables in (("pyproject.toml", ("tool", "swell")), ("swell.toml", ())):
        path = folder / name
        if not path.is_file():
            continue
        try:
            values: Any = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SwellError("bad_setting", f"{path} cannot be read as TOML: {error}.") from None
        for table in tables:
            values = values.get(table, {}) if isinstance(values, dict) else {}
        if isinstance(values, dict):
            found.append((str(path), values))
    return found


def _take(chosen: dict[str, Any], values: Mapping[str, Any], origin: str) -> None:
    """Put values over those chosen so far. A table `policy` is the same as its entries."""
    policy = values.get("policy", {})
    if not isinstance(policy, Mapping):
        raise SwellError("bad_setting", f"{origin}: policy is a table of settings, not {policy!r}.")
    for name, value in {**{n: v for n, v in values.items() if n != "policy"}, **policy}.items():
        if name not in NAMES and name != "home":
            hint = did_you_mean(name, NAMES)
            raise SwellError("bad_setting", f"{origin}: there is no setting called {name!r}.{hint}")
        chosen[name] = value
