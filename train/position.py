"""Where a run stands: the part of it that a checkpoint moves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from train.meter import Meter


@dataclass(slots=True, kw_only=True)
class Position:
    """Where a run stands; kept in the checkpoint.

    Attributes:
        epoch: The epoch under way, from 0.
        batch: Batches of this epoch that each rank has trained on.
        step: Optimizer steps of the whole run.
        trained: True if the epoch waits for its evaluation only.
        history: The figure that chooses the best epoch, after each epoch; higher is better.
        log_rows: Rows of log.csv that belong to the run so far.
        meter: The sums of the epoch under way.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    trained: bool = False
    history: list[float] = field(default_factory=list)
    log_rows: int = 0
    meter: Meter = field(default_factory=Meter)

    def state_dict(self) -> dict[str, Any]:
        """The position as plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Position:
        """The position that gave `state`."""
        return cls(**{**state, "meter": Meter(**state["meter"])})

    def move_to(self, other: Position) -> None:
        """Take over the values of another position."""
        for item in fields(other):
            setattr(self, item.name, getattr(other, item.name))

    def finish_epoch(self, figure: float) -> None:
        """The epoch was evaluated and has this figure; the next epoch begins."""
        self.history.append(figure)
        self.epoch, self.batch, self.trained, self.meter = self.epoch + 1, 0, False, Meter()

    def is_best(self, figure: float) -> bool:
        """Whether no epoch had a higher figure; the first epoch is the best until then."""
        return not self.history or figure > max(self.history)
