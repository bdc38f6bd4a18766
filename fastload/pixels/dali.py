"""A `Renderer` that is a DALI graph: bytes, box, flip -> pixels.

This module alone imports nvidia.dali, when it is first needed.

    region -------+
    box in it ----+--> decode, crop --> antialiased resize --> mirror --> uint8 [N, S, S, 3]
    window in it -+
    flip ---------+
      dali             mixed   gpu      gpu                    gpu        on the GPU
      dali-cpu         cpu (in one)     cpu                    cpu        in memory

The order and the plan decide what is read, so DALI's own readers are not used: they can neither
draw by weight, nor split evenly, nor resume. `region` cuts each file down to what covers its box.
That saves Huffman decoding on the host and bytes on the bus: of photographs 500 pixels wide two
thirds of the bytes remain (docs/dali.md), of larger ones less. If the GPU has a JPEG engine, small
files stay whole: the engine decodes them faster than they are cut.

Each thread that renders has a graph to itself and one batch in it. So no more batches are in flight
than threads render.

Success: `out` holds the pixels when `render` returns.
Failure: one damaged image ends a DALI pipeline for good. The CPU back-end renders the batch of that
    image and names the bad sample. The pipeline is built again (4 ms on the CPU, 1.7 s where there
    is a GPU), and `rebuilds` counts it. If it cannot be built, the CPU back-end does the rest.
Cancel: `close` lets the idle graphs go, and the GPU's memory.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import threading
import time
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fastload.errors import BackendUnavailableError, ImageError, first_line
from fastload.installation import install_command
from fastload.pixels.decode import DeviceMemory, Renderer, cpu_renderer
from fastload.pixels.jpeg import Encoded, read_header
from fastload.pixels.region import region_of
from fastload.runs import run_bounds
from fastload.stages import Stages

_log = logging.getLogger(__name__)

# 2.2 made nvImageCodec the decoder of `fn.decoders.image`; older pixels were never compared.
MINIMUM_VERSION = (2, 2)

# Decoded pixels that one graph may hold at once: a larger batch goes through in parts. 128 slices
# of photographs of 500 x 375 take 80 MB. GRAPHS graphs thus hold a sixteenth of a 12 GB card;
# in NVIDIA/DALI#5087 train and val take 4 GB each, and never give them back.
PART_BYTES = 256 << 20
# Pixels. A JPEG engine decodes a small file faster than Python cuts it: of photographs of 500 x 650
# pixels an H200 takes 17,200 a second whole and 5,900 sliced. One of 12 megapixels takes 5.6 ms
# whole, and a crop needs less than half of it (benchmarks/rows/gpu.jsonl).
WHOLE_BELOW = 1 << 20
GRAPHS = 3  # one batch is read and sliced while another is decoded and a third is finished

# What DALI raises where it cannot import, build or run: it has no exceptions of its own.
DALI_ERRORS = (
    *(RuntimeError, ValueError, TypeError, AttributeError, LookupError),
    *(MemoryError, OSError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What a graph renders, and where.

    Attributes:
        size: Side of the output in pixels.
        batch_size: The most images of one batch.
        device: Index of the GPU; None places every operator on the CPU.
        num_threads: Threads of DALI's own pool.
        engine: Whether a JPEG engine decodes what it takes (see `has_jpeg_engine`).
    """

    size: int
    batch_size: int
    device: int | None = None
    num_threads: int = 1
    engine: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or self.batch_size < 1 or self.num_threads < 1:
            raise ValueError(
                "size, batch_size and num_threads must be at least 1, "
                f"got {self.size}, {self.batch_size} and {self.num_threads}"
            )


def why_unavailable(*, device: int | None = None) -> str:
    """Why DALI cannot run here, in half a sentence that says what to install; "" where it can.

    Args:
        device: Index of the GPU for the graph; None asks about the CPU graph.
    """
    if device is not None and torch.version.hip:
        return "DALI needs an NVIDIA GPU, and this PyTorch is built for GPUs of AMD (ROCm)"
    try:
        dali = importlib.import_module("nvidia.dali")
    except (ImportError, OSError) as error:
        return f"DALI is not installed ({error}): {install_command('dali')}"
    version = str(dali.__version__)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        command = install_command("dali")
        return f"DALI {version} is too old, {needed} is the least: {command}"
    return "" if device is None else _why_no_gpu(device)


def _why_no_gpu(device: int) -> str:
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA: install one with it, see pytorch.org"
    if not torch.cuda.is_available():
        if Path("/proc/driver/nvidia/version").exists():
            return "the NVIDIA driver is there, but PyTorch finds no GPU: see nvidia-smi"
        return "there is no NVIDIA GPU, or its driver is not installed"
    if device >= torch.cuda.device_count():
        return f"there is no GPU {device}; PyTorch finds {torch.cuda.device_count()}, from 0 on"
    return ""


def has_jpeg_engine(device: int) -> bool:
    """Whether a GPU has a JPEG engine. The answer comes from decoding an ordinary file with it.

    NVIDIA's nvJPEG documentation names A100, A30, Hopper, Ada, Blackwell and Jetson Thor; but cards
    of one generation differ.
    """
    try:
        nvimgcodec: Any = importlib.import_module("nvidia.nvimgcodec")
        only = nvimgcodec.Backend(nvimgcodec.BackendKind.HW_GPU_ONLY)
        decoder = nvimgcodec.Decoder(device_id=device, max_num_cpu_threads=1, backends=[only])
        return decoder.decode(nvimgcodec.CodeStream(_ordinary_jpeg())) is not None
    except (ImportError, *DALI_ERRORS):
        return False


def _ordinary_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 60)).save(file, "JPEG", subsampling="4:2:0")
    return file.getvalue()


def define_graph(options: GraphOptions) -> Any:  # noqa: ANN401  nvidia.dali is not typed
    """The one graph definition, placed by `options.device`: an nvidia.dali.Pipeline, not yet built.

    Inputs, a batch of each: `images` (uint8 [bytes]), `anchors` and `shapes` (int32 [2]: top, left
    and height, width of the box in the image), `starts` and `ends` (float32 [2]: top, left and
    bottom, right of the window in the box), `flips` (int32, 0 or 1).
    Output: a uint8 square [S, S, 3] for each image.
    """
    dali: Any = importlib.import_module("nvidia.dali")
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")

    # The default executor hands out buffers that stay the caller's; runs wait in its queue without
    # a limit, so depth 1 means only that none is run before its inputs were fed.
    pipeline = dali.Pipeline(
        batch_size=options.batch_size,
        num_threads=options.num_threads,
        device_id=options.device,
        prefetch_queue_depth=1,
        exec_dynamic=True,
    )
    with pipeline:
        images = fn.external_source(name="images", dtype=types.UINT8, ndim=1)
        anchors = fn.external_source(name="anchors", dtype=types.INT32, ndim=1)
        shapes = fn.external_source(name="shapes", dtype=types.INT32, ndim=1)
        starts = fn.external_source(name="starts", dtype=types.FLOAT, ndim=1)
        ends = fn.external_source(name="ends", dtype=types.FLOAT, ndim=1)
        flips = fn.external_source(name="flips", dtype=types.INT32, ndim=0)
        crops = _crops(fn, types, options, images, {"start": anchors, "shape": shapes})
        # A triangle filter that widens with the scale, reads around the window and ends at the
        # edges of the crop, as torchvision's antialiased bilinear: mean absolute difference 0.14
        # (tests/pixels/test_dali.py).
        squares = fn.resize(
            crops,
            size=[options.size] * 2,
            interp_type=types.INTERP_LINEAR,
            antialias=True,
            roi_start=starts,
            roi_end=ends,
        )
        pixels = fn.crop_mirror_normalize(
            squares, mirror=flips, dtype=types.UINT8, output_layout="HWC"
        )
        pipeline.set_outputs(pixels)
    return pipeline


def _crops(
    fn: Any,  # noqa: ANN401
    types: Any,  # noqa: ANN401
    options: GraphOptions,
    images: Any,  # noqa: ANN401
    box: dict[str, Any],
) -> Any:  # noqa: ANN401
    """Decode and crop. Chroma upsampling, DCT and EXIF are set here, for their defaults differ."""
    if options.device is None:
        return fn.decoders.image_slice(
            images,
            device="cpu",
            axis_names="HW",
            output_type=types.RGB,
            adjust_orientation=False,
            use_fast_idct=False,
            **box,
        )
    # Not `image_slice` here: nvJPEG before 13.2 gets the edge of a region wrong with smooth chroma
    # upsampling. So nvImageCodec 0.9 leaves such files to the CPU, and without smooth upsampling it
    # crashes on some cards (NVIDIA/nvImageCodec#55). The files are cut already; a file that
    # cannot be cut is decoded whole.
    decoded = fn.decoders.image(
        images,
        device="mixed",
        output_type=types.RGB,
        adjust_orientation=False,
        jpeg_fancy_upsampling=True,
        use_fast_idct=False,
        affine=False,  # else each rank would tie its threads to the same cores
        device_memory_padding=1 << 22,  # slices are small; the default is 16 MiB for each thread
        host_memory_padding=1 << 21,
        hw_decoder_load=float(options.engine),
    )
    return fn.slice(decoded, axis_names="HW", **box)


@dataclass(frozen=True, slots=True)
class Slices:
    """A batch of sliced JPEGs and the boxes in them, ready for a graph.

    Attributes:
        images: The bytes of each image, uint8.
        boxes: int32 [N, 4]: top, left, height, width in pixels of the sliced image.
        flips: bool [N].
        windows: float64 [N, 4]: top, left, height, width in pixels from the corner of the box.
        decoded_bytes: int64 [N]: bytes of each image once it is decoded and cropped.
    """

    images: list[NDArray[np.uint8]]
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]
    windows: NDArray[np.float64]
    decoded_bytes: NDArray[np.int64]

    def parts(self) -> list[slice]:
        """The batch in runs whose pixels take at most PART_BYTES; a larger image stands alone."""
        bounds = run_bounds(self.decoded_bytes.tolist(), total=PART_BYTES)
        return [slice(first, last) for first, last in pairwise(bounds)]

    def part(self, part: slice) -> Slices:
        """The images of one part."""
        return Slices(
            images=self.images[part],
            boxes=self.boxes[part],
            flips=self.flips[part],
            windows=self.windows[part],
            decoded_bytes=self.decoded_bytes[part],
        )


_EOI = b"\xff\xd9"


def slice_batch(
    encoded: Encoded,
    boxes: NDArray[np.int32],
    flips: NDArray[np.bool_],
    windows: NDArray[np.float64] | None = None,
    *,
    whole_below: int = 0,
) -> Slices | None:
    """Cut each file of a batch down to what covers its box. Pure and thread-safe.

    Args:
        encoded: N images.
        boxes: int32 [N, 4]: top, left, height, width in pixels of the whole image.
        flips: bool [N].
        windows: float64 [N, 4]: see `Renderer.render`; None is all of each box.
        whole_below: Files of fewer pixels stay whole.

    Returns:
        None if an image is not a complete grey or three-channel JPEG. The CPU back-ends know what
        to do with such an image; it would end DALI's pipeline, or, cut off, go unnoticed.
    """
    images, residual = [], np.empty((len(encoded), 4), np.int32)
    decoded_bytes = np.empty(len(encoded), np.int64)
    for index, box in enumerate(boxes.tolist()):
        try:
            table = encoded.table_of(index)
            image, inside = region_of(encoded[index], tuple(box), table, whole_below=whole_below)
            if bytes(image[-2:]) != _EOI:
                image = image[: bytes(image).rfind(_EOI) + 2]  # a film or zeros behind the picture
            header = read_header(image)
        except (ImageError, ValueError):
            return None
        if len(header.sampling) not in (1, 3):
            return None
        images.append(np.frombuffer(image, np.uint8))
        residual[index] = inside
        decoded_bytes[index] = 3 * (header.height * header.width + inside[2] * inside[3])
    if windows is None:
        windows = np.concatenate([np.zeros_like(boxes[:, :2]), boxes[:, 2:]], axis=1)
    return Slices(
        images=images,
        boxes=residual,
        flips=flips,
        windows=windows.astype(np.float64),
        decoded_bytes=decoded_bytes,
    )


class RenderGraph:
    """A built DALI pipeline. Used by one thread at a time.

    Args:
        options: See `GraphOptions`.
        stream: The CUDA stream that the pixels are handed over on; None on the CPU.

    Attributes:
        options: The same options.

    Raises:
        BackendUnavailableError: If DALI cannot run or build the graph here.
    """

    def __init__(self, options: GraphOptions, *, stream: torch.cuda.Stream | None = None) -> None:
        reason = why_unavailable(device=options.device)
        if reason:
            raise BackendUnavailableError(reason)
        self.options = options
        self._stream = stream
        try:
            self._pipeline = define_graph(options)
            self._pipeline.build()
        except DALI_ERRORS as error:
            raise BackendUnavailableError(
                f"DALI cannot build its graph: {first_line(error)}"
            ) from error

    def run(self, slices: Slices) -> Any:  # noqa: ANN401
        """Render a batch; on a GPU the pixels are complete in the order of the stream.

        Args:
            slices: At most `batch_size` images.

        Returns:
            A DALI tensor [N, S, S, 3] that speaks DLPack.

        Raises:
            RuntimeError: Or another of DALI_ERRORS, if an image cannot be decoded. The graph cannot
                be used again.
        """
        anchors, shapes = np.split(slices.boxes, 2, axis=1)
        starts, sides = np.split(slices.windows, 2, axis=1)
        self._pipeline.feed_input("images", slices.images)
        self._pipeline.feed_input("anchors", np.ascontiguousarray(anchors))
        self._pipeline.feed_input("shapes", np.ascontiguousarray(shapes))
        self._pipeline.feed_input("starts", starts.astype(np.float32))
        self._pipeline.feed_input("ends", (starts + sides).astype(np.float32))
        self._pipeline.feed_input("flips", slices.flips.astype(np.int32))
        self._pipeline.schedule_run()
        (batch,) = self._pipeline.share_outputs(cuda_stream=self._stream)
        self._pipeline.release_outputs()
        return batch.as_tensor()


class DaliRenderer:
    """The back-ends `dali-cpu` and, with a `memory`, `dali`. Thread-safe.

    Args:
        num_threads: Of DALI's pool in each graph.
        memory: Where `out` comes from; None renders on the CPU into NumPy arrays.
        fallback: Renders the batches that DALI cannot; None is the fastest CPU back-end.

    Attributes:
        rebuilds: How often an image ended a pipeline.
        fallbacks: Batches that the fallback rendered, for this or another reason.

    Raises:
        BackendUnavailableError: If DALI is missing, too old, or cannot build its graph.
    """

    def __init__(
        self,
        *,
        num_threads: int = 1,
        memory: DeviceMemory | None = None,
        fallback: Renderer | None = None,
    ) -> None:
        self.name = "dali" if memory else "dali-cpu"
        self.rebuilds = self.fallbacks = 0
        self._memory = memory
        self._fallback = fallback or cpu_renderer()
        self._lock = threading.Lock()
        self._options = GraphOptions(
            size=224,
            batch_size=1,
            device=memory.device.index if memory else None,
            num_threads=num_threads,
            engine=memory is not None and has_jpeg_engine(memory.device.index),
        )
        self._idle = [self._build()]
        self._usable = True

    def render(
        self,
        encoded: Encoded,
        boxes: NDArray[np.int32],
        flips: NDArray[np.bool_],
        out: Any,  # noqa: ANN401
        spent: Stages | None = None,
        windows: NDArray[np.float64] | None = None,
    ) -> dict[int, str]:
        """See `Renderer.render`; with a `memory`, `out` is a CUDA tensor of that memory."""
        began = time.perf_counter()
        whole_below = WHOLE_BELOW if self._options.engine else 0
        slices = slice_batch(encoded, boxes, flips, windows, whole_below=whole_below)
        rendered = slices is not None and slices.images and self._usable and self._run(slices, out)
        if spent is not None:
            spent.decode += time.perf_counter() - began
        if rendered:
            return {}
        self._count_fallback()
        if self._memory is None:
            return self._fallback.render(encoded, boxes, flips, out, spent, windows)
        pixels = np.empty(tuple(out.shape), np.uint8)
        failures = self._fallback.render(encoded, boxes, flips, pixels, spent, windows)
        self._memory.copy_from_cpu(pixels, out)
        return failures

    def close(self) -> None:
        """Let the idle graphs go and give the GPU its memory back; `render` builds new graphs."""
        with self._lock:
            self._idle.clear()
        if self._memory is not None:
            importlib.import_module("nvidia.dali.backend").ReleaseUnusedMemory()

    def _count_fallback(self) -> None:
        with self._lock:
            self.fallbacks += 1
            first = self.fallbacks == 1
        if first and self._usable:
            _log.warning(
                "%s: an image is damaged or no ordinary JPEG, so %s renders its batch; "
                "this is said once, DaliRenderer.fallbacks counts such batches",
                self.name,
                self._fallback.name,
            )

    def _run(self, slices: Slices, out: Any) -> bool:  # noqa: ANN401
        """Whether a graph rendered all images."""
        try:
            graph = self._take(len(slices.images), out.shape[1])
        except BackendUnavailableError as error:
            self._usable = False
            warnings.warn(
                f"{self.name} can run no more ({error}): {self._fallback.name} does the rest",
                RuntimeWarning,
                stacklevel=3,
            )
            return False
        for part in slices.parts():
            try:
                pixels = graph.run(slices.part(part))
            except DALI_ERRORS:
                with self._lock:
                    self.rebuilds += 1
                return False  # the graph is dropped, and another built when it is needed
            self._write(pixels, out[part])
        with self._lock:
            if graph.options is self._options:
                self._idle.append(graph)
        return True

    def _write(self, pixels: Any, out: Any) -> None:  # noqa: ANN401
        if self._memory is None:
            np.copyto(out, np.from_dlpack(pixels))
        else:
            self._memory.copy(pixels, out)

    def _take(self, count: int, size: int) -> RenderGraph:
        """An idle graph that is large enough, else a new one."""
        with self._lock:
            if size != self._options.size or count > self._options.batch_size:
                batch_size = max(count, self._options.batch_size)
                self._options = replace(self._options, size=size, batch_size=batch_size)
                self._idle.clear()
            if self._idle:
                return self._idle.pop()
        return self._build()

    def _build(self) -> RenderGraph:
        return RenderGraph(self._options, stream=self._memory.stream if self._memory else None)
