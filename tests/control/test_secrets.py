"""Are secrets kept, told and taken away as their users are told they are? With a real sealer and a world."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from control.keepers import Clock, user
from swell.control.secrets import SecretKeeper
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped
from swell.model.failures import Failures
from swell.model.secret import VERSIONS_KEPT, Revealed, SecretUse
from swell.model.subscription import HttpEvents, Subscription
from swell.model.workload import App
from swell.model.world import World
from swell.store.keys import ensure_master_key
from swell.store.memory import MemoryStore
from swell.store.sealing import MasterKeySealer

T = TypeVar("T")
DB = SecretUse("default", "db", ("PASSWORD",))
WEB = ("default", "web")


class Desk:
    """A keeper, what is behind it, and what it told runners."""

    def __init__(self, folder: Path) -> None:
        self.store, self.world, self.clock = MemoryStore(), World(), Clock()
        self.key = folder / "master.key"
        self.published: list[Revealed] = []
        self.keeper = self.open()

    def open(self) -> SecretKeeper:
        """As after a restart of control."""
        keeper = SecretKeeper(self.store.secrets, MasterKeySealer(self.key), self.world, self.clock, self.world.apply)
        keeper.publish = self.published.extend
        return keeper

    def deploy(self, *uses: SecretUse, name: str = "a") -> App:
        app = user(name, secrets=uses)
        self.keeper.check(app)
        self.world.apply(AppDeployed(1.0, app))
        return app


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(work: Awaitable[T]) -> T:
    async def awaited() -> T:
        return await work

    return asyncio.run(awaited())


def refused(code: str, work: Callable[[], object]) -> str:
    with pytest.raises(SwellError) as raised:
        work()
    assert raised.value.code == code
    return raised.value.message


def test_a_secret_is_made_told_of_and_given_new_values(desk: Desk) -> None:
    keeper = desk.keeper
    row = run(keeper.create("default", "db", {"PASSWORD": "one-one", "USER": "me"}))
    assert (row.version, row.keys, row.versions, row.apps) == (1, ("PASSWORD", "USER"), (1,), ())
    row = run(keeper.rotate("default", "db", {"PASSWORD": "two-two"}, ["USER"]))
    assert (row.version, row.keys, row.versions) == (2, ("PASSWORD",), (1, 2))
    assert desk.published == []
    (told,) = desk.open().reveal([DB, DB])
    assert told == Revealed("default", "db", 2, (("PASSWORD", "two-two"),), (("PASSWORD", "one-one"), ("USER", "me")))


def test_runners_are_told_of_what_is_used_alone(desk: Desk) -> None:
    run(desk.keeper.create("default", "db", {"PASSWORD": "one-one"}))
    run(desk.keeper.create("default", "other", {"A": "b"}))
    desk.deploy(DB)
    assert [secret.name for secret in desk.keeper.all_used()] == ["db"]
    run(desk.keeper.rotate("default", "db", {"PASSWORD": "two-two"}))
    run(desk.keeper.rotate("default", "other", {"A": "c"}))
    assert [(secret.name, secret.values) for secret in desk.published] == [("db", (("PASSWORD", "two-two"),))]
    assert desk.keeper.rows("default")[0].apps == ("default/a",)
    assert desk.keeper.rows("elsewhere") == []


def test_nothing_stored_or_told_of_has_a_value(desk: Desk) -> None:
    run(desk.keeper.create("default", "db", {"PASSWORD": "hunter2-hunter2"}))
    stored = msgspec.json.encode(desk.store.secrets.versions()) + repr(desk.store.secrets.versions()).encode()
    assert b"hunter2" not in stored + msgspec.json.encode(desk.keeper.rows("default"))


def test_what_cannot_be_is_refused_with_the_way_out(desk: Desk) -> None:
    keeper = desk.keeper
    run(keeper.create("default", "db", {"USER": "me"}))
    assert "swell secret rotate db" in refused("secret_exists", lambda: run(keeper.create("default", "db", {"A": "b"})))
    assert "There are: db." in refused("unknown_secret", lambda: run(keeper.rotate("default", "bd", {"A": "b"})))
    assert "swell secret create bd" in refused("unknown_secret", lambda: desk.deploy(SecretUse("default", "bd")))
    assert "PASSWORD=…" in refused("secret_lacks", lambda: desk.deploy(DB))
    assert "no name" in refused("bad_name", lambda: run(keeper.create("default", "app:x", {"A": "b"})))
    assert "has no NOPE" in refused("invalid", lambda: run(keeper.rotate("default", "db", {}, ["NOPE"])))
    assert "no variable" in refused("invalid", lambda: run(keeper.rotate("default", "db", {}, ["USER"])))
    assert "There are: v1." in refused("unknown_version", lambda: run(keeper.delete("default", "db", 7)))


def test_what_is_used_is_deleted_by_force_alone_and_what_has_it_drains(desk: Desk) -> None:
    keeper = desk.keeper
    run(keeper.create("default", "db", {"PASSWORD": "one-one"}))
    run(keeper.rotate("default", "db", {"PASSWORD": "two-two"}))
    desk.deploy(DB)
    assert "requires PASSWORD" in refused(
        "secret_in_use", lambda: run(keeper.rotate("default", "db", {"X": "y"}, ["PASSWORD"]))
    )
    assert "is used by a:" in refused("secret_in_use", lambda: run(keeper.delete("default", "db")))
    # The newest version is what runs; an older one is nobody's.
    refused("secret_in_use", lambda: run(keeper.delete("default", "db", 2)))
    run(keeper.delete("default", "db", 1))
    run(keeper.delete("default", "db", force=True))
    assert desk.published[-1] == Revealed("default", "db")
    assert desk.open().reveal([DB]) == (Revealed("default", "db"),)
    refused("unknown_secret", lambda: run(keeper.delete("default", "db", force=True)))


def test_what_could_not_start_is_tried_anew_with_new_values(desk: Desk) -> None:
    keeper = desk.keeper
    run(keeper.create("default", "db", {"PASSWORD": "one-one"}))
    run(keeper.create("default", "other", {"A": "b"}))
    pool, elsewhere = (desk.deploy(*uses, name=name).workloads[0].pool for uses, name in (((DB,), "a"), ((), "b")))
    failed = {each: Failures(7, 100.0, "secret_gone", "the secret 'db' is gone") for each in (pool, elsewhere)}
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: keeper.rotate("default", "db", {"PASSWORD": "two-two"}),
        lambda: keeper.delete("default", "db", 2, force=True),
        lambda: keeper.create("default", "db", {"PASSWORD": "three"}),
    ]
    for change in changes:
        desk.world.failures.update(failed)
        run(keeper.rotate("default", "other", {"A": "c"}))
        assert desk.world.failures.keys() == {pool, elsewhere}
        run(change())
        assert desk.world.failures.keys() == {elsewhere}, "of another secret, or of none"
        desk.world.failures.update(failed)
        if change is changes[1]:
            run(keeper.delete("default", "db", force=True))
            assert desk.world.failures.keys() == {pool, elsewhere}, "without any there is nothing to try"


def test_without_its_newest_version_the_one_before_counts_again(desk: Desk) -> None:
    run(desk.keeper.create("default", "db", {"PASSWORD": "one-one"}))
    desk.deploy(DB)
    run(desk.keeper.rotate("default", "db", {"PASSWORD": "two-two"}))
    run(desk.keeper.delete("default", "db", 2, force=True))
    assert [told.values for told in desk.published] == [(("PASSWORD", "two-two"),), (("PASSWORD", "one-one"),)]


def test_the_newest_versions_are_kept(desk: Desk) -> None:
    run(desk.keeper.create("default", "db", {"PASSWORD": "0"}))
    for n in range(1, VERSIONS_KEPT + 3):
        run(desk.keeper.rotate("default", "db", {"PASSWORD": str(n)}))
    kept = tuple(range(4, VERSIONS_KEPT + 4))
    assert desk.keeper.rows("default")[0].versions == desk.open().rows("default")[0].versions == kept


def test_values_that_a_program_brings_along_are_named_by_what_they_are(desk: Desk) -> None:
    keeper = desk.keeper
    name = run(keeper.keep_for_app("default", "a", {"TOKEN": "abc-def", "B": "c"}))
    assert run(keeper.keep_for_app("default", "a", {"B": "c", "TOKEN": "abc-def"})) == name
    others = [("default", "b", "abc-def"), ("prod", "a", "abc-def"), ("default", "a", "abc-deg")]
    names = {run(keeper.keep_for_app(space, app, {"TOKEN": value, "B": "c"})) for space, app, value in others}
    assert len(names | {name}) == 4
    assert keeper.rows("default") == []
    app = desk.deploy(SecretUse("default", name))
    refused("unknown_secret", lambda: run(keeper.delete("default", name, force=True)))
    desk.clock.at += 10
    assert run(keeper.forget_unused({("default", name)}, desk.clock.at)) == 3
    desk.world.apply(AppStopped(1.0, "default", "a"))
    assert run(keeper.forget_unused(set(), desk.clock.at - 11)) == 0
    assert run(keeper.forget_unused(set(), desk.clock.at)) == 1
    assert "deploy it from its files" in refused("unknown_secret", lambda: keeper.check(app))


@pytest.mark.parametrize("other", [False, True], ids=["no key", "another key"])
def test_without_its_master_key_nothing_is_sealed_until_it_is_back_or_what_it_sealed_is_gone(
    desk: Desk, other: bool
) -> None:
    run(desk.keeper.create("default", "db", {"PASSWORD": "one-one"}))
    run(desk.keeper.create("prod", "hidden", {"A": "b"}))
    former = desk.key.read_bytes()
    os.unlink(desk.key)
    if other:
        ensure_master_key(desk.key)
    keeper = desk.keeper = desk.open()
    (told,) = keeper.reveal([DB])
    assert (told.number, told.values) == (0, ())
    assert ("another master key" if other else "there is no ") in told.problem
    assert [row.name for row in keeper.rows("default")] == ["db"]
    refused("secret_sealed", lambda: run(keeper.rotate("default", "db", {"PASSWORD": "two-two"})))
    refused("secret_sealed", lambda: desk.deploy(DB))
    said = refused("secret_sealed", lambda: run(keeper.create("default", "b", {"A": "b"})))
    assert "does not open (db, 1 more)" in said
    assert "`swell secret delete db`" in said
    refused("secret_sealed", lambda: run(keeper.keep_for_app("default", "a", {"A": "b"})))
    assert desk.key.exists() == other, "a key that opens nothing is not made"
    back = desk.key.with_name("back")
    back.write_bytes(former)
    back.chmod(0o600)
    again = SecretKeeper(desk.store.secrets, MasterKeySealer(back), desk.world, desk.clock, desk.world.apply)
    assert again.reveal([DB])[0].values == (("PASSWORD", "one-one"),)
    run(keeper.delete("default", "db"))
    said = refused("secret_sealed", lambda: run(keeper.create("default", "db", {"PASSWORD": "two-two"})))
    assert "(1 of other namespaces)" in said
    assert "hidden" not in said
    run(keeper.delete("prod", "hidden"))
    run(keeper.create("default", "db", {"PASSWORD": "two-two"}))
    assert keeper.reveal([DB])[0].values == (("PASSWORD", "two-two"),)


def test_a_master_key_that_is_put_back_while_control_runs_opens_at_once(desk: Desk) -> None:
    run(desk.keeper.create("default", "db", {"PASSWORD": "one-one"}))
    away = desk.key.rename(desk.key.with_name("away"))
    keeper = desk.open()
    assert keeper.reveal([DB])[0].problem
    away.rename(desk.key)
    run(keeper.create("default", "b", {"A": "b"}))
    assert keeper.reveal([DB])[0].values == (("PASSWORD", "one-one"),)


def test_what_deploys_brought_along_and_a_lost_key_closed_is_brought_anew(desk: Desk) -> None:
    name = run(desk.keeper.keep_for_app("default", "a", {"A": "b"}))
    os.unlink(desk.key)
    keeper = desk.keeper = desk.open()
    refused("secret_sealed", lambda: desk.deploy(SecretUse("default", name)))
    desk.deploy(SecretUse("default", run(keeper.keep_for_app("default", "a", {"A": "b"}))))


def subscribed(use: SecretUse, name: str = "hook") -> App:
    """An app whose function is called for events that are signed with that."""
    app = user(name)
    (workload,) = app.workloads
    made = msgspec.structs.replace(workload, subscription=Subscription(HttpEvents(), use))
    return msgspec.structs.replace(app, workloads=(made,))


def test_the_only_variable_of_a_secret_that_events_use_stays_the_only_one(desk: Desk) -> None:
    keeper = desk.keeper
    run(keeper.create("default", "web", {"OLD": "one-one"}))
    desk.world.apply(AppDeployed(1.0, subscribed(SecretUse("default", "web"))))
    changes: list[tuple[dict[str, str], list[str]]] = [({"NEW": "two-two"}, []), ({}, ["OLD"])]
    for values, unset in changes:
        said = refused("secret_in_use", partial(run, keeper.rotate(*WEB, values, unset)))
        assert "hook uses the only variable of the secret 'web'" in said
    assert run(keeper.rotate(*WEB, {"NEW": "two-two"}, ["OLD"])).keys == ("NEW",)
    assert keeper.value(SecretUse("default", "web")) == "two-two"
    # Who says which one has no need of that.
    desk.world.apply(AppDeployed(1.0, subscribed(SecretUse("default", "web", ("NEW",)))))
    run(keeper.rotate(*WEB, {"MORE": "three"}))
    assert keeper.value(SecretUse("default", "web", ("NEW",))) == "two-two"


def test_what_serves_while_another_version_starts_uses_its_secrets_still(desk: Desk) -> None:
    run(desk.keeper.create("default", "web", {"KEY": "one-one"}))
    before = subscribed(SecretUse("default", "web"))
    after = user("hook", secrets=(DB,))
    app = msgspec.structs.replace(after, previous=before.workloads, revisions=(*after.revisions, *before.revisions))
    desk.world.apply(AppDeployed(1.0, app))
    assert desk.keeper.rows("default")[0].apps == ("default/hook",)
    refused("secret_in_use", lambda: run(desk.keeper.delete(*WEB)))
