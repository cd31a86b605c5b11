"""Do programs for Modal's SDK (1.6.4) find its signatures: the same arguments, taken alike, with the same defaults?"""

from __future__ import annotations

import inspect

import pytest

import swell
from sdk import deployable
from shown import public_callables

RESOURCES = (
    "secrets=None, gpu=None, serialized=False, network_file_systems={}, volumes={}, cpu=None, memory=None, "
    "ephemeral_disk=None, min_containers=None, max_containers=None, buffer_containers=None, scaledown_window=None, "
    "proxy=None, retries=None, timeout=300, startup_timeout=None"
)
PLACE = (
    "cloud=None, region=None, routing_region=None, nonpreemptible=False, enable_memory_snapshot=False, "
    "block_network=False, restrict_modal_access=False, single_use_containers=False, i6pn=None, include_source=None, "
    "experimental_options=None, max_inputs=None, timeout_max=None"
)
INDEX = "find_links=None, index_url=None, extra_index_url=None, pre=False, extra_options='', force_build=False"
BUILD = "env=None, secrets=None, gpu=None"
WEB = "label=None, custom_domains=None"
SIGNATURES = {
    "App": "name=None, *, tags=None, image=None, secrets=(), volumes={}, include_source=True",
    "App.run": "*, name=None, client=None, detach=False, interactive=False, environment_name=None",
    "App.deploy": "*, name=None, environment_name=None, tag='', client=None, strategy='rolling'",
    "App.lookup": "name, *, client=None, environment_name=None, create_if_missing=False",
    "App.local_entrypoint": "*, name=None",
    "App.include": "other_app, inherit_tags=True",
    "App.function": f"*, image=None, schedule=None, env=None, {RESOURCES}, name=None, is_generator=None, {PLACE}, "
    "trigger=None, nodes=None, min_nodes=None",
    "App.cls": f"*, image=None, env=None, {RESOURCES}, {PLACE}",
    "method": "*, is_generator=None",
    "enter": "*, snap=False",
    "exit": "",
    "concurrent": "*, max_inputs=None, target_inputs=None",
    "fastapi_endpoint": f"*, method='GET', {WEB}, docs=False, requires_proxy_auth=False",
    "asgi_app": f"*, {WEB}, requires_proxy_auth=False",
    "web_server": f"port, *, startup_timeout=5.0, {WEB}, requires_proxy_auth=False",
    "Cron": "cron_string, timezone='UTC', *, missed='once'",
    "HttpEvents": "*, secret=None, header='X-Hub-Signature-256', id_header='', type_header='', replay_s=0.0",
    "Files": "folder, patterns='**/*', *, settle_s=1.0, rescan_s=60.0",
    "Period": "*, years=0, months=0, weeks=0, days=0, hours=0, minutes=0, seconds=0, missed='once'",
    "Retries": "*, max_retries, backoff_coefficient=2.0, initial_delay=1.0, max_delay=60.0",
    "Function.map": "*input_iterators, kwargs={}, order_outputs=True, return_exceptions=False",
    "Function.starmap": "input_iterator, *, kwargs={}, order_outputs=True, return_exceptions=False",
    "Function.for_each": "*input_iterators, kwargs={}, ignore_exceptions=False",
    "Function.from_name": "app_name, name, *, version=None, environment_name=None, client=None",
    "Function.get_web_url": "",
    "Image.debian_slim": "python_version=None, force_build=False",
    "Image.pip_install": f"*packages, {INDEX}, {BUILD}",
    "Image.uv_pip_install": f"*packages, requirements=None, {INDEX}, uv_version=None, {BUILD}",
    "Image.env": "vars",
    "Image.imports": "",
    "Image.add_local_file": "local_path, remote_path, *, copy=False",
    "Image.add_local_dir": "local_path, remote_path, *, copy=False, ignore=()",
    "Image.add_local_python_source": "*modules, copy=False, ignore=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_it_takes_what_it_takes_there(name: str) -> None:
    function = inspect.unwrap(dict(public_callables())[name])
    found = inspect.signature(getattr(function, "__func__", function)).parameters
    taken = [each.replace(annotation=each.empty) for each in found.values() if each.name not in ("self", "cls")]
    assert str(inspect.Signature(taken)) == f"({SIGNATURES[name]})"


def test_what_is_called_can_be_awaited() -> None:
    app = swell.App("a")
    function, model = app.function()(deployable.plain), app.cls()(deployable.Model)()
    for called in (function, model.seen):
        for way in ("remote", "remote_gen", "map", "starmap", "for_each"):
            assert callable(getattr(called, way).aio)
        assert callable(called.local)
