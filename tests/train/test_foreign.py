"""Checkpoints as other trainers write them, most by these trainers themselves."""

from __future__ import annotations

import argparse
import enum
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastload.advise.models import build_model
from train.foreign import find_weights
from train.model import head_names
from train.weights import Weights, WeightsError, described, load_weights, read_weights

SMALL = "shufflenet_v2_x0_5"
Tensors = dict[str, torch.Tensor]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(SMALL, 5)


def tensors(seed: int = 0) -> Tensors:
    return dict(network(seed).state_dict())


def under(prefix: str, weights: Tensors) -> Tensors:
    return {prefix + name: value for name, value in weights.items()}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def taken(path: Path, expected: Tensors) -> str:
    """Start from a file, check that the weights are those expected; returns what is said."""
    model = network(9)
    weights = read_weights(path, model.state_dict())
    loaded = load_weights(model, weights.tensors, head=head_names(SMALL, 5))
    own = model.state_dict()
    assert set(expected) <= set(loaded.kept)
    assert all(torch.equal(own[name], value) for name, value in expected.items())
    return described(path.name, weights, loaded)


def test_the_layout_of_torchvisions_references(tmp_path):
    average = torch.optim.swa_utils.AveragedModel(network(1), use_buffers=True)
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9)
    content = {
        "model": tensors(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "epoch": 7,
        "args": argparse.Namespace(lr=0.1, output_dir=Path(), device=torch.device("cpu")),
    }

    plain = taken(saved(tmp_path / "a.pth", content), tensors())
    content["model_ema"] = average.state_dict()
    averaged = taken(saved(tmp_path / "b.pth", content), tensors(1))

    assert plain.startswith("weights from a.pth, model: kept 338 tensors; objects left unread: ")
    assert "argparse.Namespace" in plain
    assert averaged.startswith("weights from b.pth, model_ema (prefix module.): kept 338 tensors;")
    assert "not in the model, dropped: n_averaged" in averaged


def test_a_checkpoint_of_timms_saver(tmp_path):
    pytest.importorskip("timm")
    from timm.utils.checkpoint_saver import CheckpointSaver
    from timm.utils.model_ema import ModelEmaV2

    model = network(1)
    saver = CheckpointSaver(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters()),
        args=argparse.Namespace(model=SMALL, mean=None, data_dir="photos"),
        model_ema=ModelEmaV2(network(2)),
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=np.float64(0.5))

    said = taken(tmp_path / "last.pth.tar", tensors(2))

    assert "last.pth.tar, state_dict_ema: kept 338 tensors" in said
    assert "argparse.Namespace" in said
    assert "scalar" in said  # of NumPy, in a module whose name depends on its version


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_lightnings_trainer(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Lit(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, net: nn.Module, **options: Any) -> None:  # noqa: ARG002  kept by
            super().__init__()
            self.save_hyperparameters()
            self.net = net
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(5))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            loss: torch.Tensor = self.criterion(self.net(batch[0]), batch[1])
            return loss

    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    photos = torch.utils.data.TensorDataset(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    module = Lit(network(1), out=tmp_path, rates={"lr": 0.1})
    trainer.fit(module, torch.utils.data.DataLoader(photos, batch_size=2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    said = taken(tmp_path / "a.ckpt", dict(module.net.state_dict()))

    assert "a.ckpt, state_dict (prefix net.): kept 338 tensors" in said
    assert "not in the model, dropped: criterion.weight" in said
    assert "objects left unread: " in said


def _without_statistics(weights: Tensors) -> Tensors:
    return {name: value for name, value in weights.items() if "running" not in name}


def _partly_wrapped(weights: Tensors) -> Tensors:
    return {
        name if name.startswith("fc.") else f"backbone.{name}": value
        for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ({"state_dict": {**under("model.", tensors()), "loss_fn.pos_weight": torch.ones(5)}},
         "state_dict (prefix model.)"),
        ({"state_dict": under("net.", tensors())}, "state_dict (prefix net.)"),
        ({"state_dict": under("encoder.", tensors()), "pytorch-lightning_version": "2.2"},
         "state_dict (prefix encoder.)"),
        ({"state_dict": under("my_net.trunk.", tensors())}, "state_dict (prefix my_net.trunk.)"),
        (_partly_wrapped(tensors()), "(prefix backbone.)"),
        ({"model": tensors(), "opt": {"state": [{"mom": torch.ones(3)}]}}, "model"),
        (under("module._orig_mod.", tensors()), "(prefix module.)"),
        ({k.replace("stage2.", "stage2._fsdp_wrapped_module."): v for k, v in tensors().items()},
         ""),
        ({"module": tensors(), "ds_config": {"zero": 1}, "global_steps": 7}, "module"),
        ({"meta": {"epoch": np.int64(3), "hooks": defaultdict(list, a=[1])},
          "state_dict": OrderedDict(under("backbone.", tensors()))},
         "state_dict (prefix backbone.)"),
        ({"net": {"weights": tensors()}, "acc": np.float32(0.9), "epoch": 3}, "net.weights"),
        ({"state_dict": {**under("net.", tensors(1)), **under("ema_net.", tensors())}}, ""),
        ({"state_dict": {**under("net.", tensors(1)), **under("net_ema.module.", tensors())}},
         "state_dict (prefix net_ema.module.)"),
        ({"model": tensors(1), "ema_state_dict": tensors()}, "ema_state_dict"),
        ({"model": tensors(), "ema": {"shadow": _without_statistics(tensors(1))}}, "model"),
        (dict.fromkeys(("net", "best"), tensors()), "net"),
        ({"state_dict": tensors(), "current_model_state": tensors(1)}, "state_dict"),
    ],
)  # fmt: skip
def test_the_set_that_fits_is_found_wherever_it_is(tmp_path, content, source):
    said = taken(saved(tmp_path / "w.pt", content), tensors())

    assert source in said
    assert said.startswith("weights from w.pt")


@pytest.mark.parametrize(
    ("content", "sets"),
    [
        ({"student": tensors(), "teacher": tensors(1)}, "student, teacher"),
        ({**under("encoder_q.", tensors()), **under("encoder_k.", tensors(1))},
         r"\(prefix encoder_q.\), \(prefix encoder_k.\)"),
    ],
)  # fmt: skip
def test_two_sets_that_fit_equally_are_refused(tmp_path, content, sets):
    path = saved(tmp_path / "w.pt", content)

    with pytest.raises(WeightsError, match=f"holds 2 sets of weights that fit: {sets}; save the"):
        read_weights(path, network().state_dict())


def test_what_no_model_knows_is_the_largest_set():
    content = {"a": {"x": torch.ones(2)}, "b": {"y": torch.ones(3)}}

    assert set(find_weights(content, tensors()).tensors) == {"y"}
    assert find_weights([1, "two"], tensors()).tensors == {}


def test_objects_beside_the_weights_run_no_code(tmp_path):
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"open({str(tmp_path / 'made')!r}, 'w')",)

    class Dictionary(dict[str, int]):
        pass

    class Sequence(list[int]):
        pass

    class Attributes(dict[str, int]):
        def __init__(self, **values: int) -> None:
            super().__init__(values)
            self.__dict__.update(values)

    class Outer:
        class Inner:
            pass

        class Colour(enum.Enum):
            RED = 1

    for kind in (Dictionary, Sequence, Attributes, Outer):  # as if of another package
        kind.__module__, kind.__qualname__ = __name__, kind.__name__
        setattr(sys.modules[__name__], kind.__name__, kind)
    Outer.Inner.__qualname__, Outer.Colour.__qualname__ = "Outer.Inner", "Outer.Colour"
    content = {
        "model": tensors(),
        "harm": Harmful(),
        "nested": [Attributes(a=1), Outer.Inner(), Outer.Colour.RED],
        "more": [Dictionary(a=1), Sequence([1, 2]), np.arange(3), Path("x"), 1 + 2j, b"bytes"],
    }

    said = taken(saved(tmp_path / "w.pt", content), tensors())

    assert "objects left unread: builtins.exec, " in said
    assert not (tmp_path / "made").exists()


def test_dicts_that_hold_each_other_many_times_are_looked_at_once():
    content: dict[str, Any] = {"x": torch.ones(1)}
    for _ in range(12):
        content = dict.fromkeys(map(str, range(100)), content)

    assert find_weights(content, tensors()).tensors == {}
    assert find_weights({"deep": {"a": {"b": content["1"]}}}, tensors()).tensors == {}


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_sound_file_that_cannot_be_read_is_not_called_damaged(tmp_path, protocol):
    torch.save(tensors(), tmp_path / "w.pt", pickle_protocol=protocol)

    with pytest.raises(WeightsError, match=r"another pickle protocol than 2; save the state dict"):
        read_weights(tmp_path / "w.pt", tensors())


def test_a_file_of_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(tensors(), tmp_path / "model.safetensors", metadata={"format": "pt"})

    said = taken(tmp_path / "model.safetensors", tensors())

    assert said == "weights from model.safetensors: kept 338 tensors"


def test_a_cut_file_of_safetensors_is_one_sentence(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(tensors(), tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()

    for length in (9, 100, len(whole) - 1):
        (tmp_path / "m.safetensors").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="is a safetensors file that is damaged or incompl"):
            read_weights(tmp_path / "m.safetensors", tensors())


def test_safetensors_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    (tmp_path / "m.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    monkeypatch.setitem(sys.modules, "safetensors", None)

    with pytest.raises(WeightsError, match=r"safetensors is not installed; pip install safeten"):
        read_weights(tmp_path / "m.safetensors", tensors())


def test_what_is_said_of_many_objects_is_short():
    weights = Weights({}, left_out=("a.A", "b.B", "c.C", "d.D"))
    loaded = load_weights(nn.Flatten(), {}, head=frozenset())

    said = described("w.pt", weights, loaded)
    assert said == "weights from w.pt: kept 0 tensors; objects left unread: a.A, b.B, c.C, ..."
