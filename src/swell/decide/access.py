"""Who may do what? By what a way in asks for, and what its caller showed: the key first, then host and page.

The key keeps other users out, and says over which apps its holder has which power. Host and Origin keep web pages out
that a browser on this machine has open: by DNS rebinding a foreign name can point here, and a form can be posted
anywhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import IntEnum

import msgspec

from swell.decide.lineage import lineage
from swell.model.errors import SwellError
from swell.model.hosts import is_address, is_of_this_machine, is_own_page, name_of
from swell.model.key import ADMIN, ALL, ApiKey, Power, Scope, allows, digest_of, parts
from swell.model.secret import SecretUse
from swell.model.volume import VolumeUse
from swell.model.workload import App


class Key(IntEnum):
    """Which key a caller sent."""

    NONE = 0
    """No bearer token."""
    OTHER = 1
    """One that is not of this server."""
    OURS = 2
    EXPIRED = 3
    REVOKED = 4


class Holder(msgspec.Struct, frozen=True):
    """Who sent a key, as far as that shows it."""

    key: Key
    scopes: tuple[Scope, ...] = ()
    """Of a key that is ours and works."""
    id: str = ""
    """Of an API key; empty for the server's own."""
    ended: str = ""
    """Id of the key that it was made with, where it was that one that expired or was revoked."""
    code: bool = False
    """Code in a replica: of the API, only what is for it."""


NOBODY = Holder(Key.NONE)
STRANGER = Holder(Key.OTHER)
SERVER = Holder(Key.OURS, (ADMIN,))
"""Who can read the server's key file."""
CODE = Holder(Key.OURS, (Scope("deploy"),), code=True)
"""Code in replicas, which has the call key: that opens `/call`, web endpoints, and of the API dicts and queues. It runs
code already, so it may send pickles to any app."""


ANYTHING = Scope("call")
"""To call, or to see, whatever there is."""


class Caller(msgspec.Struct, frozen=True):
    """What a request shows of who sent it."""

    holder: Holder
    host: str
    """As it stands in `Host`; empty where there is not exactly one."""
    origins: tuple[str, ...] = ()
    """The page that a browser sent it for."""

    def is_here(self, allowed_hosts: Collection[str]) -> bool:
        """It came by a name that nobody else can make point here, or by an address, as through a forwarder."""
        name = name_of(self.host)
        return is_of_this_machine(self.host) or name in allowed_hosts or is_address(name)

    def may_be_page(self, posts: bool, allowed_hosts: Collection[str]) -> bool:
        """It may be a foreign page, by a name that was made to point here: a browser says which page posts, but not
        which one reads of where it came from."""
        return not self.is_here(allowed_hosts) and (bool(self.origins) or not posts)


class Need(msgspec.Struct, frozen=True):
    """The scope that an operation of the API asks for, before it is known of which app."""

    power: Power
    namespace: str = ""
    """Name of the request's field that says which; empty: over all of them."""
    app: str = ""
    somewhere: bool = False
    """Over any app at all is enough: what is answered is only what the key may see, or is no app's. Of which app it is
    all the same, as far as the request says that, is named to who has it over none."""
    code: bool = False
    """It is for code in replicas, too."""

    def __str__(self) -> str:
        """As documents have it: "deploy:{namespace}/{name}"."""
        if self.somewhere:
            return f"{self.power}, of any app"
        if not self.namespace:
            return self.power
        return f"{self.power}:{{{self.namespace}}}/{{{self.app}}}"


def holder_of(
    authorization: bytes | None, own: Mapping[bytes, Holder], known: Callable[[str], ApiKey | None], now: float
) -> Holder:
    """Who an Authorization header is of: one of our `own` keys, or an API key that is `known` by its id."""
    if authorization is None or authorization[:7].lower() != b"bearer ":
        return NOBODY
    shown = authorization[7:].strip()
    split = parts(shown)
    if split is not None:
        key = known(split[0])
        if key is None or not hmac.compare_digest(digest_of(split[1]), key.digest):
            return STRANGER
        return standing(key, known, now)
    # All are compared whatever the first says: the time must not tell which one was nearly right.
    matches = [holder for key, holder in own.items() if hmac.compare_digest(shown, key)]
    return matches[0] if matches else STRANGER


def standing(key: ApiKey, known: Callable[[str], ApiKey | None], now: float) -> Holder:
    """What whoever has a key is here: it opens something while it works, and each one does that it comes from."""
    line = lineage(key, known)
    for each in line:
        if not each.works(now):
            ended = each.id if each is not key else ""
            return Holder(Key.EXPIRED if each.revoked_at is None else Key.REVOKED, (), key.id, ended)
    if line[-1].made_by:
        # The one that it comes from is not known here: it may have ended.
        return Holder(Key.REVOKED, (), key.id, line[-1].made_by)
    return Holder(Key.OURS, key.scopes, key.id)


def unfit(holder: Holder) -> SwellError | None:
    """Why a key opens nothing; None: it does."""
    return None if holder.key is Key.OURS else _no_key(holder)


def lacks(holder: Holder, needed: Scope) -> SwellError | None:
    """Why whoever holds a key that works may not do what needs this scope; None: it may."""
    return None if allows(holder.scopes, needed) else _no_scope(holder, str(needed))


def may_ask(holder: Holder, need: Need, names: Mapping[str, str]) -> SwellError | None:
    """Why an operation of the API is refused to whoever holds a key that works; None: it is not.

    `names` are the request's fields. Where none says which app, all of the namespace are meant.
    """
    if holder.code and not need.code:
        words = (
            "The key that code in replicas has opens functions, calls, dicts and queues, and nothing else of the API: "
            "do it from outside, with an API key or the server's own."
        )
        return SwellError("no_scope", words, status=403)
    if need.somewhere:
        found = any(scope.touches(need.power) for scope in holder.scopes)
        namespace, app = names.get(need.namespace) or "NAMESPACE", names.get(need.app) or "APP"
        return None if found else _no_scope(holder, f"{need.power}:{namespace}/{app}")
    if not need.namespace:
        return lacks(holder, Scope(need.power))
    return lacks(holder, Scope(need.power, names[need.namespace], names.get(need.app, "") or ALL))


def may_see(holder: Holder, namespace: str, app: str) -> bool:
    """May it be told what is there of an app?"""
    return allows(holder.scopes, Scope("call", namespace, app))


def whose_calls(holder: Holder, namespace: str, app: str) -> str | None:
    """Of which key it is told the queued calls of an app that it may see (ALL: of a namespace); None: of all. What
    others sent, and what came of it, is for who may deploy there; code and the server's own key may."""
    return None if not holder.id or allows(holder.scopes, Scope("deploy", namespace, app)) else holder.id


def may_manage(holder: Holder, scopes: Collection[Scope]) -> SwellError | None:
    """Why keys with these scopes may not be made, seen or revoked; None: they may. It takes admin over each of them."""
    refused = (lacks(holder, Scope("admin", scope.namespace, scope.app)) for scope in scopes)
    return next((each for each in refused if each is not None), None)


def may_use(holder: Holder, uses: Iterable[SecretUse | VolumeUse], namespace: str) -> SwellError | None:
    """Why an app of this namespace may not be given these secrets and volumes; None: it may. Those of its own it has;
    of another it takes deploy over all that is there."""
    spaces = sorted({use.namespace for use in uses} - {namespace})
    refused = (lacks(holder, Scope("deploy", space)) for space in spaces)
    return next((each for each in refused if each is not None), None)


def check_put_in_place(holder: Holder, app: App) -> None:
    """Refuse (SwellError) an app to a holder who may not give it all the secrets and volumes that it names, whoever
    wrote it."""
    refused = may_use(holder, _named(app), app.namespace)
    if refused is not None:
        raise refused


def _named(app: App) -> Iterator[SecretUse | VolumeUse]:
    """Secrets and volumes of its replicas, builds and triggers."""
    for revision in app.revisions:
        yield from revision.secret_uses
        yield from revision.volumes
    for workload in (*app.workloads, *app.previous):
        if workload.subscription is not None and workload.subscription.secret is not None:
            yield workload.subscription.secret


def may_call(caller: Caller, needed: Scope, *, key_needed: bool) -> SwellError | None:
    """Why a function may not be called; None: it may. Without a key only own pages may, with one of this scope all."""
    if caller.holder.key is Key.OURS:
        return lacks(caller.holder, needed)
    if key_needed or caller.holder.key is not Key.NONE:
        return _no_key(caller.holder)
    for origin in caller.origins:
        if not is_own_page(origin, caller.host):
            words = (
                f"Pages of {origin[:200]!r} may not call functions here. Send the server's key as well, or no Origin."
            )
            return SwellError("bad_origin", words, status=403)
    return None


def may_list(caller: Caller, needed: Scope, *, key_needed: bool, allowed_hosts: Collection[str]) -> SwellError | None:
    """Why it is not told what there is to call; None: it is. As of a call; but who only reads shows no page, so that of
    those without a key the host has to be right."""
    refused = may_call(caller, needed, key_needed=key_needed)
    if refused is not None or caller.holder.key is Key.OURS:
        return refused
    return _foreign_host("What there is to call is", "127.0.0.1 or localhost", caller, allowed_hosts)


def may_visit(caller: Caller, needed: Scope, *, key_needed: bool, allowed_hosts: Collection[str]) -> SwellError | None:
    """Why a web endpoint does not answer; None: it does. Another's key, and pages, are the endpoint's own business."""
    if caller.holder.key is Key.OURS:
        return lacks(caller.holder, needed)
    if key_needed or caller.holder.key not in (Key.NONE, Key.OTHER):
        return _no_key(caller.holder)
    return _foreign_host("Web endpoints are", "127.0.0.1, localhost or {label}.localhost", caller, allowed_hosts)


def may_scrape(caller: Caller, *, key_needed: bool, allowed_hosts: Collection[str]) -> SwellError | None:
    """Why the metrics are not told; None: they are. They name apps: to foreign pages, which a browser lets read what
    comes from a host of their own name, they are not told."""
    if caller.holder.key is Key.OURS:
        return lacks(caller.holder, ANYTHING)
    if key_needed or caller.holder.key is not Key.NONE:
        return _no_key(caller.holder)
    return _foreign_host("Metrics are", "127.0.0.1 or localhost", caller, allowed_hosts)


def _foreign_host(what: str, here: str, caller: Caller, allowed_hosts: Collection[str]) -> SwellError | None:
    if caller.is_here(allowed_hosts):
        return None
    words = (
        f"{what} not served for the host {caller.host[:200]!r}. Use {here}, "
        "start the server with that host among its allowed_hosts, or send its key."
    )
    return SwellError("bad_host", words, status=403)


def may_control(
    caller: Caller, *, allowed_hosts: Collection[str], allowed_origins: Collection[str], any_address: bool
) -> SwellError | None:
    """Why the control API does not answer; None: it does, within the key's scopes. All three have to be right.

    `any_address`: every address of this machine is listened on, so each is a host of it.
    """
    if caller.holder.key is not Key.OURS:
        return _no_key(caller.holder)
    name = name_of(caller.host)
    if not (is_of_this_machine(caller.host) or name in allowed_hosts or (any_address and is_address(name))):
        words = (
            f"This API is not served for the host {caller.host[:200]!r}. "
            "Use 127.0.0.1 or localhost, or start the server with that host among its allowed_hosts."
        )
        return SwellError("bad_host", words, status=403)
    for origin in caller.origins:
        if origin.lower() not in allowed_origins:
            words = (
                f"Pages of {origin[:200]!r} may not use this API: "
                "start the server with that origin among its allowed_origins."
            )
            return SwellError("bad_origin", words, status=403)
    return None


def _no_scope(holder: Holder, needed: str) -> SwellError:
    who = f"The key {holder.id}" if holder.id else "This key"
    words = (
        f"{who} lacks the scope {needed}: it has {', '.join(map(str, holder.scopes))}. Who has the server's own key, "
        f"or one with admin over that, can make one that has it: `swell key create NAME --scope {needed}`."
    )
    return SwellError("no_scope", words, status=403)


def _no_key(holder: Holder) -> SwellError:
    match holder.key:
        case Key.NONE:
            words = (
                "This needs a key: an API key (`swell key create`), or the server's own, which stands in the file "
                "`key` of its state directory. Send it as `Authorization: Bearer KEY`. `swell` takes it from "
                "SWELL_KEY, or reads that file (SWELL_HOME)."
            )
            return SwellError("no_key", words, status=401)
        case Key.EXPIRED:
            return SwellError("key_expired", _ended(holder, "has expired"), status=401)
        case Key.REVOKED:
            return SwellError("key_revoked", _ended(holder, "was revoked"), status=401)
    words = "The key is not this server's. Is SWELL_KEY, SWELL_HOME or SWELL_URL that of another one?"
    return SwellError("bad_key", words, status=401)


def _ended(holder: Holder, how: str) -> str:
    which = f"The key {holder.id} {how}"
    if holder.ended:
        which = f"The key {holder.id} was made with {holder.ended}, which {how}, and ends with it"
    return f"{which}. Have another made: `swell key create`."
