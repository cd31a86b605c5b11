"""What is an app? Functions, classes and local entry points that are deployed together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from swell.model.errors import SwellError
from swell.model.unknown import unknown_app
from swell.sdk import describe, gangs, marks
from swell.sdk.binding import Binding, Known, Named
from swell.sdk.bridge import operation
from swell.sdk.cls import Cls
from swell.sdk.function import Function, LocalCode, is_generator
from swell.sdk.image import Image
from swell.sdk.marks import Given
from swell.sdk.refusal import refuse
from swell.sdk.retries import Retries, retrying
from swell.sdk.schedules import Cron, Period
from swell.sdk.secret import Secret, given_secrets
from swell.sdk.signatures import public
from swell.sdk.subscriptions import Events
from swell.sdk.unavailable import stand_in
from swell.sdk.volume import Volume, mounts

if TYPE_CHECKING:
    from swell.sdk.run import Running

C = TypeVar("C", bound=type[Any])

Folder = str | PurePosixPath


class LocalEntrypoint:
    """A function that `swell run` calls on the user's own machine, with the app running."""

    def __init__(self, name: str, raw: Callable[..., Any]) -> None:
        self.name = name
        self.__swell_raw__ = raw
        functools.update_wrapper(self, raw, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__swell_raw__(*args, **kwargs)


class App:
    """A set of functions and classes that are deployed together.

    `with app.run():` runs it for a while; `app.deploy()` puts it on the server to stay.
    """

    @public
    def __init__(
        self,
        name: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        image: Image | None = None,
        secrets: Sequence[Secret] = (),
        volumes: Mapping[Folder, Volume] = {},
        include_source: bool = True,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise SwellError("bad_argument", f"App({name!r}): the name must be text.")
        self.given = Given("App", {k: v for k, v in locals().items() if k != "self"})
        self.name = name
        if not isinstance(tags, Mapping | None):
            raise SwellError("bad_argument", f"App(tags={tags!r}): give names and values, like {{'team': 'vision'}}.")
        self.tags = dict(tags or {})
        self.image = image
        self.include_source = include_source
        self.secrets = given_secrets(self.given)
        self.volumes = mounts(self.given)
        self.declared: dict[str, describe.Declared] = {}
        """Workload name → what was registered."""
        self._functions: dict[str, Function] = {}
        self._classes: dict[str, Cls] = {}
        self._entrypoints: dict[str, LocalEntrypoint] = {}
        self._names: set[str] = set()
        self.binding = Binding(name, self._names)

    def __repr__(self) -> str:
        return f"swell.App({self.name!r})"

    # -- registering -----------------------------------------------------------------------------

    @public
    def function(
        self,
        *,
        image: Image | None = None,
        schedule: Cron | Period | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | list[str] | None = None,
        serialized: bool = False,
        network_file_systems: Mapping[Folder, Any] = {},
        volumes: Mapping[Folder, Volume] = {},
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: Any = None,
        retries: int | Retries | None = None,
        timeout: int = 300,
        startup_timeout: int | None = None,
        name: str | None = None,
        is_generator: bool | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: Mapping[str, Any] | None = None,
        max_inputs: int | None = None,
        timeout_max: int | None = None,
        trigger: Cron | Period | Events | Cls | None = None,
        nodes: int | None = None,
        min_nodes: int | None = None,
    ) -> Callable[[Callable[..., Any]], Function]:
        """Makes a function run in replicas. `swell.sdk.arguments` says what each argument does."""
        given = Given("App.function", {k: v for k, v in locals().items() if k != "self"})

        def decorate(raw: Callable[..., Any]) -> Function:
            if inspect.isclass(raw) or hasattr(raw, "__swell_raw__") or not inspect.isfunction(raw):
                raise SwellError("bad_decorator", "@app.function() goes on a function; classes take @app.cls().")
            return self._add_function(name or raw.__name__, raw, given)

        return decorate

    @public
    def cls(
        self,
        *,
        image: Image | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | list[str] | None = None,
        serialized: bool = False,
        network_file_systems: Mapping[Folder, Any] = {},
        volumes: Mapping[Folder, Volume] = {},
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: Any = None,
        retries: int | Retries | None = None,
        timeout: int = 300,
        startup_timeout: int | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: Mapping[str, Any] | None = None,
        max_inputs: int | None = None,
        timeout_max: int | None = None,
    ) -> Callable[[C], Cls]:
        """Makes a class whose instances live in replicas; its `@method`s can be called."""
        given = Given("App.cls", {k: v for k, v in locals().items() if k != "self"})

        def decorate(raw: C) -> Cls:
            if not inspect.isclass(raw):
                raise SwellError("bad_decorator", "@app.cls() goes on a class; functions take @app.function().")
            return self._add_class(raw, given)

        return decorate

    @public
    def local_entrypoint(self, *, name: str | None = None) -> Callable[[Callable[..., Any]], LocalEntrypoint]:
        """Makes a function what `swell run file.py` calls here, with its arguments as flags."""

        def decorate(raw: Callable[..., Any]) -> LocalEntrypoint:
            entry = LocalEntrypoint(name or raw.__name__, raw)
            if entry.name in self._entrypoints:
                raise SwellError("name_taken", f"{self!r} has two local entry points called {entry.name!r}.")
            self._entrypoints[entry.name] = entry
            return entry

        return decorate

    @public
    def include(self, /, other_app: App, inherit_tags: bool = True) -> App:
        """Take in everything of another app; returns this one."""
        for name, declared in other_app.declared.items():
            self._register(name, declared)
        self._functions.update(other_app._functions)
        self._classes.update(other_app._classes)
        self._entrypoints.update(other_app._entrypoints)
        other_app.binding.includers.append(self.binding)
        if inherit_tags:
            self.tags = {**other_app.tags, **self.tags}
        return self

    def _add_function(self, name: str, raw: Callable[..., Any], given: Given) -> Function:
        self._register(name, self._declare(name, raw, given))
        chosen = given.values["is_generator"]
        marked = marks.of(raw)
        generator = is_generator(raw) if chosen is None else bool(chosen)
        gang = gangs.declared(given, marked)
        known = Known(generator, retrying(given.values["retries"]), marked.cache is not None, gang is not None)
        local = LocalCode(call=raw, raw=raw, web=marked.web, known=known)
        function = Function(name, self.binding, local)
        self._functions[name] = function
        return function

    def _add_class(self, raw: type[Any], given: Given) -> Cls:
        declared = self._declare(raw.__name__, raw, given)
        self._register(raw.__name__, declared)
        made = Cls(raw.__name__, self.binding, raw, declared.members(), retrying(given.values["retries"]))
        self._classes[raw.__name__] = made
        return made

    def _declare(self, name: str, raw: Callable[..., Any], given: Given) -> describe.Declared:
        image = given.values["image"]
        if image is not None and not isinstance(image, Image):
            raise SwellError("bad_argument", f"{given.callable}(image={image!r}): give a swell.Image.")
        include = given.values["include_source"]
        return describe.Declared(
            name=name,
            raw=raw,
            given=given,
            image=image or self.image,
            include_source=self.include_source if include is None else bool(include),
            secrets=(*self.secrets, *given_secrets(given)),
            volumes={**self.volumes, **mounts(given)},
        )

    def _register(self, name: str, declared: describe.Declared) -> None:
        if name in self.declared and self.declared[name].raw is not declared.raw:
            raise SwellError("name_taken", f"{self!r} has two functions or classes called {name!r}: rename one.")
        self.declared[name] = declared
        self._names.add(name)

    # -- looking ---------------------------------------------------------------------------------

    @property
    def registered_functions(self) -> dict[str, Function]:
        """Functions by name."""
        return dict(self._functions)

    @property
    def registered_classes(self) -> dict[str, Cls]:
        """Classes by name."""
        return dict(self._classes)

    @property
    def registered_entrypoints(self) -> dict[str, LocalEntrypoint]:
        """Local entry points by name."""
        return dict(self._entrypoints)

    @property
    def registered_web_endpoints(self) -> list[str]:
        """Names of functions, and of classes' methods, that are web endpoints."""
        return [
            f"{declared.name}.{name}" if declared.is_class else declared.name
            for declared in self.declared.values()
            for name, (_, marked) in declared.members().items()
            if marked.web is not None
        ]

    # -- running ---------------------------------------------------------------------------------

    @public
    def run(
        self,
        *,
        name: str | None = None,
        client: None = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: str | None = None,
    ) -> Running[App]:
        """`with app.run():` (or `async with`) deploys it under a name of its own and stops it at the end.

        A server is started where none answers, for as long as this program runs. `detach=True` leaves the app there,
        unless the block raises, and lets such a server stay, until `swell down`.
        """
        refuse(Given("App.run", {k: v for k, v in locals().items() if k != "self"}))
        from swell.sdk.run import Running

        return Running(self, name=name, namespace=environment_name, detach=detach)

    @operation
    async def deploy(
        self,
        *,
        name: str | None = None,
        environment_name: str | None = None,
        tag: str = "",
        client: None = None,
        strategy: str = "rolling",
    ) -> App:
        """Put it on the server, to stay. All of it is there afterwards, or nothing has changed."""
        refuse(Given("App.deploy", {k: v for k, v in locals().items() if k != "self"}))
        from swell.sdk import run

        chosen = run.strategy(strategy)
        await run.deploy(
            self, name=name, namespace=environment_name, progress=run.output.progress, tag=tag, strategy=chosen
        )
        return self

    @staticmethod
    @public
    def lookup(
        name: str, *, client: None = None, environment_name: str | None = None, create_if_missing: bool = False
    ) -> App:
        """A deployed app by its name. Find its functions with `Function.from_name`."""
        refuse(Given("App.lookup", locals().copy()))
        at = Named(name, environment_name).resolve(name)
        deployed = [(row.namespace, row.name) for row in at.client.apps()]
        if (at.namespace, at.app) not in deployed:
            raise unknown_app(name, at.namespace, deployed)
        app = App(name)
        app.binding.deployed = at
        return app

    @operation
    async def stop(self, *, client: None = None) -> None:
        """Take the app off the server; its replicas finish what they have."""
        refuse(Given("App.stop", {"client": client}))
        at = self.binding.resolve(repr(self))
        await at.client.stop.start(at.app, at.namespace)
        self.binding.deployed = None


stand_in(
    App,
    {
        "asgi": "It is @app.function() with @swell.asgi_app() below it now.",
        "get_dashboard_url": "There is no dashboard yet: `swell ps` and `swell app list` show what runs.",
        "get_tags": "Read the attribute `tags`.",
        "info": "An app's state is read with `swell app list`.",
        "is_inside": "It is swell.is_local() now (the other way round), and Image.imports() around an image's imports.",
        "logs": "Logs are read with `swell logs APP`.",
        "sandboxes": "Sandboxes are not available yet.",
        "serve": "It is `swell serve FILE` here, or `with app.run():` in a program.",
        "server": "App.server() is not available yet: use @app.function() with @web_server(port).",
        "set_tags": "Tags of a running app cannot be changed yet: give them to App(tags=…) and deploy.",
        "spawn_sandbox": "Sandboxes are not available yet: deploy the code as a function.",
        "stats": "Figures are read with `swell ps`.",
        "webhook": "It is @app.function() with @swell.fastapi_endpoint() below it now.",
        "wsgi": "It is @app.function() with @swell.wsgi_app() below it now.",
    },
)
