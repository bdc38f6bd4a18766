"""Shards in a real S3 server: the same batches as from a disk, faults, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from fastload.load.augment import Augment
from fastload.load.loader import Loader
from tests.shards import numbered

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return numbered(tmp_path_factory.mktemp("shards"), {"train": 95, "val": 23})


@pytest.fixture(scope="module")
def address(s3, folder):
    return s3.upload(folder, "plain/shards")


def batches(path, **options):
    with Loader(path, batch_size=8, augment=Augment.train(16), **options) as loader:
        return [(images.numpy(), labels.tolist()) for images, labels in loader]


def equal(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) and labels == others
        for (a, labels), (b, others) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("order", ["shuffled", "sequential", "index"])
def test_the_batches_are_those_of_the_folder(s3, folder, address, order):
    remote = batches(address, order=order, storage_options=s3.options())
    assert equal(remote, batches(folder, order=order))
