"""Where does a setting come from, which source wins, and what is refused?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.model.policy import Policy
from swell.wire import settings
from swell.wire.paths import local_url

EMPTY = Path("/nonexistent")


def load(**flags: Any) -> settings.Settings:
    return settings.load(flags, {"HOME": "/h", "SWELL_HOME": "/h/s"}, EMPTY)


def test_a_flag_wins_over_the_environment_over_swell_toml_over_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.swell]\nport = 1\nhold_max = 1\nslow_ms = 1\nbody_max = 1\n")
    (tmp_path / "swell.toml").write_text("port = 2\nhold_max = 2\nslow_ms = 2\n")
    environ = {"SWELL_HOME": "/h", "SWELL_PORT": "3", "SWELL_HOLD_MAX": "3"}
    chosen = settings.load({"port": 4, "host": None}, environ, tmp_path)
    assert (chosen.port, chosen.hold_max, chosen.slow_ms, chosen.body_max) == (4, 3, 2, 1)
    assert chosen.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"HOME": "/h"}, "/h/.local/state/swell"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x"}, "/x/swell"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x", "SWELL_HOME": "/s"}, "/s"),
    ],
)
def test_where_nothing_is_said_it_listens_on_this_machine_and_keeps_its_state_where_users_do(
    environ: dict[str, str], home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_STATE_HOME", "SWELL_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    chosen = settings.load({}, os.environ, EMPTY)
    assert (chosen.host, chosen.port, chosen.home) == ("127.0.0.1", 8470, home)
    assert chosen.base_url == "http://127.0.0.1:8470"


def test_a_variable_that_looks_like_a_setting_is_told() -> None:
    told = settings.misspelt({"SWELL_PROT": "1", "SWELL_KYE": "k", "SWELL_PORT": "2", "PROT": "3"})
    near = {"SWELL_KYE": "SWELL_KEY", "SWELL_PROT": "SWELL_PORT"}
    assert told == [f"{odd} is not read. Did you mean {meant}?" for odd, meant in near.items()]
    known = (*settings.NAMES, *settings.OTHER_VARIABLES, "home", "of_my_own_making")
    assert settings.misspelt({f"SWELL_{name.upper()}": "x" for name in known}) == []


def test_a_list_is_words_between_commas_or_a_list_of_toml(tmp_path: Path) -> None:
    assert load().allowed_hosts == ()
    assert load(**settings.assignments(["allowed_hosts=a.example, b.example,"])).allowed_hosts == (
        "a.example",
        "b.example",
    )
    environ = {"SWELL_HOME": "/h", "SWELL_ALLOWED_ORIGINS": "http://a:1"}
    assert settings.load({}, environ, EMPTY).allowed_origins == ("http://a:1",)
    (tmp_path / "swell.toml").write_text('allowed_hosts = ["a.example", "b.example"]\n')
    assert settings.load({}, {"SWELL_HOME": "/h"}, tmp_path).allowed_hosts == ("a.example", "b.example")


def test_policies_merge_by_name_over_all_sources(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.swell.policy]\ntemplates = false\ntemplate_idle_s = 1\n")
    (tmp_path / "swell.toml").write_text("[policy]\ntemplate_idle_s = 2\nstop_grace_s = 2\n")
    chosen = settings.load({"stop_grace_s": "4"}, {"SWELL_HOME": "/h", "SWELL_TEMPLATES": "1"}, tmp_path)
    assert chosen.policy == Policy(templates=True, template_idle_s=2, stop_grace_s=4)


@given(st.builds(Policy, templates=st.booleans(), template_idle_s=st.floats(0, 1e9), stop_grace_s=st.floats(0, 1e9)))
def test_a_policy_can_be_given_word_by_word(policy: Policy) -> None:
    words = [f"{name}={json.dumps(value)}" for name, value in msgspec.to_builtins(policy).items()]
    assert load(**settings.assignments(words)).policy == policy
    assert load(**settings.assignments([f"policy.{word}" for word in words])).policy == policy


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"prot": 1}, "did you mean port"),
        ({"port": 65536}, "65535"),
        ({"port": -1}, "65535"),
        ({"hold_max": -1}, "hold_max"),
        ({"slow_ms": "nan"}, "slow_ms"),
        ({"template_memory_share": 1.5}, "template_memory_share"),
        ({"templates": "perhaps"}, "templates is 'perhaps'; it must be true or false"),
        ({"port": "many"}, "port is 'many'; it must be a whole number"),
        ({"url": "nonsense"}, "url is 'nonsense'; it must begin with http:// or https:// and name a host"),
        ({"url": "far.example:8470"}, "it must begin with http://"),
        ({"url": "ftp://far.example"}, "it must begin with http://"),
        ({"url": "http://"}, "and name a host"),
        ({"url": "http://far.example:port"}, "and name a host"),
        ({"url": "http://[::1"}, "and name a host"),
        *(
            ({name: 0}, f"{name} is 0: no")
            for name in (
                "cpu_overcommit",
                "fork_probe_s",
                "hold_max",
                "hold_bytes_max",
                "body_max",
                "header_timeout_s",
                "body_timeout_s",
                "idle_timeout_s",
            )
        ),
        ({"gpus": "L4:0"}, "gpus is 'l4:0', which asks for '0' of l4: not a count"),
        ({"gpus": ""}, "gpus is '', which names no kind"),
        ({"gpus": "any"}, "it may also be auto or none"),
        ({"hold_max": 0}, "give it a number above 0; without one it is 1000."),
        ({"policy": {"templats": 1}}, "did you mean templates"),
        ({"policy": 3}, "policy is a table"),
    ],
)
def test_what_cannot_be_a_setting_is_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SwellError) as refused:
        load(**flags)
    assert refused.value.code == "bad_setting"
    assert said in refused.value.message.lower()


def test_a_zero_that_only_says_no_more_than_that_is_taken() -> None:
    nothing = dict.fromkeys(("restarts_max", "drain_s", "records_per_pool", "history_days", "cache_days"), 0)
    assert {name: getattr(load(**nothing), name) for name in nothing} == nothing


@pytest.mark.parametrize("text", ["port = ", "port = 1\nport = 2", "\xff"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "swell.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SwellError, match=r"swell\.toml"):
        settings.load({}, {"SWELL_HOME": "/h"}, tmp_path)


def test_a_word_without_a_value_is_refused() -> None:
    with pytest.raises(SwellError, match="name=value"):
        settings.assignments(["templates"])


def test_clients_call_the_server_on_their_home(tmp_path: Path) -> None:
    chosen = settings.load({"home": str(tmp_path), "port": 5}, {}, EMPTY)
    assert chosen.base_url == "http://127.0.0.1:5"
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "start_ticks": 1, "host": "0.0.0.0", "port": 77}))
    assert chosen.base_url == "http://127.0.0.1:77"
    assert msgspec.structs.replace(chosen, url="http://far:1/").base_url == "http://far:1"
    (tmp_path / "lock").write_text("")
    assert chosen.base_url == "http://127.0.0.1:5"


@pytest.mark.parametrize(
    ("host", "url"), [("::", "http://[::1]:1"), ("::1", "http://[::1]:1"), ("localhost", "http://localhost:1")]
)
def test_a_host_becomes_a_url(host: str, url: str) -> None:
    assert local_url(host, 1) == url
