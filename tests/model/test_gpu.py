"""Kinds of GPUs: what they stand for, which devices those are, and what is said where there are not enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.gpu import Ask, Gpu, ask, choose, in_words, read, there

MODELS = {
    "NVIDIA A100-SXM4-80GB": 81920,
    "NVIDIA A100-PCIE-40GB": 40960,
    "NVIDIA H100 80GB HBM3": 81559,
    "NVIDIA H100 NVL": 95830,
    "NVIDIA A10": 23028,
    "NVIDIA A10G": 23028,
    "Tesla T4": 15360,
    "NVIDIA GeForce RTX 4090": 24564,
    "NVIDIA L4": 23034,
    "NVIDIA L40S": 46068,
}


@pytest.mark.parametrize(
    ("kind", "models"),
    [
        ("A100", ["NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB"]),
        ("a100-80gb", ["NVIDIA A100-SXM4-80GB"]),
        ("A100-40GB", ["NVIDIA A100-PCIE-40GB"]),
        ("H100", ["NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL"]),
        # By its memory, which its name does not tell, and which is less than it is sold as.
        ("H100-94GB", ["NVIDIA H100 NVL"]),
        ("T4-16GB", ["Tesla T4"]),
        ("A10", ["NVIDIA A10"]),
        ("A10G", ["NVIDIA A10G"]),
        ("L4", ["NVIDIA L4"]),
        ("RTX 4090", ["NVIDIA GeForce RTX 4090"]),
        ("rtx-4090", ["NVIDIA GeForce RTX 4090"]),
        ("4090 RTX", []),
        ("any", list(MODELS)),
        ("H200", []),
    ],
)
def test_a_kind_is_found_by_its_words_in_a_models_name(kind: str, models: list[str]) -> None:
    assert [model for model, mib in MODELS.items() if Gpu("0", model, mib).is_of(kind)] == models


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("L4", Ask("L4", 1)),
        ("A100-80GB:2", Ask("A100-80GB", 2)),
        (" H100 : 8 ", Ask("H100", 8)),
        ("H100!:8", Ask("H100", 8)),
        ("any", Ask("any", 1)),
    ],
)
def test_what_is_asked_for(text: str, asked: Ask) -> None:
    assert ask(text) == asked


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no kind"),
        ("  ", "names no kind"),
        (":2", "names no kind"),
        ("L4:", "asks for '' of L4: not a count"),
        ("L4:0", "'0' of L4: not a count"),
        ("L4:-1", "not a count"),
        ("L4:many", "not a count"),
        ("L4:²", "not a count"),
        ("L4:99999", "not a count"),
        ("L4:2:2", "not a count"),
        ("L4:0.25", "a part of one cannot be had"),
        ("A100:1/2", "a part of one cannot be had"),
        ("A100:mig-1g.10gb", "a part of one cannot be had"),
    ],
)
def test_what_cannot_be_asked_for(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ask(text)


devices = st.lists(st.sampled_from(["L4", "A100", "H100"]), max_size=8).map(
    lambda models: tuple(Gpu(f"GPU-{n}", model) for n, model in enumerate(models))
)
kinds = st.lists(
    st.builds("{}:{}".format, st.sampled_from(["L4", "A100", "any"]), st.integers(1, 4)), min_size=1, max_size=3
)


@given(kinds, devices, st.data())
def test_the_first_kind_of_which_there_are_enough_free_ones_is_chosen(
    asked: list[str], gpus: tuple[Gpu, ...], data: st.DataObject
) -> None:
    free = {each.id: data.draw(st.sampled_from([1, 0, -1])) for each in gpus}

    def enough(text: str) -> bool:
        kind, count = ask(text)
        models = [each.model for each in gpus if free[each.id] > 0 and each.is_of(kind)]
        return any(models.count(model) >= count for model in models)

    found = choose(asked, gpus, free)
    if found is None:
        assert not any(map(enough, asked))
        return
    number, chosen = found
    assert [enough(text) for text in asked].index(True) == number
    kind, count = ask(asked[number])
    assert len(set(chosen)) == len(chosen) == count
    assert len({each.model for each in chosen}) == 1
    assert all(free[each.id] > 0 and each.is_of(kind) for each in chosen)


def test_what_is_there_is_told_by_model() -> None:
    gpus = (Gpu("0", "L4"), Gpu("1", "L4"), Gpu("2", "H100"))
    assert there(gpus, {"0": 1, "1": 0, "2": 1}) == "1 free of 2 L4 and 1 H100"
    assert there((), {}) == "none"
    assert in_words(["H100:8", "any"]) == "8 GPUs of kind H100 or 1 of any kind"


def test_what_an_operator_says_there_is() -> None:
    assert read("H100:2, L4") == (Gpu("0", "H100"), Gpu("1", "H100"), Gpu("2", "L4"))
    for wrong in ("", "H100:2,", "any:3", "H100:two"):
        with pytest.raises(ValueError, match=r"names no|not a count"):
            read(wrong)
