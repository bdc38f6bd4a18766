"""The files that a model can be exported to: each as bytes, and how to ask those bytes.

Nothing is written here, so nothing half-written is left.
"""

from __future__ import annotations

import copy
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastload.errors import FastloadError, first_line
from fastload.installation import install_command
from train.answering import Answering, Facts
from train.trained import Trained

OPSET = 18  # of ONNX: the first that torch's exporter writes without a conversion
LARGEST_ONNX = 2**31 - 1  # bytes of a protocol buffer

# uint8 [N, 3, S, S] -> probabilities and logits, float32 [N, C] each
Ask = Callable[[Tensor], tuple[Tensor, Tensor]]


class ExportError(FastloadError):
    """A model cannot be exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        extension: Of its name.
        packages: What it takes to write and to check it.
        write: The bytes of the file.
        open: How to ask a file, given its bytes; as somebody would who has nothing else.
        note: What is worth saying of it.
    """

    extension: str
    packages: Sequence[str]
    write: Callable[[Trained, Facts], bytes]
    open: Callable[[Trained, bytes], Ask]
    note: str = ""

    def require(self, name: str) -> None:
        """See that the packages are there.

        Raises:
            ExportError: If one is not; says how to install it.
        """
        try:
            for package in self.packages:
                importlib.import_module(package)
        except ImportError as error:
            _pass_on_interrupt(error)
            raise ExportError(
                f"--format {name} needs {', '.join(self.packages)} ({first_line(error)}): "
                f"{install_command('export')}"
            ) from error


def _example(trained: Trained) -> Tensor:
    # Two images, as an exporter may take the number 1 for a constant.
    return torch.zeros(2, 3, trained.size, trained.size, dtype=torch.uint8)


@contextmanager
def explained(trained: Trained, kind: str) -> Iterator[None]:
    """Within: the chatter of exporters and runtimes is silent, and any failure one sentence.

    Raises:
        ExportError: If something failed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except FastloadError:
            raise
        except Exception as error:  # exporters and runtimes fail in any way
            _pass_on_interrupt(error)
            raise ExportError(
                f"{trained.name} cannot be exported to {kind} by torch {torch.__version__} "
                f"({first_line(error)}); try another --format, or another version of torch"
            ) from error


def _pass_on_interrupt(error: BaseException | None) -> None:
    """Raise what Ctrl-C raised, where an extension has made another error of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt
        error = error.__cause__ or error.__context__


def _write_onnx(trained: Trained, facts: Facts) -> bytes:
    with torch.no_grad():
        program = torch.onnx.export(
            Answering(trained).eval(),
            (_example(trained),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        )
        model: Any = program.model_proto  # type: ignore[union-attr]  # None without dynamo
    for key, value in facts.strings().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    model.doc_string = facts.preprocessing
    if model.ByteSize() > LARGEST_ONNX:
        raise ExportError(
            f"{trained.name} is too large for one file of ONNX ({model.ByteSize():,} bytes, at "
            f"most {LARGEST_ONNX:,}); give --format torchscript or safetensors"
        )
    data: bytes = model.SerializeToString()
    return data


def _open_onnx(_trained: Trained, data: bytes) -> Ask:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, logits = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(probabilities), torch.from_numpy(logits)

    return ask


def _write_torchscript(trained: Trained, facts: Facts) -> bytes:
    file = io.BytesIO()
    with torch.no_grad():
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # untyped in torch
            Answering(trained).eval(), _example(trained), check_trace=False
        )
        torch.jit.save(traced, file, _extra_files={"fastload.json": facts.json()})
    return file.getvalue()


def _open_torchscript(_trained: Trained, data: bytes) -> Ask:
    program: Ask = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]  # untyped in torch
    return program


def _write_safetensors(trained: Trained, facts: Facts) -> bytes:
    from safetensors.torch import save

    # Copies, since two names of one tensor are refused.
    tensors = {
        key: value.clone(memory_format=torch.contiguous_format)
        for key, value in trained.model.state_dict().items()
    }
    data: bytes = save(tensors, metadata={"format": "pt", **facts.strings()})
    return data


def _open_safetensors(trained: Trained, data: bytes) -> Ask:
    from safetensors.torch import load

    model, tensors = copy.deepcopy(trained.model), load(data)
    for key, value in model.state_dict().items():
        value.zero_().copy_(tensors[key])
    return Answering(replace(trained, model=model)).eval()


FORMATS = {
    "onnx": Format(
        extension=".onnx",
        packages=("onnx", "onnxscript", "onnxruntime"),
        write=_write_onnx,
        open=_open_onnx,
        note=f"opset {OPSET}",
    ),
    "torchscript": Format(
        extension=".torchscript",
        packages=(),
        write=_write_torchscript,
        open=_open_torchscript,
        note="for torch.jit.load, which torch calls deprecated",
    ),
    "safetensors": Format(
        extension=".safetensors",
        packages=("safetensors",),
        write=_write_safetensors,
        open=_open_safetensors,
        note="weights and facts, no program",
    ),
}
