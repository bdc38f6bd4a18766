"""The same contract as a DALI graph: bytes, box, flip -> pixels. Alone imports nvidia.dali, lazily.

    sliced bytes -+
    box in them --+--> decode, crop --> antialiased resize --> mirror, normalise --> [N, S, S, 3]
    flip ---------+
      dali             mixed   gpu      gpu                    gpu                   on the GPU
      dali-cpu         cpu (in one)     cpu                    cpu                   in memory

What to read was decided before (order, plan), so DALI's own readers are not used: they can neither
draw by weight, nor split evenly, nor resume. `slice_jpeg` has cut each file down to the restart
intervals that cover its box, so that the host's Huffman decoding and the bus carry less than half.

Success: batches come back in the order they were submitted. Failure: one damaged image ends a DALI
pipeline for good; its batch comes back as None, to be rendered by the CPU back-end, which knows the
bad sample; the pipeline is built again (4 ms on the CPU), the later batches in flight are submitted
again, and `rebuilds` counts it. Cancel: `close` drops the pipeline and what is in flight.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastload.decode import Renderer, cpu_renderer
from fastload.errors import BackendUnavailableError, ImageError
from fastload.jpeg import Encoded, read_header, slice_jpeg

if TYPE_CHECKING:
    import torch

INSTALL = "pip install 'fastload[dali]'"

# 2.2 made nvImageCodec the decoder of `fn.decoders.image`; older pixels were never compared.
MINIMUM_VERSION = (2, 2)

# Decoded pixels that may be on the GPU at once, in all batches in flight: a twelfth of a 12 GB
# card. In NVIDIA/DALI#5087 train and val take 4 GB each, and never give them back.
DEVICE_BYTES = 1 << 30

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
        num_threads: Of DALI's own pool.
        dtype: "uint8", "float16" or "float32"; a float type is normalised.
        mean: Of each channel, for pixels in [0, 1]; only where `dtype` is a float type.
        std: Likewise.
    """

    size: int
    batch_size: int
    device: int | None = None
    num_threads: int = 1
    dtype: str = "uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.size < 1 or self.batch_size < 1 or self.num_threads < 1:
            raise ValueError(
                "size, batch_size and num_threads must be at least 1, "
                f"got {self.size}, {self.batch_size} and {self.num_threads}"
            )
        if self.dtype not in ("uint8", "float16", "float32"):
            raise ValueError(f"dtype must be uint8, float16 or float32, got {self.dtype!r}")


def why_unavailable(*, device: int | None = None) -> str:
    """Why DALI cannot run here, in half a sentence that says what to install; "" where it can.

    Args:
        device: Index of the GPU that it shall run on; None asks about the CPU graph.
    """
    try:
        dali = importlib.import_module("nvidia.dali")
    except ImportError as error:
        return f"DALI is not installed ({error}): {INSTALL}"
    version = str(dali.__version__)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        return f"DALI {version} is too old, {needed} is the least: pip install -U 'fastload[dali]'"
    return "" if device is None else _why_no_gpu(device)


def _why_no_gpu(device: int) -> str:
    import torch

    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA: install one with it, see pytorch.org"
    if not torch.cuda.is_available():
        if Path("/proc/driver/nvidia/version").exists():
            return "the NVIDIA driver is there, but PyTorch finds no GPU: see nvidia-smi"
        return "there is no NVIDIA GPU, or its driver is not installed"
    if device >= torch.cuda.device_count():
        return f"there is no GPU {device}, only {torch.cuda.device_count()} of them"
    return ""


def define_graph(options: GraphOptions) -> Any:  # noqa: ANN401  nvidia.dali is not typed
    """The one graph definition, placed by `options.device`: an nvidia.dali.Pipeline, not yet built.

    Inputs, a batch of each: `images` (uint8 [bytes]), `anchors` and `shapes` (int32 [2]: top, left
    and height, width of the box in the image), `flips` (int32, 0 or 1). Output: [S, S, 3] each.
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
        flips = fn.external_source(name="flips", dtype=types.INT32, ndim=0)
        crops = _crops(fn, types, options, images, {"start": anchors, "shape": shapes})
        # A triangle filter that widens with the scale and ends at the edges of the crop, as
        # torchvision's antialiased bilinear: mean absolute difference 0.14 (tests/test_dali.py).
        squares = fn.resize(
            crops, size=[options.size] * 2, interp_type=types.INTERP_LINEAR, antialias=True
        )
        scale = 1.0 if options.dtype == "uint8" else 255.0
        pixels = fn.crop_mirror_normalize(
            squares,
            mirror=flips,
            mean=[scale * mean for mean in options.mean],
            std=[scale * std for std in options.std],
            dtype={"uint8": types.UINT8, "float16": types.FLOAT16, "float32": types.FLOAT}[
                options.dtype
            ],
            output_layout="HWC",
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
    """Decode and crop. Chroma upsampling, DCT and EXIF are pinned, for their defaults differ."""
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
    # upsampling, so nvImageCodec 0.9 leaves those to the CPU, and without it crashes on some cards
    # (NVIDIA/nvImageCodec#55). The files are sliced already; what could not be is decoded whole.
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
    )
    return fn.slice(decoded, axis_names="HW", **box)


@dataclass(frozen=True, slots=True)
class Slices:
    """A batch of sliced JPEGs and the boxes in them, ready for a graph.

    Attributes:
        images: uint8 [bytes] each.
        boxes: int32 [N, 4]: top, left, height, width in pixels of the sliced image.
        flips: bool [N].
        decoded_bytes: Of all images together, once decoded and cropped.
    """

    images: list[NDArray[np.uint8]]
    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]
    decoded_bytes: int


def slice_batch(
    encoded: Encoded, boxes: NDArray[np.int32], flips: NDArray[np.bool_]
) -> Slices | None:
    """Cut each file of a batch down to what covers its box. Pure and thread-safe.

    Args:
        encoded: N images.
        boxes: int32 [N, 4]: top, left, height, width in pixels of the whole image.
        flips: bool [N].

    Returns:
        None where one of them is no complete grey or three-channel JPEG: the CPU back-ends know
        what to do with it; DALI would end its pipeline or, with a cut-off file, not notice.
    """
    images, residual, decoded_bytes = [], np.empty_like(boxes, np.int32), 0
    for index, box in enumerate(boxes.tolist()):
        image = encoded[index]
        if bytes(image[-2:]) != b"\xff\xd9":
            return None
        try:
            sliced, inside = slice_jpeg(image, tuple(box))
            header = read_header(sliced)
        except (ImageError, ValueError):
            return None
        if len(header.sampling) not in (1, 3):
            return None
        images.append(np.frombuffer(sliced, np.uint8))
        residual[index] = inside
        decoded_bytes += 3 * (header.height * header.width + inside[2] * inside[3])
    return Slices(images, residual, flips, decoded_bytes)


class RenderGraph:
    """A built DALI pipeline and the batches in flight on it. Used by one thread at a time.

    Args:
        options: See `GraphOptions`.

    Attributes:
        options: As given.
        rebuilds: How often an image ended the pipeline.

    Raises:
        BackendUnavailableError: If DALI cannot build the graph here.
    """

    def __init__(self, options: GraphOptions) -> None:
        reason = why_unavailable(device=options.device)
        if reason:
            raise BackendUnavailableError(reason)
        self.options = options
        self.rebuilds = 0
        self._started: deque[Slices | None] = deque()
        self._queued: deque[Slices | None] = deque()  # behind a pipeline that has ended
        self._pipeline = self._build()

    def __len__(self) -> int:
        """Batches in flight."""
        return len(self._started) + len(self._queued)

    def has_room(self, slices: Slices | None) -> bool:
        """Whether the GPU may hold one more batch beside those in flight; one alone always fits."""
        flying = [batch.decoded_bytes for batch in (*self._started, *self._queued) if batch]
        more = slices.decoded_bytes if slices else 0
        return not flying or sum(flying) + more <= DEVICE_BYTES

    def submit(self, slices: Slices | None) -> None:
        """Start on a batch; returns without waiting.

        Args:
            slices: At most `batch_size` images. None, or more pixels than the GPU may hold at once,
                takes its place in the order and comes back as None.
        """
        if slices and len(slices.images) > self.options.batch_size:
            raise ValueError(
                f"a batch must have at most {self.options.batch_size} images, "
                f"got {len(slices.images)}"
            )
        if slices and self.options.device is not None and slices.decoded_bytes > DEVICE_BYTES:
            slices = None
        self._queued.append(slices)
        if len(self._queued) == 1:
            self._start_queued()

    def collect(self, stream: torch.cuda.Stream | None = None) -> Any | None:  # noqa: ANN401
        """Wait for the batch that was submitted first.

        Args:
            stream: The CUDA stream that will use the pixels; their memory is freed in its order.

        Returns:
            A DALI tensor [N, S, S, 3] that speaks DLPack and stays the caller's; None where the
            batch must be rendered by the CPU back-end.

        Raises:
            IndexError: If nothing is in flight.
            BackendUnavailableError: If an image ended the pipeline and it cannot be built again.
        """
        if not self._started and self._queued:
            self._restart()
        if not self._started:  # even a new pipeline does not take it
            self._queued.popleft()
            return None
        if self._started.popleft() is None:
            return None
        try:
            (batch,) = self._pipeline.share_outputs(cuda_stream=stream)
            self._pipeline.release_outputs()
        except DALI_ERRORS:
            self._restart()
            return None
        return batch.as_tensor()

    def close(self) -> None:
        """Drop the pipeline and what is in flight; give the GPU its memory back. Idempotent."""
        self._started.clear()
        self._queued.clear()
        self._pipeline = None
        if self.options.device is not None:
            importlib.import_module("nvidia.dali.backend").ReleaseUnusedMemory()

    def _build(self) -> Any:  # noqa: ANN401
        try:
            pipeline = define_graph(self.options)
            pipeline.build()
        except DALI_ERRORS as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackendUnavailableError(f"DALI cannot build its graph: {reason}") from error
        return pipeline

    def _start_queued(self) -> None:
        while self._queued:
            slices = self._queued[0]
            try:
                if slices is not None:
                    self._feed(slices)
            except DALI_ERRORS:
                return  # an earlier batch has ended the pipeline; collecting that one restarts it
            self._started.append(self._queued.popleft())

    def _feed(self, slices: Slices) -> None:
        anchors, shapes = np.split(slices.boxes, 2, axis=1)
        self._pipeline.feed_input("images", slices.images)
        self._pipeline.feed_input("anchors", np.ascontiguousarray(anchors))
        self._pipeline.feed_input("shapes", np.ascontiguousarray(shapes))
        self._pipeline.feed_input("flips", slices.flips.astype(np.int32))
        self._pipeline.schedule_run()

    def _restart(self) -> None:
        self.rebuilds += 1
        self._pipeline = None  # first, so that two never hold memory together
        self._pipeline = self._build()
        self._queued.extendleft(reversed(self._started))
        self._started.clear()
        self._start_queued()


class DaliRenderer:
    """The back-end `dali-cpu`: DALI's CPU graph, for comparison. Threads wait for one another.

    DALI brings its own threads, so it wants few large chunks rather than many small ones.

    Args:
        num_threads: Of DALI's pool.
        fallback: Renders the batches that DALI does not take; None is the fastest CPU back-end.

    Raises:
        BackendUnavailableError: If DALI is missing, too old, or cannot build its graph.
    """

    name = "dali-cpu"

    def __init__(self, *, num_threads: int = 1, fallback: Renderer | None = None) -> None:
        self._fallback = fallback or cpu_renderer()
        self._lock = threading.Lock()
        self._rebuilds_before = 0
        self._graph = RenderGraph(GraphOptions(size=224, batch_size=1, num_threads=num_threads))

    @property
    def rebuilds(self) -> int:
        """How often an image ended DALI's pipeline."""
        return self._rebuilds_before + self._graph.rebuilds

    def render(
        self,
        encoded: Encoded,
        boxes: NDArray[np.int32],
        flips: NDArray[np.bool_],
        out: NDArray[np.uint8],
    ) -> dict[int, str]:
        """See `Renderer.render`."""
        slices = slice_batch(encoded, boxes, flips)
        if slices is not None and slices.images:
            with self._lock:
                self._fit(len(encoded), out.shape[1])
                self._graph.submit(slices)
                pixels = self._graph.collect()
            if pixels is not None:
                out[:] = np.from_dlpack(pixels)
                return {}
        return self._fallback.render(encoded, boxes, flips, out)

    def _fit(self, count: int, size: int) -> None:
        """Build another graph where this one is too small, or of another output size."""
        options = self._graph.options
        if size == options.size and count <= options.batch_size:
            return
        self._rebuilds_before += self._graph.rebuilds
        self._graph.close()
        batch_size = max(count, options.batch_size)
        self._graph = RenderGraph(replace(options, size=size, batch_size=batch_size))
