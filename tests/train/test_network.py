"""A network and its options, before a run begins."""

from __future__ import annotations

import pytest
import torch

from tests.train.pictures import striped_shards
from train.run import main
from train.trained import open_run

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--model vit_b_32 --size 100", "does not take images of 100 pixels, which --size"),
        ("--model vit_b_32 --size 64 --eval-size 96", "of 96 pixels, which --eval-size asks for"),
        ("--model alexnet --size 64 --start-size 32", "of 32 pixels, which --start-size asks"),
        ("--size 32 --batch-size 1", "batches of one image of 32 pixels: its BatchNorm"),
    ],
)
def test_a_model_that_does_not_take_the_images_leaves_no_folder(tmp_path, capsys, flags, sentence):
    data = striped_shards(tmp_path / "shards")
    given = {"--model": "resnet18", "--batch-size": "8"}
    words = flags.split()
    given |= dict(zip(words[::2], words[1::2], strict=True))

    status = main(
        [
            *("--data", str(data), "--runs", str(tmp_path / "runs"), "--device", "cpu"),
            *("--init", "scratch", "--threads", "1", "--no-tensorboard", "--no-report"),
            *(word for pair in given.items() for word in pair),
        ]
    )

    said = capsys.readouterr().err
    assert status == 1
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_a_vision_transformer_trains_at_another_size(tmp_path, capsys):
    pytest.importorskip("timm")
    data = striped_shards(tmp_path / "shards")

    status = main(
        [
            *("--data", str(data), "--runs", str(tmp_path / "runs"), "--device", "cpu"),
            *("--init", "scratch", "--threads", "1", "--no-tensorboard", "--no-report"),
            *("--model", "timm:vit_tiny_patch16_224", "--size", "32", "--batch-size", "8"),
            *("--epochs", "1", "--name", "a"),
        ]
    )

    assert status == 0, capsys.readouterr().err
    trained = open_run(tmp_path / "runs" / "a", torch.device("cpu"))
    assert trained.model(torch.zeros(1, 3, 32, 32)).shape == (1, len(trained.classes))


def test_a_resume_keeps_the_normalisation_that_a_lost_file_said(tmp_path, capsys):
    data = striped_shards(tmp_path / "shards")
    begin = [
        *("--data", str(data), "--runs", str(tmp_path / "runs"), "--device", "cpu"),
        *("--threads", "1", "--no-tensorboard", "--no-report", "--model", "shufflenet_v2_x0_5"),
        *("--size", "32", "--batch-size", "8", "--epochs", "1"),
    ]
    assert main([*begin, "--name", "a", "--init", "scratch", "--normalise", "half"]) == 0
    best = tmp_path / "best.pt"
    (tmp_path / "runs" / "a" / "best.pt").rename(best)
    assert main([*begin, "--name", "b", "--init", str(best)]) == 0
    best.unlink()
    resume = ["--resume", "--runs", str(tmp_path / "runs"), "--name", "b", "--epochs", "2"]
    half = "0.5,0.5,0.5/0.5,0.5,0.5"
    capsys.readouterr()

    assert main(resume) == 1
    assert f"was trained on images normalised with {half} (mean/std), " in capsys.readouterr().err
    assert main([*resume, "--normalise", half]) == 0
