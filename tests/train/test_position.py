"""Where a run stands."""

from __future__ import annotations

import json

from train.meter import Meter
from train.position import Position


def test_a_position_survives_the_checkpoint():
    position = Position(epoch=2, batch=3, step=9, trained=True, history=[0.1, 0.2], log_rows=4)
    position.meter.loss = 1.25

    state = json.loads(json.dumps(position.state_dict()))  # plain values, as a checkpoint has them

    assert Position.from_state_dict(state) == position


def test_a_position_is_moved_in_place():
    here, there = Position(), Position(epoch=2, history=[0.5], meter=Meter(images=7))

    here.move_to(there)

    assert here == there


def test_the_next_epoch_begins_with_nothing_added_up():
    position = Position(epoch=1, batch=6, step=12, trained=True, meter=Meter(images=48))

    position.finish_epoch(0.5)

    assert position == Position(epoch=2, step=12, history=[0.5])


def test_the_first_epoch_is_the_best_and_an_equal_one_is_not():
    assert Position().is_best(-1.0)
    assert Position(history=[0.25, 0.5]).is_best(0.75)
    assert not Position(history=[0.25, 0.5]).is_best(0.5)
