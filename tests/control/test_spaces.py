"""Do secrets of another namespace come to code only by who may deploy there, whatever puts that code in place?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import msgspec
import pytest

from control.test_variants import an_app as bare_app
from control.test_variants import bundles, deployer, of
from swell.control.deploying import Deployer
from swell.decide.access import Holder, Key
from swell.model.errors import SwellError
from swell.model.key import Scope
from swell.model.secret import SecretUse
from swell.model.traffic import ByHeader, ByTag, Traffic
from swell.model.variant import is_variant
from swell.model.workload import App, Options
from swell.wire.api import NewVariant

OWN = Holder(Key.OURS, (Scope("deploy", "default", "a"),), "k1")
BOTH = Holder(Key.OURS, (*OWN.scopes, Scope("deploy", "prod")), "k2")
FOREIGN, HERE = SecretUse("prod", "db"), SecretUse("default", "db")


def an_app(bundle: str, *secrets: SecretUse) -> App:
    app = bare_app(bundle)
    revision = msgspec.structs.replace(app.revisions[0], secrets=secrets)
    workload = msgspec.structs.replace(app.workloads[0], revision=revision.id)
    return msgspec.structs.replace(app, workloads=(workload,), revisions=(revision,))


def play(scenario: Callable[[Deployer], Coroutine[None, None, None]]) -> None:
    asyncio.run(scenario(deployer()))


@pytest.mark.parametrize(
    "asked",
    [
        Traffic(((2, 90), (1, 10))),
        Traffic(headers=(ByHeader("x-try", "1", 1),)),
        Traffic(tags=(ByTag("old", 1),)),
    ],
)
def test_no_traffic_goes_to_a_version_that_its_holder_may_not_put_in_place(asked: Traffic) -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(an_app("1", FOREIGN), str, holder=BOTH)
        await made.deploy(an_app("2", HERE), str, holder=OWN)
        before = made.world.apps["default/a"]
        with pytest.raises(SwellError, match=r"^The key k1 lacks the scope deploy:prod/\*") as refused:
            await made.traffic("default", "a", asked, str, holder=OWN)
        assert (refused.value.code, refused.value.status) == ("no_scope", 403)
        assert made.world.apps["default/a"] is before
        await made.traffic("default", "a", asked, str, holder=BOTH)
        # To take it away again nothing more is needed.
        await made.traffic("default", "a", Traffic(((2, 100),)), str, holder=OWN)
        assert not any(revision.secrets == (FOREIGN,) for revision in made.world.revisions.values())

    play(scenario)


def test_nor_is_one_promoted() -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(an_app("1", HERE), str, holder=OWN)
        await made.deploy(an_app("2", FOREIGN), str, strategy="blue-green", holder=BOTH)
        with pytest.raises(SwellError, match=r"deploy:prod/\*"):
            await made.promote("default", "a", str, holder=OWN)
        assert made.world.workloads["default/a/Model"].version == 1
        await made.promote("default", "a", str, holder=BOTH)
        assert made.world.workloads["default/a/Model"].version == 2

    play(scenario)


def test_nor_is_the_traffic_all_given_to_one_again() -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(an_app("1", FOREIGN), str, holder=BOTH)
        await made.deploy(an_app("2", HERE), str, strategy="blue-green", holder=OWN)
        before = made.world.apps["default/a"]
        with pytest.raises(SwellError, match=r"^The key k1 lacks the scope deploy:prod/\*"):
            await made.withdraw("default", "a", str, holder=OWN)
        assert made.world.apps["default/a"] is before
        await made.withdraw("default", "a", str, holder=BOTH)
        assert not made.newer("default", "a")
        # What is taken away is nobody's to ask for.
        await made.deploy(an_app("3", HERE), str, holder=OWN)
        await made.deploy(an_app("4", FOREIGN), str, strategy="blue-green", holder=BOTH)
        await made.withdraw("default", "a", str, holder=OWN)
        assert not made.newer("default", "a")

    play(scenario)


async def vary(made: Deployer, *secrets: SecretUse) -> None:
    await made.vary("default", "a", "Model", NewVariant({"name": "x"}, Options(secrets=secrets)))


def has_variant(made: Deployer) -> bool:
    return any(is_variant(workload.name) for workload in made.world.workloads.values())


async def deployed(made: Deployer, holder: Holder) -> None:
    await made.deploy(bare_app("3"), str, holder=holder)


async def recreated(made: Deployer, holder: Holder) -> None:
    await made.deploy(bare_app("3"), str, strategy="recreate", holder=holder)


async def staged(made: Deployer, holder: Holder) -> None:
    await made.deploy(bare_app("3"), str, strategy="blue-green", holder=holder)


async def split(made: Deployer, holder: Holder) -> None:
    await made.traffic("default", "a", Traffic(((2, 50), (1, 50))), str, holder=holder)


async def promoted(made: Deployer, holder: Holder) -> None:
    await made.deploy(bare_app("3"), str, strategy="blue-green", holder=holder)
    await vary(made, FOREIGN)
    await made.promote("default", "a", str, holder=holder)


@pytest.mark.parametrize("put_in_place", [deployed, recreated, staged, split, promoted])
def test_what_others_had_made_with_their_secrets_does_not_come_to_code_of_who_lacks_them(
    put_in_place: Callable[[Deployer, Holder], Coroutine[None, None, None]],
) -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(bare_app("1"), str)
        await made.deploy(bare_app("2"), str)
        await vary(made, FOREIGN)
        await put_in_place(made, BOTH)
        assert of(made).variant.options.secrets == (FOREIGN,)
        await put_in_place(made, OWN)
        assert not has_variant(made)
        assert all(FOREIGN not in revision.secrets for revision in made.world.revisions.values())
        # Of its own namespace it may have all.
        await vary(made, HERE)
        if put_in_place is not promoted:
            await put_in_place(made, OWN)
            assert of(made).variant.options.secrets == (HERE,)

    play(scenario)


def test_what_is_taken_away_leaves_the_rest_as_it_is() -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(bare_app("1"), str)
        await made.deploy(bare_app("2"), str)
        await vary(made, FOREIGN)
        await made.traffic("default", "a", Traffic(((2, 50), (1, 50))), str, holder=BOTH)
        await made.withdraw("default", "a", str, holder=OWN)
        assert bundles(made, of(made)) == ["sha256-2"]

    play(scenario)
