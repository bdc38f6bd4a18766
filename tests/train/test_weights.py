"""Weights from files and downloads."""

from __future__ import annotations

import argparse
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from fastload.advise.models import build_model
from fastload.errors import FastloadError
from train.model import head_names
from train.options import ModelOptions
from train.weights import (
    Weights,
    WeightsError,
    load_weights,
    normalisation_for,
    published_normalisation,
    read_weights,
    resample_positions,
    start_weights,
)

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SMALL = "shufflenet_v2_x0_5"


def read(path: Path, model: torch.nn.Module | None = None) -> Weights:
    return read_weights(path, (model or torch.nn.Linear(2, 2)).state_dict())


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": {f"module.{k}": v for k, v in weights.items()}},
        lambda weights: {"state_dict": {f"model._orig_mod.{k}": v for k, v in weights.items()}},
    ],
    ids=["plain", "state_dict", "ddp", "lightning-compiled"],
)
def test_weights_are_found_however_they_are_wrapped(tmp_path, wrap):
    source = build_model(SMALL, 5)
    model = build_model(SMALL, 5)

    weights = read(save(tmp_path / "w.pt", wrap(source.state_dict())), model).tensors
    loaded = load_weights(model, weights, head=head_names(SMALL, 5))

    assert set(loaded.kept) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_another_number_of_classes_starts_the_head_anew_and_says_so(tmp_path):
    source, model = build_model(SMALL, 9), build_model(SMALL, 5)
    before = model.get_parameter("fc.weight").detach().clone()

    weights = read(save(tmp_path / "w.pt", source.state_dict())).tensors
    loaded = load_weights(model, weights, head=head_names(SMALL, 5))

    assert set(loaded.reshaped) == {"fc.weight", "fc.bias"}
    assert "other shape or type, started anew: fc.weight, fc.bias" in str(loaded)
    assert torch.equal(model.get_parameter("fc.weight"), before)
    stem = "conv1.0.weight"
    assert torch.equal(model.get_parameter(stem), source.get_parameter(stem))


@pytest.mark.parametrize(
    "spoil", [torch.Tensor.char, torch.Tensor.to_sparse, lambda value: value.to("meta")]
)
def test_what_only_has_the_shape_of_a_weight_is_not_taken(spoil):
    model = build_model("resnet18", 5)
    weights = dict(build_model("resnet18", 5).state_dict())
    weights["fc.weight"] = spoil(weights["fc.weight"])

    loaded = load_weights(model, weights, head={"fc.weight", "fc.bias"})

    assert loaded.reshaped == ("fc.weight",)


def test_weights_that_are_no_numbers_are_refused():
    weights = dict(build_model("resnet18", 5).state_dict())
    weights["fc.bias"] = torch.full((5,), torch.nan)

    with pytest.raises(WeightsError, match=r"infinity in 1 of 122 tensors, such as fc\.bias"):
        load_weights(build_model("resnet18", 5), weights, head={"fc.weight", "fc.bias"})


@pytest.mark.parametrize("normalise", [[1, 2], [[0.5], [0.5]], ["abc", "abc"], [[0.5] * 3], True])
def test_what_another_trainer_calls_normalise_is_left_alone(tmp_path, normalise):
    content = {"model": {"a": torch.zeros(2)}, "normalise": normalise}

    assert read(save(tmp_path / "w.pt", content)).normalise is None


@pytest.mark.parametrize(("before", "after"), [(197, 50), (5, 197), (196, 49), (66, 18)])
def test_positions_are_interpolated_as_timm_does(before, after):
    layers = pytest.importorskip("timm.layers")
    positions = torch.randn(1, before, 6)
    tokens = next(n for n in (1, 0, 2) if math.isqrt(before - n) ** 2 == before - n)
    side = math.isqrt(after - tokens)

    found = resample_positions(positions, after)

    expected = layers.resample_abs_pos_embed(positions, [side, side], num_prefix_tokens=tokens)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(found[:, :tokens], positions[:, :tokens])


def test_a_vision_transformer_takes_the_weights_of_another_size():
    weights = build_model("vit_b_32", 5).state_dict()
    model = build_model("vit_b_32", 5, size=64)

    loaded = load_weights(model, weights, head=head_names("vit_b_32", 5))

    name = "encoder.pos_embedding"
    assert loaded.resampled == (name,)
    assert "interpolated for another size: encoder.pos_embedding" in str(loaded)
    assert len(loaded.kept) == len(weights)
    assert torch.equal(model.state_dict()[name], resample_positions(weights[name], 5))


def test_what_is_missing_and_unused_is_said():
    model = build_model(SMALL, 5)
    weights = dict(model.state_dict())
    weights["extra.weight"] = weights.pop("conv1.0.weight")

    text = str(load_weights(model, weights, head=head_names(SMALL, 5)))

    assert "not in the weights, started anew: conv1.0.weight" in text
    assert "not in the model, dropped: extra.weight" in text


@pytest.mark.parametrize("other", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0"])
def test_weights_of_another_model_are_refused_and_nothing_is_changed(other):
    model = build_model(SMALL, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(WeightsError, match="so they are of another model"):
        load_weights(model, build_model(other, 5).state_dict(), head=head_names(SMALL, 5))

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("source", "target", "doubt"),
    [
        ("resnet34", "resnet18", "96 tensors of the weights are of layers that the model lacks"),
        ("resnet18", "resnet34", "80 of 180 tensors before the last layer start anew"),
        ("resnet18", "resnet18", ""),
    ],
)
def test_weights_of_another_depth_are_doubted(source, target, doubt):
    weights = dict(build_model(source, 7).state_dict()) | {"criterion.weight": torch.ones(7)}

    loaded = load_weights(build_model(target, 5), weights, head=head_names(target, 5))

    assert loaded.doubt.startswith(doubt)
    assert bool(loaded.doubt) == bool(doubt)


def test_a_few_large_tensors_of_a_model_are_not_the_model():
    own = build_model("vgg11", 5)
    weights = {name: value for name, value in own.state_dict().items() if "classifier" in name}

    with pytest.raises(WeightsError, match="fill 6 of 22 tensors, so they are of another model"):
        load_weights(own, weights, head=head_names("vgg11", 5))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made by the file"),)

    path = save(tmp_path / "w.pt", {"model": Harmful()})

    with pytest.raises(WeightsError, match=r"holds an object of (posix|nt).mkdir, which could"):
        read(path)
    assert not (tmp_path / "made by the file").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is no file of torch.save: it begins with b'hello'"),
        (b"<!DOCTYPE html>", "is no file of torch.save: it begins with b'<!DOCTYPE html>'"),
        (b"PK\x03\x04 broken", "is damaged or incomplete; put back a sound copy"),
        (b"\x80\x02 broken", "is damaged or incomplete; put back a sound copy"),
        (b'\x3a\0\0\0\0\0\0\0{"a":{"dtype"', "is a safetensors file that is damaged or incomplete"),
        (None, "there is no such file; give a file of weights, imagenet, imagenet-v1,"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "w.pt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(WeightsError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value)


def test_a_place_that_is_no_file_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # to open it would wait for a writer

    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(WeightsError, match="is not a regular file; a file of weights was"):
            read(path)
    with pytest.raises(WeightsError, match="the name is longer than"):
        read(tmp_path / ("x" * 300))


def zipped(path: Path, records: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return path


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    bomb = zipped(tmp_path / "w.pt", {"w/data.pkl": bytes(10_000_000), "w/version": b"3"})

    with pytest.raises(WeightsError, match="says it holds 10,000,001 bytes, and has"):
        read(bomb)


def test_an_archive_of_others_is_not_called_damaged(tmp_path):
    archive = zipped(tmp_path / "a.npz", {"a.npy": b"array"})

    with pytest.raises(WeightsError, match=r"is a zip archive that torch\.save did not write"):
        read(archive)


def test_what_is_no_tensor_is_named_and_the_way_to_mend_it(tmp_path):
    for content, name in (
        ({"model": {}, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ):
        with pytest.raises(WeightsError, match=f"an object of {name}, .* save the state dict"):
            read(save(tmp_path / "w.pt", content))


def test_a_flipped_bit_in_the_tensors_or_the_pickle_of_others_is_noticed(tmp_path):
    path = save(tmp_path / "w.pt", {"w": torch.ones(9)})
    with zipfile.ZipFile(path) as archive:
        places = [(item.filename, item.header_offset) for item in archive.infolist()]
    sound = path.read_bytes()
    for name in ("data.pkl", "data/0"):
        start = next(place for record, place in places if record.endswith(name))
        with zipfile.ZipFile(path) as archive:
            record = archive.read(next(record for record, _ in places if record.endswith(name)))
        place = sound.index(record, start)
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])

        with pytest.raises(WeightsError, match=f"its record w/{name} does not fit its CRC-32"):
            read(path)
        path.write_bytes(sound)
    assert torch.equal(read(path).tensors["w"], torch.ones(9))


@pytest.mark.skipif(
    not hasattr(torch.serialization, "set_crc32_options"),
    reason="needs torch 2.6, which can write files without checksums",
)
def test_files_without_checksums_are_read(tmp_path):
    old = tmp_path / "old.pt"
    torch.save({"w": torch.ones(9)}, old, _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        bare = save(tmp_path / "bare.pt", {"w": torch.ones(9)})
    finally:
        torch.serialization.set_crc32_options(True)

    for path in (old, bare):
        assert torch.equal(read(path).tensors["w"], torch.ones(9))


def test_a_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="holds no tensors"):
        read(save(tmp_path / "w.pt", {"model": {"epoch": 3}}))


def test_scratch_needs_no_weights():
    assert start_weights(ModelOptions(init="scratch"), {}) is None


def test_imagenet_weights_that_cannot_be_downloaded_name_the_other_choices(tmp_path, monkeypatch):
    # A proxy on a closed port of this machine makes every download fail, with or without a network.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    with pytest.raises(WeightsError) as raised:
        start_weights(ModelOptions(model="resnet18"), {})

    assert str(raised.value).startswith("the ImageNet weights of resnet18 cannot be downloaded (")
    assert str(raised.value).endswith("; give --init FILE, or --init scratch")
    assert "\n" not in str(raised.value)


def test_imagenet_weights_in_the_cache_need_no_network(tmp_path, monkeypatch):
    from torchvision.models import ShuffleNet_V2_X0_5_Weights

    source = build_model(SMALL, 1000)
    name = Path(ShuffleNet_V2_X0_5_Weights.DEFAULT.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(source.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    weights = start_weights(ModelOptions(model=SMALL), {})

    assert weights is not None
    assert torch.equal(weights.tensors["fc.weight"], source.get_parameter("fc.weight"))


def test_unknown_imagenet_weights_name_those_there_are():
    options = ModelOptions(model="resnet50", init="imagenet:V9")

    with pytest.raises(WeightsError, match=r"no weights V9; it has IMAGENET1K_V1, IMAGENET1K_V2"):
        start_weights(options, {})


@pytest.mark.parametrize(
    ("model", "init", "sentence"),
    [
        ("resnet18", "imagenet-v2", "resnet18 has no weights IMAGENET1K_V2; it has IMAGENET1K_V1"),
        ("vit_h_14", "imagenet-v1", "has no weights IMAGENET1K_V1; it has IMAGENET1K_SWAG_E2E_V1"),
        ("timm:resnet18", "imagenet-v1", "imagenet-v1 is torchvision's, and timm:resnet18 is timm"),
        ("timm:resnet50", "imagenet:zz_in1k", "resnet50 has no weights zz_in1k; try resnet50.a1_"),
        ("resnet50", "timm:resnet50.zz_in1k", "resnet50 has no weights zz_in1k; try resnet50.a1_"),
        ("resnet50", "timm:resnet51", '"timm:resnet51" is not in timm'),
        ("resnet50", "timm:", '"timm:" is not in timm'),
        ("resnet50", "imagenet-v3", "there is no such file; give a file of weights, imagenet, im"),
    ],
)
def test_weights_that_are_not_published_are_one_sentence(model, init, sentence):
    pytest.importorskip("timm")

    with pytest.raises(FastloadError) as raised:
        start_weights(ModelOptions(model=model, init=init), {})

    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("model", "init", "normalise"),
    [
        ("resnet50", "imagenet-v1", IMAGENET),
        ("resnet50", "imagenet-v2", IMAGENET),
        ("resnet50", "timm:resnet50.a1_in1k", IMAGENET),
        ("resnet50", "timm:resnet50_gn", IMAGENET),
        ("timm:resnet50", "imagenet:a2_in1k", IMAGENET),
        ("efficientnet_b0", "imagenet", IMAGENET),
        ("efficientnet_v2_l", "imagenet", HALF),
        ("inception_v3", "imagenet", HALF),
        ("googlenet", "imagenet-v1", HALF),
        ("vgg16", "imagenet", IMAGENET),
        ("vgg16", "imagenet:IMAGENET1K_FEATURES", ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)),
        ("timm:tf_efficientnet_lite0", "imagenet", HALF),
        ("timm:efficientnet_lite0", "imagenet", IMAGENET),
        ("timm:efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k", HALF),
        ("timm:vit_base_patch16_224", "imagenet:augreg_in21k", HALF),
        ("timm:vit_base_patch16_224_in21k", "imagenet", HALF),
        ("timm:inception_v3", "imagenet:tf_in1k", HALF),
        ("resnet18", "scratch", IMAGENET),
        ("inception_v3", "scratch", IMAGENET),
    ],
)
def test_images_are_normalised_as_the_weights_were_trained(model, init, normalise):
    pytest.importorskip("timm")

    found = normalisation_for(ModelOptions(model=model, init=init))

    assert np.allclose(found, normalise, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imagenet", IMAGENET),
        ("half", HALF),
        ("0.498/0.502", ((0.498,) * 3, (0.502,) * 3)),
        ("0.1,0.2,0.3/1", ((0.1, 0.2, 0.3), (1, 1, 1))),
    ],
)
def test_normalise_is_stronger_than_the_weights(text, expected):
    options = ModelOptions(model="inception_v3", init="imagenet", normalise=text)

    assert normalisation_for(options) == expected


@pytest.mark.parametrize(
    "text",
    ["", "halves", "0.5", "0.5/0", "0/1e-9", "128/127", "0.5,0.5/0.5", "0.5/0.5/0.5", "nan/0.5"],
)
def test_normalise_names_numbers_that_can_be(text):
    with pytest.raises(ValueError, match=f'MEAN/STD with .* got "{text}"'):
        ModelOptions(normalise=text)


def test_a_file_says_how_its_images_were_normalised(tmp_path):
    content = {"model": {"w": torch.ones(2)}, "args": argparse.Namespace(), "normalise": None}
    path = save(tmp_path / "w.pt", content)
    options = ModelOptions(init=str(path))

    assert normalisation_for(options) == IMAGENET
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}')
    assert normalisation_for(options) == IMAGENET
    config = '{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}'
    (tmp_path / "config.json").write_text(config)
    assert normalisation_for(options) == HALF
    save(path, {**content, "normalise": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]})
    assert normalisation_for(options) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_pixels_reach_the_first_layer_as_in_torchvision(name):
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in IMAGENET)
    pixels = torch.rand(2, 3, 8, 8)
    theirs = models.get_model(name, weights=None, transform_input=True, init_weights=False)

    half = (pixels - 0.5) / 0.5

    assert torch.allclose(theirs._transform_input((pixels - mean) / std), half, atol=1e-6)
    assert not build_model(name, 5).transform_input


def test_weights_of_timm_fill_the_same_architecture_of_torchvision(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    source = timm.create_model("resnet18", num_classes=1000)
    config = timm.get_pretrained_cfg("resnet18.a1_in1k")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = tmp_path / "hub" / "checkpoints" / Path(config.url).name
    cached.parent.mkdir(parents=True)
    torch.save(source.state_dict(), cached)
    # As if timm knew the address alone; by its own choice it asks the hub of Hugging Face first.
    monkeypatch.setattr("timm.models._builder.has_hf_hub", lambda **_: False)
    model = build_model("resnet18", 5)
    options = ModelOptions(model="resnet18", init="timm:resnet18.a1_in1k")

    weights = start_weights(options, model.state_dict())

    assert weights is not None
    loaded = load_weights(model, weights.tensors, head=head_names("resnet18", 5))
    assert len(loaded.kept) == 120
    assert loaded.reshaped == ("fc.weight", "fc.bias")
    assert torch.equal(model.get_parameter("conv1.weight"), source.conv1.weight)


def test_the_normalisation_of_the_weights_is_known():
    mean, std = published_normalisation(ModelOptions(model="resnet18")) or ((), ())

    assert mean == (0.485, 0.456, 0.406)
    assert std == (0.229, 0.224, 0.225)
    assert published_normalisation(ModelOptions(init="scratch")) is None
    assert published_normalisation(ModelOptions(model="no such model")) is None


def test_timm_weights_with_another_normalisation_get_it():
    pytest.importorskip("timm")
    options = ModelOptions(model="timm:vit_tiny_patch16_224", init="imagenet")

    assert normalisation_for(options) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation_for(ModelOptions(init="scratch"))[0] == (0.485, 0.456, 0.406)
