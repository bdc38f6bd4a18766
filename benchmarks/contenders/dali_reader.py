"""DALI's own webdataset reader with `decoders.image_random_crop`, all on the CPU, or mixed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.dlpack import from_dlpack

from benchmarks.contenders.contract import Batch, Epochs, Work, list_images, write_tars
from benchmarks.contenders.web_dataset import SHARDS

fn: Any = importlib.import_module("nvidia.dali.fn")
types: Any = importlib.import_module("nvidia.dali.types")
dali: Any = importlib.import_module("nvidia.dali")


def prepare(images: Path, out: Path, _work: Work) -> None:
    """Tars of the files' own bytes, and DALI's index of each."""
    for tar in write_tars(images, out, shards=SHARDS):
        command = [str(Path(sys.executable).with_name("wds2idx")), str(tar)]
        subprocess.run([*command, str(tar.with_suffix(".idx"))], check=True, capture_output=True)
    (out / "count").write_text(str(len(list_images(images))), encoding="ascii")


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "cpu", or "mixed" to decode and resize on the GPU."""
    device = "mixed" if work.option == "mixed" else "cpu"
    tars = sorted(data.glob("*.tar"))

    @dali.pipeline_def(  # type: ignore[untyped-decorator]  # DALI is known at run time only
        batch_size=work.batch_size,
        num_threads=work.cores,
        device_id=0 if device == "mixed" else None,
        seed=work.seed,
        prefetch_queue_depth=2,
    )
    def graph() -> Any:
        jpegs, labels = fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=["jpg", "cls"],
            random_shuffle=True,
            initial_fill=1000,
            missing_component_behavior="error",
            name="reader",
        )
        pixels = fn.decoders.image_random_crop(
            jpegs,
            device=device,
            output_type=types.RGB,
            random_area=[0.08, 1.0],
            random_aspect_ratio=[3 / 4, 4 / 3],
        )
        pixels = fn.resize(
            pixels, size=[work.size, work.size], interp_type=types.INTERP_LINEAR, antialias=True
        )
        return fn.flip(pixels, horizontal=fn.random.coin_flip(probability=0.5)), labels

    pipeline = graph()
    pipeline.build()
    batches = int((data / "count").read_text(encoding="ascii")) // work.batch_size

    def epoch(_number: int) -> Iterator[Batch]:
        for _ in range(max(1, batches)):
            images, labels = pipeline.run()
            tensor = images.as_tensor()
            # No copy: what DALI's own iterator for PyTorch would copy is not charged to it.
            yield np.asarray(tensor) if device == "cpu" else from_dlpack(tensor), labels

    return epoch
