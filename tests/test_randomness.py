"""Counter-based draws: uniform, independent, and never a function of what else is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from fastload import randomness


def test_hashes_of_distinct_positions_are_distinct():
    words = randomness.hashes(3, 5, np.arange(200_000))
    assert len(np.unique(words)) == 200_000


def test_golden_hashes_guard_upgrades():
    words = randomness.hashes(1, 2, np.arange(3), stream=randomness.CROP)
    assert words.tolist() == [4049109300416090404, 12255365600858718975, 6949156039380877704]


def test_a_draw_does_not_depend_on_its_neighbours_or_the_number_of_slots():
    many = randomness.uniforms(7, 1, np.arange(100), 8, stream=randomness.FLIP)
    few = randomness.uniforms(7, 1, np.array([42]), 3, stream=randomness.FLIP)
    assert few[0].tolist() == many[42, :3].tolist()


@pytest.mark.parametrize("stream", range(10))
def test_draws_are_uniform(stream):
    values = np.sort(randomness.uniforms(0, 0, np.arange(20_000), 1, stream=stream)[:, 0])
    distance = np.abs(values - (np.arange(20_000) + 0.5) / 20_000).max()
    assert distance < 1.95 / np.sqrt(20_000)  # Kolmogorov-Smirnov at 0.1 %
    assert 0 <= values[0] < 0.001
    assert 0.999 < values[-1] < 1


def test_slots_positions_epochs_seeds_and_streams_are_uncorrelated():
    positions = np.arange(20_000)
    base = randomness.uniforms(0, 0, positions, 2, stream=0)
    others = [
        base[:, 1],
        randomness.uniforms(0, 0, positions + 1, 1, stream=0)[:, 0],
        randomness.uniforms(0, 1, positions, 1, stream=0)[:, 0],
        randomness.uniforms(1, 0, positions, 1, stream=0)[:, 0],
        randomness.uniforms(0, 0, positions, 1, stream=1)[:, 0],
    ]
    for other in others:
        assert abs(np.corrcoef(base[:, 0], other)[0, 1]) < 4 / np.sqrt(20_000)


def test_seed_and_epoch_are_not_summed():
    draws = {
        tuple(randomness.hashes(seed, epoch, np.arange(4)).tolist())
        for seed in range(20)
        for epoch in range(20)
    }
    assert len(draws) == 400


@pytest.mark.parametrize(("seed", "epoch"), [(-1, 0), (0, -1), (2**63, 0)])
def test_a_seed_out_of_range_is_refused(seed, epoch):
    with pytest.raises(ValueError, match="must be in"):
        randomness.hashes(seed, epoch, np.arange(2))
