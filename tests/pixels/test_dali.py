"""DALI's CPU graph gives the pixels of the CPU back-ends; the GPU graph's definition is sound.

Tests marked `gpu` run the same on a card: `pytest -m gpu tests/pixels/test_dali.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from fastload import Augment, Loader, shard
from fastload.errors import BackendUnavailableError
from fastload.installation import install_command
from fastload.load.backend import Backend, _warn_once
from fastload.load.device import GpuMemory, SideStream
from fastload.pixels import dali, native
from fastload.pixels.dali import DaliRenderer, GraphOptions, RenderGraph, define_graph, slice_batch
from fastload.pixels.decode import CpuRenderer, cpu_renderer
from fastload.pixels.jpeg import Encoded
from fastload.store.index import read_index
from fastload.world import World
from tests.load.test_device import HostStream
from tests.pictures import encode, photograph
from tests.shards import Picture, write_shards

pytestmark = pytest.mark.filterwarnings("ignore:fastload's native core:RuntimeWarning")

WHY_NOT = dali.why_unavailable()
WHY_NO_GPU = dali.why_unavailable(device=0)
CPU_NAMES = ["libjpeg", *(["native"] if native.is_available() else [])]

needs_gpu = pytest.mark.skipif(
    bool(WHY_NO_GPU), reason=f"{WHY_NO_GPU}; on a GPU: pytest -m gpu tests/pixels/test_dali.py"
)


def needs_dali(test: Any) -> Any:
    reason = f"{WHY_NOT}; then: pytest -m dali tests/pixels/test_dali.py"
    return pytest.mark.dali(pytest.mark.skipif(bool(WHY_NOT), reason=reason)(test))


def on_each_device(test: Any) -> Any:
    """Run on the CPU, and on the GPU where there is one."""
    cpu = pytest.param(None, id="cpu", marks=pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT))
    gpu = pytest.param(0, id="gpu", marks=[pytest.mark.gpu, needs_gpu])
    return pytest.mark.dali(pytest.mark.parametrize("device", [cpu, gpu])(test))


def crops(count: int, *, seed: int = 0) -> tuple[Encoded, NDArray[np.int32], NDArray[np.bool_]]:
    """Photographs of many sizes and samplings, sliceable or not; a box in each; half flipped."""
    rng = np.random.default_rng(seed)
    samplings = ("4:4:4", "4:2:2", "4:2:0", "grey")
    images, boxes = [], []
    for index in range(count):
        height, width = rng.integers(80, 400, 2).tolist()
        sampling = samplings[index % 4]
        mcu_width = 8 if sampling in ("4:4:4", "grey") else 16
        interval = (0, 1, -(-width // mcu_width))[index // 4 % 3]  # none, one MCU, one row
        images.append(encode(photograph(height, width, seed=index), sampling, interval))
        tall, wide = int(rng.integers(24, height + 1)), int(rng.integers(24, width + 1))
        top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
        boxes.append((top, left, tall, wide))
    return Encoded.join(images), np.array(boxes, np.int32), np.arange(count) % 2 == 1


def run(
    options: GraphOptions, batch: tuple[Encoded, NDArray[np.int32], NDArray[np.bool_]]
) -> NDArray[Any]:
    """One batch through a graph, as NumPy, wherever the graph runs."""
    stream = None if options.device is None else torch.cuda.current_stream(options.device)
    slices = slice_batch(*batch)
    assert slices is not None
    pixels = RenderGraph(options, stream=stream).run(slices)
    array: NDArray[Any] = torch.utils.dlpack.from_dlpack(pixels).cpu().numpy()
    return array


def render(
    renderer: DaliRenderer,
    batch: tuple[Encoded, NDArray[np.int32], NDArray[np.bool_]],
    size: int,
    memory: GpuMemory | None = None,
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """One batch through a renderer, and what failed."""
    shape = (len(batch[0]), size, size, 3)
    out: Any = np.zeros(shape, np.uint8) if memory is None else memory.take(shape)
    failures = renderer.render(*batch, out)
    return (out if memory is None else out.cpu().numpy()), failures


def renderer_on(device: int | None) -> tuple[DaliRenderer, GpuMemory | None]:
    memory = None if device is None else GpuMemory(SideStream(torch.device("cuda", device)))
    return DaliRenderer(memory=memory, fallback=CpuRenderer(core=False)), memory


def reference(
    batch: tuple[Encoded, NDArray[np.int32], NDArray[np.bool_]], size: int, name: str = "libjpeg"
) -> NDArray[np.uint8]:
    out = np.zeros((len(batch[0]), size, size, 3), np.uint8)
    assert cpu_renderer(name).render(*batch, out) == {}
    return out


def differences(pixels: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Mean absolute difference of each image."""
    apart = np.abs(pixels.astype(np.float64) - others.astype(np.float64))
    means: NDArray[np.float64] = apart.reshape(len(pixels), -1).mean(1)
    return means


@on_each_device
@pytest.mark.parametrize("name", CPU_NAMES)
@pytest.mark.parametrize("size", [64, 224])
def test_its_pixels_are_those_of_the_cpu_back_ends(name: str, size: int, device: int | None):
    batch = crops(36)
    pixels = run(GraphOptions(size=size, batch_size=36, device=device), batch)
    assert pixels.shape == (36, size, size, 3)
    assert pixels.dtype == np.uint8
    assert differences(pixels, reference(batch, size, name)).max() <= 1


@on_each_device
@pytest.mark.parametrize("name", CPU_NAMES)
def test_its_windows_are_those_of_the_cpu_back_ends(name: str, device: int | None):
    encoded, boxes, flips = crops(36)
    random = np.random.default_rng(4)
    shares = random.uniform(0.4, 0.95, (36, 2))
    windows = np.concatenate(
        [boxes[:, 2:] * (1 - shares) * random.uniform(0, 1, (36, 2)), boxes[:, 2:] * shares], axis=1
    )
    expected = np.zeros((36, 64, 64, 3), np.uint8)
    assert cpu_renderer(name).render(encoded, boxes, flips, expected, None, windows) == {}
    renderer, memory = renderer_on(device)
    out: Any = np.zeros_like(expected) if memory is None else memory.take(expected.shape)
    assert renderer.render(encoded, boxes, flips, out, None, windows) == {}
    assert renderer.fallbacks == 0
    pixels = out if memory is None else out.cpu().numpy()
    assert differences(pixels, expected).max() <= 0.5
    whole = np.concatenate([np.zeros((36, 2)), boxes[:, 2:]], axis=1)
    plain = render(renderer, (encoded, boxes, flips), 64, memory)[0]
    assert renderer.render(encoded, boxes, flips, out, None, whole) == {}
    assert np.array_equal(out if memory is None else out.cpu().numpy(), plain)


@on_each_device
def test_the_pixels_are_not_shifted(device: int | None):
    # On a ramp of 1 grey a pixel, half a pixel of shift would show as half a grey, everywhere.
    ramp = np.add.outer(np.arange(120), np.arange(120)).astype(np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(np.stack([ramp] * 3, -1)).save(jpeg, "JPEG", quality=98, subsampling="4:4:4")
    boxes = np.array([(0, 0, 120, 120), (7, 13, 90, 101), (20, 5, 60, 60)], np.int32)
    batch = (Encoded.join([jpeg.getvalue()] * 3), boxes, np.zeros(3, np.bool_))
    pixels = run(GraphOptions(size=60, batch_size=3, device=device), batch).astype(np.float64)
    for square, (top, left, tall, wide) in zip(pixels, boxes.tolist(), strict=True):
        centre = top + left + (tall - 1) / 2 + (wide - 1) / 2
        assert square.mean() == pytest.approx(centre, abs=0.2)
        assert square[:, :30].mean() == pytest.approx(centre - wide / 4, abs=0.2)
        assert square[:30].mean() == pytest.approx(centre - tall / 4, abs=0.2)


@on_each_device
def test_a_flip_mirrors_left_and_right(device: int | None):
    encoded, boxes, flips = crops(8)
    options = GraphOptions(size=48, batch_size=8, device=device)
    as_asked = run(options, (encoded, boxes, flips))
    other_way = run(options, (encoded, boxes, ~flips))
    assert (as_asked == other_way[:, :, ::-1]).all()
    assert (as_asked != other_way).any()


def odd_file(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "turned by EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn by 90 degrees
        Image.fromarray(photograph(120, 160)).save(out, "JPEG", quality=90, exif=exif)
    elif kind == "CMYK":
        Image.fromarray(photograph(120, 160)).convert("CMYK").save(out, "JPEG", quality=90)
    else:
        Image.fromarray(photograph(120, 160)).save(out, "JPEG", quality=90, progressive=True)
    return out.getvalue()


@on_each_device
@pytest.mark.parametrize("kind", ["turned by EXIF", "CMYK", "progressive"])
def test_files_that_the_sharder_would_not_store_are_read_as_by_the_others(
    kind: str, device: int | None
):
    boxes = np.array([(10, 20, 70, 90)] * 2, np.int32)  # inside, whichever way it is turned
    batch = (Encoded.join([odd_file(kind)] * 2), boxes, np.array([False, True]))
    renderer, memory = renderer_on(device)
    out, failures = render(renderer, batch, 48, memory)
    assert failures == {}
    assert differences(out, reference(batch, 48)).max() <= 1
    assert renderer.fallbacks == (1 if kind == "CMYK" else 0)


def broken_files() -> dict[str, bytes]:
    sound = encode(photograph(120, 160), "4:2:0", 10)
    gif = io.BytesIO()
    Image.fromarray(photograph(120, 160)).save(gif, "GIF")
    tables = sound.index(b"\xff\xc4")
    return {
        "cut off": sound[: len(sound) // 2],
        "garbage": np.random.default_rng(0).bytes(4000),
        "empty": b"",
        "GIF": gif.getvalue(),
        "no Huffman tables": sound[: tables + 5] + bytes(20) + sound[tables + 25 :],
    }


@on_each_device
@pytest.mark.parametrize("kind", list(broken_files()))
def test_a_planted_corrupt_file_is_named_and_the_rest_is_rendered(kind: str, device: int | None):
    sound = encode(photograph(120, 160), "4:2:0", 10)
    boxes = np.array([(20, 30, 80, 100)] * 5, np.int32)
    flips = np.zeros(5, np.bool_)
    renderer, memory = renderer_on(device)
    good = (Encoded.join([sound] * 5), boxes, flips)
    planted = (Encoded.join([sound, sound, broken_files()[kind], sound, sound]), boxes, flips)
    expected = reference(good, 32)
    for _ in range(2):
        out, failures = render(renderer, planted, 32, memory)
        assert list(failures) == ([] if kind == "GIF" else [2])
        assert all(failures.values())
        others = [0, 1, 3, 4]
        assert differences(out[others], expected[others]).max() <= 1
    out, failures = render(renderer, good, 32, memory)
    assert failures == {}
    assert differences(out, expected).max() <= 1
    # What no slice can be made of never reaches DALI; the rest ends its pipeline.
    assert renderer.rebuilds == (2 if kind == "no Huffman tables" else 0)
    assert renderer.fallbacks == 2


@on_each_device
def test_batches_of_many_threads_do_not_mix_and_one_poisoned_batch_spoils_no_other(
    device: int | None,
):
    renderer, memory = renderer_on(device)
    batches = [crops(6, seed=seed) for seed in range(12)]
    poisoned = broken_files()["no Huffman tables"]
    for index in (3, 7):
        encoded, boxes, flips = batches[index]
        files = [poisoned, *(bytes(encoded[place]) for place in range(1, 6))]
        batches[index] = (Encoded.join(files), np.minimum(boxes, 40), flips)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda batch: render(renderer, batch, 32, memory), batches))
    for index, (out, failures) in enumerate(results):
        assert list(failures) == ([0] if index in (3, 7) else [])
        first = len(failures)
        encoded, boxes, flips = batches[index]
        part = Encoded(encoded.buffer, encoded.starts[first:], encoded.sizes[first:])
        expected = reference((part, boxes[first:], flips[first:]), 32)
        assert differences(out[first:], expected).max() <= 1
    assert renderer.rebuilds == 2


@on_each_device
def test_one_renderer_serves_chunks_and_sizes_of_any_number(device: int | None):
    renderer, memory = renderer_on(device)
    for count, size in ((3, 32), (8, 32), (2, 32), (2, 64), (8, 48)):
        batch = crops(count, seed=count)
        out, failures = render(renderer, batch, size, memory)
        assert failures == {}
        assert differences(out, reference(batch, size)).max() <= 1
    renderer.close()
    assert render(renderer, batch, size, memory)[1] == {}


@on_each_device
def test_a_graph_is_used_again_until_the_size_changes_under_it(device: int | None):
    renderer, memory = renderer_on(device)
    batch = crops(4)
    render(renderer, batch, 32, memory)
    (graph,) = renderer._idle
    render(renderer, batch, 32, memory)
    assert renderer._idle == [graph]
    write = renderer._write

    def write_late(pixels: Any, out: Any) -> None:
        renderer._write = write  # type: ignore[method-assign]  # once
        render(renderer, batch, 48, memory)  # as another thread may, in between
        write(pixels, out)

    renderer._write = write_late  # type: ignore[method-assign]
    for size in (32, 48):
        out, failures = render(renderer, batch, size, memory)
        assert failures == {}
        assert differences(out, reference(batch, size)).max() <= 1


@on_each_device
def test_a_batch_with_too_many_pixels_goes_through_in_parts(
    monkeypatch: pytest.MonkeyPatch, device: int | None
):
    batch = crops(12)
    slices = slice_batch(*batch)
    assert slices is not None
    assert slices.parts() == [slice(0, 12)]
    limit = int(slices.decoded_bytes.max()) + 1
    monkeypatch.setattr(dali, "PART_BYTES", limit)
    parts = slices.parts()
    assert 2 < len(parts) < 12
    assert [index for part in parts for index in range(12)[part]] == list(range(12))
    assert all(slices.decoded_bytes[part].sum() <= limit for part in parts)
    renderer, memory = renderer_on(device)
    out, _ = render(renderer, batch, 48, memory)
    assert differences(out, reference(batch, 48)).max() <= 1
    monkeypatch.setattr(dali, "PART_BYTES", 1)
    assert len(slices.parts()) == 12


@needs_dali
def test_when_a_graph_cannot_be_built_again_the_cpu_back_end_does_the_rest(
    monkeypatch: pytest.MonkeyPatch,
):
    renderer = DaliRenderer(fallback=CpuRenderer(core=False))
    batch = crops(4)
    monkeypatch.setattr(dali, "MINIMUM_VERSION", (999, 0))  # the next graph is refused
    with pytest.warns(RuntimeWarning, match="can run no more .*too old.*: libjpeg does the rest"):
        out, failures = render(renderer, batch, 32)
    assert failures == {}
    assert (out == reference(batch, 32)).all()
    assert render(renderer, batch, 32)[1] == {}  # and says so once


@needs_dali
def test_a_whole_file_is_sent_where_it_cannot_be_sliced_and_less_where_it_can():
    pixels, box = photograph(160, 320), np.array([(40, 60, 50, 70)], np.int32)
    no_flip = np.zeros(1, np.bool_)
    plain, sliceable = encode(pixels, "4:2:0"), encode(pixels, "4:2:0", 2)
    whole = slice_batch(Encoded.join([plain]), box, no_flip)
    slices = slice_batch(Encoded.join([sliceable]), box, no_flip)
    assert whole is not None
    assert slices is not None
    assert whole.images[0].tobytes() == plain
    assert len(slices.images[0]) < len(sliceable) / 3
    height, width = simplejpeg.decode_jpeg_header(slices.images[0].tobytes())[:2]
    assert slices.decoded_bytes.tolist() == [3 * (height * width + 50 * 70)]
    assert whole.decoded_bytes.tolist() == [3 * (160 * 320 + 50 * 70)]


def test_what_follows_the_end_of_a_jpeg_is_left_out():
    plain = encode(photograph(64, 96), "4:2:0", 0)
    box, flips = np.array([(0, 0, 64, 96)], np.int32), np.zeros(1, np.bool_)
    for behind in (b"\0ftypmp42 a film", bytes(4096)):
        slices = slice_batch(Encoded.join([plain + behind]), box, flips)
        assert slices is not None
        assert slices.images[0].tobytes() == plain
    thumbnail = b"\xff\xe1" + (len(plain) + 8).to_bytes(2, "big") + b"Exif\0\0" + plain
    cut_off = plain[:2] + thumbnail + plain[2:-40]
    for damaged in (cut_off, plain[:-2], b""):
        assert slice_batch(Encoded.join([damaged]), box, flips) is None


@needs_dali
def test_for_a_jpeg_engine_small_files_stay_whole_and_large_ones_are_cut():
    files = [encode(photograph(*size), "4:2:0", 2) for size in ((160, 320), (320, 640))]
    boxes, flips = np.array([(40, 60, 50, 70)] * 2, np.int32), np.zeros(2, np.bool_)
    slices = slice_batch(Encoded.join(files), boxes, flips, whole_below=160 * 320 + 1)
    assert slices is not None
    assert slices.images[0].tobytes() == files[0]
    assert slices.boxes[0].tolist() == [40, 60, 50, 70]
    assert len(slices.images[1]) < len(files[1]) / 3
    outside = np.array([(120, 60, 50, 70), (40, 60, 50, 70)], np.int32)
    assert slice_batch(Encoded.join(files), outside, flips, whole_below=1 << 20) is None
    pixels = run(GraphOptions(size=32, batch_size=2), (Encoded.join(files), boxes, flips))
    array = np.from_dlpack(RenderGraph(GraphOptions(size=32, batch_size=2)).run(slices))
    assert (array == pixels).all()


# The GPU graph's definition, checked without a GPU.


# Arguments that are fed with each batch.
FED = {
    "decoders__ImageSlice": ("start", "shape"),
    "Slice": ("start", "shape"),
    "Resize": ("roi_start", "roi_end"),
    "CropMirrorNormalize": ("mirror",),
}


def operators(options: GraphOptions) -> list[tuple[str, str, Any, Any]]:
    """Schema name, device, specification and constant arguments of each operator."""
    pipeline = define_graph(options)
    pipeline._build_graph()
    instances = [(each._op, each._spec) for each in pipeline._ops]
    return [(op.schema.Name(), op.device, spec, op._init_args) for op, spec in instances]


def complaints(options: GraphOptions) -> list[str]:
    """What DALI's schemas have against the operators and arguments of a graph."""
    backend: Any = importlib.import_module("nvidia.dali.backend")
    registered = {
        "cpu": backend.RegisteredCPUOps(),
        "gpu": backend.RegisteredGPUOps(),
        "mixed": backend.RegisteredMixedOps(),
    }
    found = []
    for name, device, spec, constants in operators(options):
        schema = backend.GetSchema(name)
        regular = spec.NumRegularInput()
        fed = FED.get(name, ())
        arguments = [*(each for each in constants if not each.startswith("_")), *fed]
        sources = [spec.InputDevice(index) for index in range(spec.NumInput())]
        if name not in registered[device]:
            found.append(f"{name} is not registered for {device}")
        if schema.IsDeprecated():
            found.append(f"{name} is deprecated")
        if not schema.MinNumInput() <= regular <= schema.MaxNumInput():
            found.append(f"{name} takes no {regular} inputs")
        if set(sources[:regular]) - {"gpu" if device == "gpu" else "cpu"}:
            found.append(f"{name} on {device} reads from {sources}")
        if len(sources) - regular != len(fed) or set(sources[regular:]) - {"cpu"}:
            found.append(f"{name} is fed {sources[regular:]}, not {fed} on the CPU")
        for argument in arguments:
            if not schema.HasArgument(argument):
                found.append(f"{name} knows no {argument}")
            elif schema.IsDeprecatedArg(argument):
                found.append(f"{argument} of {name} is deprecated")
        found += [
            f"{name} cannot be fed {each}" for each in fed if not schema.IsTensorArgument(each)
        ]
    return found


GPU_OPTIONS = GraphOptions(size=224, batch_size=128, device=0, num_threads=4)


@needs_dali
def test_every_operator_of_the_gpu_graph_is_registered_where_it_is_placed():
    placed = [(name, device) for name, device, *_ in operators(GPU_OPTIONS)]
    assert [each for each in placed if each[0] != "ExternalSource"] == [
        ("decoders__Image", "mixed"),
        ("Slice", "gpu"),
        ("Resize", "gpu"),
        ("CropMirrorNormalize", "gpu"),
    ]
    assert placed.count(("ExternalSource", "cpu")) == 6
    assert complaints(GPU_OPTIONS) == []
    (decoder,) = (constants for name, *_, constants in operators(GPU_OPTIONS) if "Image" in name)
    pinned = {"adjust_orientation": False, "jpeg_fancy_upsampling": True, "use_fast_idct": False}
    assert {name: decoder[name] for name in pinned} == pinned


@needs_dali
def test_the_gpu_graph_is_accepted_by_dali_s_backend():
    pipeline = define_graph(GPU_OPTIONS)
    pipeline._device_id = None  # DALI will not even take a definition for a device without a driver
    assert len(pipeline.serialize()) > 1000


@needs_dali
def test_the_cpu_graph_reads_the_box_alone():
    options = GraphOptions(size=224, batch_size=128)
    placed = {(name, device) for name, device, *_ in operators(options)}
    assert ("decoders__ImageSlice", "cpu") in placed
    assert {device for _, device in placed} == {"cpu"}
    assert complaints(options) == []


@needs_dali
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("jpeg_fancy_upsampling=", "jpeg_smooth_upsampling="),
        ("fn.resize", "fn.resize_antialiased"),
        ("mirror=flips", "mirrored=flips"),
        ('device="mixed"', 'device="gpu"'),
        ("fn.slice(decoded, axis_names", "fn.slice(decoded, decoded, decoded, decoded, axis_names"),
    ],
)
def test_a_mistake_in_the_gpu_graph_is_found_without_a_gpu(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = Path(dali.__file__).read_text()
    assert before in source
    (tmp_path / "mistaken_dali.py").write_text(source.replace(before, after))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mistaken_dali", raising=False)
    mistaken = importlib.import_module("mistaken_dali")
    with pytest.raises(dali.DALI_ERRORS):
        mistaken.define_graph(mistaken.GraphOptions(size=224, batch_size=8, device=0))


@pytest.mark.parametrize("options", [{"size": 0}, {"batch_size": 0}, {"num_threads": 0}])
def test_options_below_one_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match="must be at least 1"):
        GraphOptions(**{"size": 32, "batch_size": 1, **options})


# Where DALI cannot run.

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "nvidia" or name.startswith("nvidia."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_fastload_never_imports_dali():
    out = run_python(
        "import importlib, pkgutil, sys, fastload\n"
        "for each in pkgutil.walk_packages(fastload.__path__, 'fastload.'):\n"
        "    if not each.name.endswith('._core'):\n"
        "        importlib.import_module(each.name)\n"
        "assert 'fastload.pixels.dali' in sys.modules\n"
        "print([name for name in sys.modules if name.startswith('nvidia.dali')])"
    )
    assert out.strip() == "[]"


@needs_dali
def test_a_dali_that_is_too_old_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.import_module("nvidia.dali"), "__version__", "1.44.0")
    expected = f"DALI 1.44.0 is too old, 2.2 is the least: {install_command('dali')}"
    assert dali.why_unavailable() == expected
    with pytest.raises(BackendUnavailableError, match="too old"):
        DaliRenderer(fallback=CpuRenderer(core=False))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@needs_dali
def test_without_a_gpu_the_gpu_graph_says_so():
    with pytest.raises(BackendUnavailableError, match="GPU"):
        RenderGraph(GraphOptions(size=32, batch_size=2, device=0))


@needs_dali
def test_an_operator_that_fails_to_build_is_a_reason_not_a_crash(monkeypatch: pytest.MonkeyPatch):
    # A GPU that is not there: DALI refuses to build, as it does where an installation is broken.
    monkeypatch.setattr(dali, "why_unavailable", lambda **_: "")
    with pytest.raises(BackendUnavailableError, match="DALI cannot build its graph: "):
        RenderGraph(GraphOptions(size=32, batch_size=2, device=99))


# On a GPU.


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
def test_the_pixels_never_leave_the_gpu():
    memory = GpuMemory(SideStream(torch.device("cuda", 0)))
    renderer = DaliRenderer(memory=memory)
    out = memory.take((16, 224, 224, 3))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        assert renderer.render(*crops(16), out) == {}
    copied = [event.key for event in profile.key_averages() if "DtoH" in event.key]
    assert not copied
    with memory.sending(out, np.arange(16)) as sent:
        pass
    images, labels = memory.receive(sent)
    assert images.device == labels.device == torch.device("cuda", 0)
    assert images.data_ptr() == out.data_ptr()
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@needs_gpu
def test_the_memory_of_train_and_eval_together_is_bounded_and_given_back():
    DaliRenderer(
        memory=GpuMemory(SideStream(torch.device("cuda", 0)))
    ).close()  # contexts, kernels: once
    before = torch.cuda.mem_get_info()[0]
    pairs = [renderer_on(0) for _ in ("train", "eval")]
    for seed in range(10):
        for renderer, memory in pairs:
            render(renderer, crops(64, seed=seed), 224, memory)
    assert before - torch.cuda.mem_get_info()[0] < 2 * 2 * dali.PART_BYTES
    for renderer, _ in pairs:
        renderer.close()
    torch.cuda.empty_cache()
    assert before - torch.cuda.mem_get_info()[0] < 128 << 20


# Through the loader.


def pictures(count: int, *, seed: int = 0) -> list[Picture]:
    """Photographs of several sizes, most of them sliceable, in classes of very unequal size."""
    made = []
    for index in range(count):
        height, width = 96 + 8 * (index % 5), 128 + 32 * (index % 3)
        jpeg = encode(photograph(height, width, seed=seed + index), "4:2:0", 2 if index % 4 else 0)
        made.append(Picture(jpeg, 0 if index < count * 3 // 4 else 1 + index % 2, height, width))
    return made


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": pictures(50), "val": pictures(21, seed=900)}
    return write_shards(tmp_path_factory.mktemp("dali"), splits, classes=["a", "b", "c"])


def dali_loader(shards: Path, device: int | None, **options: Any) -> Loader:
    backend, where = ("dali-cpu", "cpu") if device is None else ("dali", "cuda")
    loader = Loader(shards, batch_size=8, num_threads=2, backend=backend, device=where, **options)
    assert loader.backend == backend
    return loader


def epoch_of(loader: Loader) -> list[tuple[NDArray[np.int64], list[int], NDArray[Any]]]:
    """Rows, labels and pixels [N, S, S, 3] of each batch."""
    batches = []
    for images, labels in loader:
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.device == labels.device == loader.device
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        batches.append((loader.last_indices(), labels.tolist(), pixels))
    return batches


@on_each_device
@pytest.mark.parametrize("name", CPU_NAMES)
@pytest.mark.parametrize("world", [World(), World(rank=1, size=2)], ids=["one rank", "rank 1"])
def test_an_epoch_has_the_samples_labels_and_pixels_of_the_cpu_path(
    shards: Path, name: str, world: World, device: int | None
):
    options: dict[str, Any] = {"reweight": "inverse", "augment": Augment.train(64), "world": world}
    with (
        dali_loader(shards, device, **options) as loader,
        Loader(shards, batch_size=8, num_threads=2, backend=name, **options) as other,
    ):
        loader.set_epoch(5)
        other.set_epoch(5)
        batches, others = epoch_of(loader), epoch_of(other)
    assert len(batches) == len(others) == 6 // world.size
    for (rows, labels, pixels), (other_rows, other_labels, other_pixels) in zip(
        batches, others, strict=True
    ):
        assert rows.tolist() == other_rows.tolist()
        assert labels == other_labels
        assert differences(pixels, other_pixels).max() <= 1


@on_each_device
def test_a_run_goes_on_in_the_middle_of_an_epoch(shards: Path, device: int | None):
    options: dict[str, Any] = {"reweight": "sqrt", "augment": Augment.train(32), "seed": 1}
    with dali_loader(shards, device, **options) as loader:
        whole = epoch_of(loader)
    with dali_loader(shards, device, **options) as loader:
        batches = iter(loader)
        for _ in range(2):
            next(batches)
        state = loader.state_dict()
    with dali_loader(shards, device, **options) as loader:
        loader.load_state_dict(state)
        rest = epoch_of(loader)
    assert len(rest) == len(whole) - 2
    for (rows, labels, pixels), (whole_rows, whole_labels, whole_pixels) in zip(
        rest, whole[2:], strict=True
    ):
        assert rows.tolist() == whole_rows.tolist()
        assert labels == whole_labels
        assert (pixels == whole_pixels).all()


@on_each_device
def test_evaluation_has_each_sample_once_without_padding(shards: Path, device: int | None):
    augment = Augment.eval(32)
    with (
        dali_loader(shards, device, split="val", augment=augment) as loader,
        Loader(shards, split="val", batch_size=8, backend="libjpeg", augment=augment) as other,
    ):
        batches, others = epoch_of(loader), epoch_of(other)
    assert [len(rows) for rows, *_ in batches] == [8, 8, 5]
    assert np.concatenate([rows for rows, *_ in batches]).tolist() == list(range(21))
    for (_, _, pixels), (_, _, other_pixels) in zip(batches, others, strict=True):
        assert differences(pixels, other_pixels).max() <= 1


@on_each_device
def test_a_normalised_epoch_is_that_of_the_cpu_path(shards: Path, device: int | None):
    options: dict[str, Any] = {"augment": Augment.train(32), "dtype": torch.float32}
    with (
        dali_loader(shards, device, **options) as loader,
        Loader(shards, batch_size=8, backend="libjpeg", **options) as other,
    ):
        for (_, _, pixels), (_, _, others) in zip(epoch_of(loader), epoch_of(other), strict=True):
            assert pixels.dtype == np.float32
            assert differences(pixels, others).max() <= 1 / 255 / 0.224


@on_each_device
def test_training_goes_on_over_planted_corrupt_files(
    tmp_path: Path, device: int | None, caplog: pytest.LogCaptureFixture
):
    # Their CRC-32 is right: nobody but the decoder can tell.
    planted = pictures(48)
    for row, kind in ((3, "cut off"), (17, "garbage"), (30, "no Huffman tables"), (41, "empty")):
        planted[row] = Picture(broken_files()[kind], 0, 120, 160)
    write_shards(tmp_path, {"train": planted}, classes=["a", "b", "c"])
    options: dict[str, Any] = {"augment": Augment.train(32), "max_corrupt_fraction": 0.2}
    with (
        dali_loader(tmp_path, device, **options) as loader,
        Loader(tmp_path, batch_size=8, num_threads=2, backend="libjpeg", **options) as other,
    ):
        for _ in range(2):
            for (rows, labels, pixels), (other_rows, other_labels, other_pixels) in zip(
                epoch_of(loader), epoch_of(other), strict=True
            ):
                assert not set(rows.tolist()) & {3, 17, 30, 41}
                assert rows.tolist() == other_rows.tolist()
                assert labels == other_labels
                assert differences(pixels, other_pixels).max() <= 1
        assert loader.stats().bad_samples == 8
    named = [record.getMessage() for record in caplog.records if "replaced" in record.getMessage()]
    for key in ("000003", "000017", "000030", "000041"):
        assert any(f"sample {key}" in message for message in named)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_dali_gives_way_to_the_cpu_and_says_why(
    shards: Path, caplog: pytest.LogCaptureFixture
):
    _warn_once.cache_clear()
    with Loader(shards, batch_size=8, backend="dali", augment=Augment.train(32)) as loader:
        Loader(shards, batch_size=8, backend="dali").close()
        assert loader.backend == CPU_NAMES[-1]
        assert loader.backend_reason == (
            f"{CPU_NAMES[-1]}: dali cannot run: it renders on a GPU, the device is cpu"
        )
        assert len(epoch_of(loader)) == 6
    assert len([record for record in caplog.records if "takes over" in record.getMessage()]) == 1


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_dali_says_on_which(shards: Path):
    with dali_loader(shards, 0) as loader:
        assert loader.backend_reason.startswith("dali: asked for, and ")


def test_without_dali_the_command_is_named_and_dali_gives_way_to_the_cpu(shards: Path):
    out = run_python(
        BLOCK + "import warnings\nwarnings.simplefilter('ignore')\n"
        "from fastload import Loader\n"
        "from fastload.pixels.dali import why_unavailable\n"
        "from fastload.errors import BackendUnavailableError\n"
        f"path = {str(shards)!r}\n"
        "print(why_unavailable())\n"
        "try:\n    Loader(path, backend='dali-cpu', batch_size=8)\n"
        "except BackendUnavailableError as error:\n    print(error)\n"
        "print(Loader(path, backend='dali', batch_size=8).backend)\n"
    )
    reason, error, backend = out.splitlines()
    assert reason == error
    assert error.startswith("DALI is not installed")
    assert error.endswith(install_command("dali"))
    assert backend == CPU_NAMES[-1]


# The GPU's way from graph to caller, in the memory of the host: all but the CUDA calls.


def through_host_memory(shards: Path, **options: Any) -> Loader:
    """A loader that does with tensors and whole batches what it does on a GPU."""
    memory = GpuMemory(HostStream())
    backend = Backend(
        renderer=DaliRenderer(memory=memory, fallback=CpuRenderer(core=False)),
        reason="a test",
        memory=memory,
        device=memory,
        num_threads=2,
    )
    return Loader(shards, batch_size=8, num_threads=2, backend=backend, **options)


@needs_dali
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_whole_batches_of_tensors_are_those_of_the_cpu_path(shards: Path, dtype: torch.dtype):
    options: dict[str, Any] = {"augment": Augment.train(48), "reweight": "sqrt", "dtype": dtype}
    with (
        through_host_memory(shards, **options) as loader,
        Loader(shards, batch_size=8, backend="libjpeg", **options) as other,
    ):
        for _ in range(2):
            for mine, others in zip(epoch_of(loader), epoch_of(other), strict=True):
                assert mine[0].tolist() == others[0].tolist()
                assert mine[1] == others[1]
                assert differences(mine[2], others[2]).max() <= 1
            loader.set_size(32)
            other.set_size(32)


@needs_dali
@pytest.mark.parametrize("order", ["shuffled", "index"])
def test_tensors_of_bad_samples_are_replaced_or_left_out(tmp_path: Path, order: Any):
    planted = pictures(24)
    for row, kind in ((3, "cut off"), (10, "no Huffman tables"), (11, "garbage")):
        planted[row] = Picture(broken_files()[kind], 0, 120, 160)
    write_shards(tmp_path, {"train": planted}, classes=["a", "b", "c"])
    options: dict[str, Any] = {"order": order, "max_corrupt_fraction": 0.5}
    options["augment"] = Augment.train(32)
    with (
        through_host_memory(tmp_path, **options) as loader,
        Loader(tmp_path, batch_size=8, backend="libjpeg", **options) as other,
    ):
        batches, others = epoch_of(loader), epoch_of(other)
        assert loader.stats().bad_samples == 3
    if order == "index":
        assert [len(rows) for rows, *_ in batches] == [7, 6, 8]
    for (rows, labels, pixels), (other_rows, other_labels, other_pixels) in zip(
        batches, others, strict=True
    ):
        assert rows.tolist() == other_rows.tolist()
        assert labels == other_labels
        assert differences(pixels, other_pixels).max() <= 1


# DALI's own way.


@pytest.fixture(scope="module")
def dali_native() -> Any:
    """The example, which is a script and no part of a package."""
    path = Path(__file__).parents[2] / "examples" / "dali_native.py"
    spec = importlib.util.spec_from_file_location("dali_native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards as `python -m fastload.shard` writes them; 12 classes, so labels have two digits."""
    folder = tmp_path_factory.mktemp("folder")
    for split, count in (("train", 36), ("val", 21)):
        for index in range(count):
            path = folder / split / f"class {index % 12:02d}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = index if split == "train" else 500 + index
            path.write_bytes(encode(photograph(96, 120, seed=seed)))
    out = tmp_path_factory.mktemp("prepared") / "shards"
    assert shard.main([str(folder), "--out", str(out), "--workers", "1"]) == 0
    return out


@on_each_device
@pytest.mark.parametrize("split", ["train", "val"])
def test_dali_s_own_reader_reads_the_shards_and_their_labels(
    dali_native: Any, prepared: Path, split: str, device: int | None
):
    where = "cpu" if device is None else f"cuda:{device}"
    index = read_index(prepared, split)
    batches = list(dali_native.batches(prepared, split, batch_size=8, size=56, device=where))
    labels = [label for _, batch in batches for label in batch.tolist()]
    assert sorted(labels) == sorted(index["label"].tolist())
    if split == "val":
        assert labels == index["label"].tolist()
    assert [len(images) for images, _ in batches] == [8] * (len(index) // 8) + [len(index) % 8]
    for images, _ in batches:
        assert images.shape[1:] == (3, 56, 56)
        assert images.dtype == torch.float32
        assert str(images.device) == where
        assert -2.2 < images.min() < images.max() < 2.7


@needs_dali
def test_dali_s_own_reader_gives_the_pixels_of_the_evaluation(dali_native: Any, prepared: Path):
    ((images, labels),) = dali_native.batches(prepared, "val", batch_size=32, size=56)
    augment = Augment.eval(56)
    loader = Loader(
        prepared,
        split="val",
        batch_size=32,
        backend="libjpeg",
        augment=augment,
        dtype=torch.float32,
    )
    with loader:
        ((others, other_labels),) = loader
    assert labels.tolist() == other_labels.tolist()
    # It resizes, rounds and crops, where fastload resizes the box: the last digits differ.
    assert (images - others).abs().mean() < 0.1
    assert (images.flip(3) - others).abs().mean() > 0.5


@needs_dali
def test_the_example_reads_labels_of_any_width(dali_native: Any):
    digits = torch.tensor([[ord(c) for c in text] for text in ("007", "120", "999")]).byte()
    assert dali_native.read_labels(digits).tolist() == [7, 120, 999]
