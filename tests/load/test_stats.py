"""Seconds are counted where they were spent, and the bottleneck is the part that takes them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from fastload.load.stats import DeliveryCounter, Stats
from fastload.pixels import native
from fastload.stages import Stages


def snapshot(counter: DeliveryCounter, **stages: float) -> Stats:
    return counter.snapshot(Stages(**stages), num_threads=2, backend="native")


def test_nothing_counted_gives_zero_not_an_error():
    stats = Stats()
    assert stats.images_per_second == 0
    assert stats.waiting_fraction == 0
    assert stats.bottleneck == "nothing was loaded yet"
    assert "0 images/s" in str(stats)


def test_rates_are_of_the_time_of_the_iteration():
    stats = Stats(images=300, batches=3, seconds=1.5, waiting_seconds=0.3)
    assert stats.images_per_second == 200
    assert stats.waiting_fraction == pytest.approx(0.2)


def test_a_counter_adds_up_and_leaves_out_the_time_between_iterations():
    counter = DeliveryCounter()
    counter.begin(most_ready=3)
    counter.delivered(images=8, waited=0.3, ready=0, bad=1)
    counter.delivered(images=8, waited=0.1, ready=0, bad=0)
    time.sleep(0.5)
    counter.begin(most_ready=3)
    counter.delivered(images=4, waited=0.5, ready=3, bad=0)
    stats = snapshot(counter, decode=2.0)
    assert (stats.images, stats.batches, stats.bad_samples) == (20, 3, 1)
    assert (stats.ready_batches, stats.most_ready) == (1, 3)
    assert (stats.stalls, stats.longest_wait) == (2, 0.3)
    assert stats.seconds < 0.5
    assert stats.waiting_seconds == pytest.approx(0.9)
    assert (stats.stages, stats.num_threads, stats.backend) == (Stages(decode=2), 2, "native")


def test_stages_add_up_and_subtract():
    total = Stages.total([Stages(plan=1, read=2), Stages(read=3, wait=4)])
    assert total == Stages(plan=1, read=5, wait=4)
    assert total - Stages(read=5) == Stages(plan=1, wait=4)


def stats_with(waiting: float, **stages: float) -> Stats:
    return Stats(
        images=1000,
        batches=10,
        seconds=1.0,
        num_threads=1,
        backend="native",
        waiting_seconds=waiting,
        stages=Stages(**stages),
    )


@pytest.mark.parametrize(
    ("waiting", "stages", "named"),
    [
        (0.01, {"decode": 0.4, "idle": 0.5}, "the caller: 1% of the time goes to waiting"),
        (0.6, {"read": 0.7, "decode": 0.2, "wait": 0.6}, "read: a faster disk"),
        (0.6, {"plan": 0.7, "decode": 0.2, "wait": 0.6}, "plan: larger batches"),
        (0.6, {"resize": 0.7, "decode": 0.2, "wait": 0.6}, "resize: more cores"),
        (0.6, {"read": 0.1, "decode": 0.8, "wait": 0.6}, "decode: more"),
        (0.6, {"decode": 0.3, "idle": 0.6, "wait": 0.1, "finish": 0.5}, "finish: colours"),
        (0.6, {"decode": 0.3, "idle": 0.6, "wait": 0.6, "copy": 0.7}, "copy: batches"),
        (0.6, {"decode": 0.3, "idle": 0.6, "wait": 0.6}, "decode: more"),
        (0.6, {"decode": 0.15, "idle": 0.75, "wait": 0.6}, "too few batches: the threads had noth"),
        (0.6, {"decode": 0.3, "idle": 0.6, "wait": 0.1}, "the processor: batches were ready"),
        (0.2, {"decode": 0.2, "idle": 0.8, "wait": 0.2}, "decode: more"),
    ],
)
def test_the_bottleneck_is_the_part_that_takes_the_time(waiting, stages, named):
    stats = stats_with(waiting, **stages)
    assert stats.bottleneck.startswith(named)
    assert stats.bottleneck in str(stats)


@pytest.mark.parametrize(
    ("available", "advice"),
    [(False, "install a C++ compiler"), (True, 'take it with backend="native"')],
)
def test_without_the_core_the_core_is_what_helps(available, advice, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "not built")
    monkeypatch.setattr(native, "is_available", lambda: available)
    monkeypatch.delenv("FASTLOAD_NATIVE", raising=False)
    stats = Stats(
        images=1,
        seconds=1.0,
        waiting_seconds=1.0,
        backend="libjpeg",
        stages=Stages(decode=1, wait=1),
    )
    assert f"the back-end native is several times faster: {advice}" in stats.bottleneck


@pytest.mark.parametrize(
    ("seconds", "waiting", "starting", "said"),
    [
        (0.5, 0.4, 0.1, False),  # three batches: most of the time, and too little of it
        (40.0, 2.5, 2.4, False),  # a slow trainer, and each epoch begins with an empty queue
        (40.0, 2.0, 0.1, False),  # a twentieth
        (40.0, 4.0, 0.1, True),
        (4.0, 2.0, 0.5, True),
    ],
)
def test_waiting_is_worth_a_sentence_where_it_goes_on_and_is_long(seconds, waiting, starting, said):
    stats = Stats(seconds=seconds, waiting_seconds=waiting, starting_seconds=starting)
    assert stats.held_up == said


def test_epochs_that_wait_for_their_first_batch_only_are_told_so():
    stats = replace(stats_with(0.3, decode=0.3, idle=0.7, wait=0.3), starting_seconds=0.28)
    assert stats.bottleneck.startswith("the first batch of each epoch, nearly alone; longer epochs")


def test_a_counter_tells_the_first_batch_of_each_iteration_from_the_others():
    counter = DeliveryCounter()
    for waited in (0.5, 0.25):
        counter.begin(most_ready=3)
        counter.delivered(images=8, waited=waited, ready=0, bad=0)
        counter.delivered(images=8, waited=0.125, ready=0, bad=0)
    stats = snapshot(counter)
    assert (stats.starting_seconds, stats.waiting_seconds) == (0.75, 1.0)


def test_the_table_has_shares_of_the_threads_and_of_the_caller():
    stats = stats_with(0.5, plan=0.02, read=0.08, decode=0.6, resize=0.2, idle=0.1, wait=0.5)
    rows = [line.split() for line in str(stats).splitlines()[1:9]]
    assert [row[0] for row in rows] == [
        *("plan", "read", "decode", "resize", "idle", "wait", "copy", "finish")
    ]
    assert [row[4] for row in rows] == ["2%", "8%", "60%", "20%", "10%", "50%", "0%", "0%"]
    assert [row[3] for row in rows] == ["20", "80", "600", "200", "100", "500", "0", "0"]


def test_a_notebook_shows_what_is_printed():
    stats = Stats(images=10, batches=2, seconds=1.0, backend="native", num_threads=2)
    html = stats._repr_html_()
    for line in str(stats).splitlines():
        for word in line.split("  "):
            assert word.strip() in html
