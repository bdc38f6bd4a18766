"""The table of GPUs: names as people type them, and a source for every figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastload.advise.cards import Card, card_table, find_card

TABLE = card_table()
OURS = Path(__file__).parents[2] / "benchmarks/rows/gpu.jsonl"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("3060", "RTX 3060 12 GB"),
        ("rtx3060", "RTX 3060 12 GB"),
        ("rtx3060 12gb", "RTX 3060 12 GB"),
        ("RTX 3060 12 GiB", "RTX 3060 12 GB"),
        ("GeForce RTX-3060", "RTX 3060 12 GB"),
        ("3060 8gb", "RTX 3060 8 GB"),
        ("3060ti", "RTX 3060 Ti"),
        ("rtx3060 Ti", "RTX 3060 Ti"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", "RTX 3060 Laptop"),
        ("3060m", "RTX 3060 Laptop"),
        ("4060ti16gb", "RTX 4060 Ti 16 GB"),
        ("4070tisuper", "RTX 4070 Ti Super"),
        ("4070 super", "RTX 4070 Super"),
        ("RTX 4090 24G", "RTX 4090"),
        ("GTX 1080 Ti", "GTX 1080 Ti"),
        ("1080ti", "GTX 1080 Ti"),
        ("2080 max-q", "RTX 2080 Max-Q"),
        ("A100", "A100 PCIe 40 GB"),
        ("a100-80g", "A100 PCIe 80 GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40 GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("H100", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM 141 GB"),
        ("Tesla V100-SXM2-32GB", "V100 SXM 32 GB"),
        ("Tesla T4", "T4"),
        ("L4", "L4"),
        ("A10", "A10"),
        ("a6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("quadro rtx 6000", "Quadro RTX 6000"),
        ("NVIDIA TITAN RTX", "Titan RTX"),
    ],
)
def test_a_card_is_found_by_the_name_that_people_type(typed: str, meant: str):
    assert find_card(typed).name == meant


@pytest.mark.parametrize("name", TABLE.cards)
def test_every_card_is_found_by_its_own_name(name: str):
    assert find_card(name).name == name
    assert find_card(f"nvidia {name.replace(' ', '-').lower()}").name == name


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("3061", "did you mean RTX 3060 12 GB or RTX 3060 8 GB?"),
        ("RTX 3070 16gb", "did you mean RTX 3070 "),
        ("rtx 6000", "did you mean RTX 6000 Ada or Quadro RTX 6000?"),
        ("V100 PCIe", "did you mean V100 SXM 16 GB"),
        ("A10G", "did you mean A10?"),
        ("2x RTX 3090", "did you mean RTX 3090 "),
        ("Jetson Orin", "--help lists"),
        ("RX 7900 XTX", "--help lists"),
        ("rtx", "--help lists"),
        ("", "--help lists"),
        ("☃", "--help lists"),
    ],
)
def test_an_unknown_card_is_refused_with_those_that_come_near(typed: str, hint: str):
    with pytest.raises(ValueError, match="gpu must be a card that the table has") as raised:
        find_card(typed)
    assert hint in str(raised.value)


@pytest.mark.parametrize("card", TABLE.cards.values(), ids=lambda card: card.name)
def test_every_figure_has_a_source(card: Card):
    assert card.memory_gib > 0
    assert bool(card.rate) == bool(card.source) == bool(card.layout) == bool(card.batch)
    assert not (card.rate and card.basis)
    assert bool(card.cuda_cores) == bool(card.gb_per_second) == bool(card.specs)
    for key in filter(None, (card.source, card.specs)):
        link = TABLE.sources[key].link
        assert link.startswith("https://") or (OURS.parents[2] / link).exists()
    if card.basis:
        other = TABLE.cards[card.basis]
        assert other.rate
        assert other.cuda_cores
        assert card.cuda_cores


def test_our_own_rate_is_the_row_that_we_measured():
    (card,) = (card for card in TABLE.cards.values() if card.source == "ours")
    rows = map(json.loads, OURS.read_text().splitlines())
    found = [
        row["images_per_second"]
        for row in rows
        if row["benchmark"] == "training-step"
        and (row["model"], row["batch_size"]) == ("resnet50", card.batch)
        and (row["memory_format"], row["amp"]) == (card.layout, card.amp)
    ]
    assert [round(rate) for rate in found] == [card.rate]


@pytest.mark.parametrize(
    ("name", "bf16", "tensor_cores", "engine"),
    [
        ("1080 ti", False, False, False),
        ("1660 ti", False, False, False),
        ("v100", False, True, False),
        ("t4", False, True, False),
        ("a100", True, True, True),
        ("3060", True, True, False),
        ("4090", True, True, True),
        ("5090", True, True, True),
    ],
)
def test_the_architecture_tells_what_a_card_computes_with(name, bf16, tensor_cores, engine):
    card = find_card(name)
    assert (card.computes_bf16, card.has_tensor_cores) == (bf16, tensor_cores)
    assert card.listed_with_engine == engine
