"""tf.data over TFRecords with `decode_and_crop_jpeg`, which decodes only the crop."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders.contract import Batch, Epochs, Work, list_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
tf: Any = importlib.import_module("tensorflow")

SHARDS = 8


def prepare(images: Path, out: Path, _work: Work) -> None:
    """TFRecords of the files' own bytes."""
    listed = list_images(images)
    out.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        with tf.io.TFRecordWriter(str(out / f"train-{shard:03d}.tfrecord")) as writer:
            for path, label in listed[shard::SHARDS]:
                features = {
                    "jpeg": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[path.read_bytes()])
                    ),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())


def open_loader(data: Path, work: Work) -> Epochs:
    """`work.option`: "antialiased" or "plain" resizing."""
    tf.config.threading.set_intra_op_parallelism_threads(work.cores)
    tf.config.threading.set_inter_op_parallelism_threads(work.cores)
    antialias = work.option == "antialiased"
    schema = {
        "jpeg": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def render(record: Any) -> tuple[Any, Any]:
        sample = tf.io.parse_single_example(record, schema)
        box = _random_resized_box(tf.io.extract_jpeg_shape(sample["jpeg"]))
        crop = tf.image.decode_and_crop_jpeg(sample["jpeg"], box, channels=3)
        resized = tf.image.resize(crop, [work.size, work.size], antialias=antialias)
        pixels = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        return tf.image.random_flip_left_right(pixels), sample["label"]

    options = tf.data.Options()
    options.threading.private_threadpool_size = work.cores
    options.deterministic = False
    files = sorted(str(path) for path in data.glob("*.tfrecord"))
    batches = (
        tf.data.TFRecordDataset(files, num_parallel_reads=2)
        .shuffle(1000)
        .map(render, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(work.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )

    def epoch(_number: int) -> Iterator[Batch]:
        return iter(batches.as_numpy_iterator())

    return epoch


def _random_resized_box(shape: Any) -> Any:
    """[top, left, height, width] as in every tf.data ImageNet recipe."""
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        shape,
        tf.zeros([1, 0, 4]),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.stack([begin[0], begin[1], extent[0], extent[1]])
