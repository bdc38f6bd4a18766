"""The plan: which file goes into which shard, and the digest of all that decides it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fastload.errors import LayoutError
from fastload.prepare.plan import (
    ShardOptions,
    make_plan,
    plan_shards,
    refuse_missing_classes,
    source_digest,
)
from fastload.prepare.reasons import Rules
from fastload.prepare.source import File, Source

OPTIONS = ShardOptions(rules=Rules(), seed=3, shard_bytes=1_000_000)


def source_of(files: list[File]) -> Source:
    classes = tuple("0123")
    return Source(
        root=Path("data"),
        layout="",
        classes=classes,
        class_names=classes,
        files=tuple(files),
        oddities=(),
    )


FILES = [File(f"train/{n % 4}/{n}", "train", n // 250, 10_000, 0) for n in range(1000)]
SOURCE = source_of(FILES)


def test_classes_are_mixed_in_every_shard():
    planned = plan_shards(SOURCE, seed=0, shard_bytes=1_000_000)
    assert [len(one.files) for one in planned] == [100] * 10
    assert [one.first for one in planned] == list(range(0, 1000, 100))
    assert sorted(file.path for one in planned for file in one.files) == sorted(
        file.path for file in FILES
    )
    for one in planned:
        assert min(Counter(file.label for file in one.files).values()) > 10


def test_the_digest_changes_with_each_file_and_each_option_that_changes_the_shards():
    others = [replace(FILES[0], bytes=1), replace(FILES[0], modified_ns=1)]
    digests = [source_digest(source_of([other, *FILES[1:]]), OPTIONS) for other in others]
    digests.append(source_digest(SOURCE, replace(OPTIONS, seed=4)))
    digests.append(source_digest(SOURCE, replace(OPTIONS, rules=Rules(quality=90))))
    digest = make_plan(SOURCE, OPTIONS).digest
    assert len({digest, *digests}) == 5
    assert source_digest(SOURCE, replace(OPTIONS, allow_missing_classes=True)) == digest


def test_the_recorded_options_are_those_of_the_format():
    names = ["store", "max_side", "quality", "convert", "min_side", "seed", "shard_bytes"]
    assert list(OPTIONS.recorded()) == names


def test_a_missing_class_is_refused_or_allowed():
    plan = make_plan(SOURCE, OPTIONS)
    refuse_missing_classes(plan, FILES)
    some = [file for file in FILES if file.label != 2]
    with pytest.raises(LayoutError, match="1 of the classes have no image in train here: '2';"):
        refuse_missing_classes(plan, some, " here")
    options = replace(OPTIONS, allow_missing_classes=True)
    refuse_missing_classes(make_plan(SOURCE, options), some)
