"""Is a deploy told that its services and others want the same port, whoever's they are?"""

from __future__ import annotations

from swell.control.port_conflicts import shared
from swell.decide.variants import varied
from swell.model.environment import Environment
from swell.model.resources import Needs
from swell.model.variant import Parameter, Value
from swell.model.workload import App, Entry, Method, Revision, Variant, Workload


def app(name: str, *ports: int, namespace: str = "default") -> App:
    """One workload for each port: web1, web2, …"""
    environment = Environment("/usr/bin/python3", "3.11")
    revisions = [
        Revision(environment, "sha256-1", Entry(name, f"f{at}", "function", (Method("f"),)), Needs(ports=(port,)))
        for at, port in enumerate(ports)
    ]
    workloads = [Workload(namespace, name, f"web{at + 1}", each.id) for at, each in enumerate(revisions)]
    return App(namespace, name, tuple(workloads), tuple(revisions))


def test_each_service_that_wants_the_port_is_named_once() -> None:
    one = app("one", 8123, 8124)
    assert shared(one, [one, app("far", 9000)]) == []
    (note,) = shared(one, [app("far", 9000), app("two", 8123, namespace="staging"), one])
    assert note.startswith("one/web1: port 8123 is held by one replica per node, and staging/two/web1 wants it too;")
    (note,) = shared(app("same", 8123, 8123), [])
    assert note.startswith("same/web2: port 8123 is held by one replica per node, and same/web1 wants it too;")
    (note,) = shared(one, [app("two", 8123), app("three", 8123)])
    assert "two/web1, three/web1 want it too" in note


def test_a_class_with_parameters_is_in_its_own_way() -> None:
    entry = Entry("m", "Site", "cls", (Method("page"),), parameters=(Parameter("name", "str"),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-1", entry, Needs(ports=(8123,)))
    site = App("default", "one", (Workload("default", "one", "Site", revision.id),), (revision,))
    (note,) = shared(site, [site])
    assert note.startswith("one/Site: port 8123 is held by one replica per node, and each set of its parameters wants")
    assert "@asgi_app" in note
    # What it has been called with so far is no news, and is not told one by one to others.
    used = varied(site, [("Site", Variant((Value("name", "str", text),))) for text in "ab"])
    assert len(used.workloads) == 3
    (note,) = shared(app("two", 8123), [used])
    assert "and one/Site wants it too;" in note
