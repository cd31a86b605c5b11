"""Which prices hold, and what is refused rather than charged by its default?"""

from __future__ import annotations

from pathlib import Path

import pytest

from swell.model.errors import SwellError
from swell.model.request import Prices
from swell.wire.prices import read_prices


def test_what_a_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    assert read_prices(path) == Prices()
    assert read_prices(tmp_path / "file" / "prices.toml") == Prices()
    path.write_text("")
    assert read_prices(path) == Prices()
    path.write_text("cpu_core_hour_usd = 2\ntemplate_memory_gib_hour_usd = 0\n")
    assert read_prices(path) == Prices(2.0, Prices().memory_gib_hour_usd, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu_core_hour = 1", "no price called 'cpu_core_hour'. Did you mean cpu_core_hour_usd?"),
        ("[prices]\ncpu_core_hour_usd = 1", "no price called 'prices'."),
        ("memory_gib_hour_usd = -0.01", "memory_gib_hour_usd is -0.01; it must be a number of USD"),
        ("memory_gib_hour_usd = nan", "memory_gib_hour_usd is nan;"),
        ("template_memory_gib_hour_usd = inf", "template_memory_gib_hour_usd is inf;"),
        ("cpu_core_hour_usd = 1" + "0" * 400, "cpu_core_hour_usd is 1000"),
        ("cpu_core_hour_usd = true", "cpu_core_hour_usd is True;"),
        ('cpu_core_hour_usd = "1"', "cpu_core_hour_usd is '1';"),
        ("memory_gib_hour_usd = 1\nmemory_gib_hour_usd = 2", "it is not TOML: Cannot overwrite a value"),
        ("cpu_core_hour_usd", "it is not TOML: "),
        ("\xff", "it is not TOML: "),
    ],
)
def test_what_is_no_price_is_named_with_its_file(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SwellError) as refused:
        read_prices(path)
    assert refused.value.code == "bad_prices"
    assert refused.value.message.startswith(f"{path}: ")
    assert said in refused.value.message
    assert refused.value.message.endswith("Mend it, or remove the file for the defaults.")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SwellError, match=f"{tmp_path}: it cannot be read: Is a directory"):
        read_prices(tmp_path)
