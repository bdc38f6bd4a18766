"""TarDataset: random access to a shard directory, for torch's DataLoader.

    ds[i] -> index -> Reader (pread, CRC-32) -> decode_image -> PIL image or uint8 tensor, label

Files are opened when they are first read, once in each process. A pickle holds the index and the
paths, no open files; a forked process opens its own files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fastload.arguments import check_callable, check_choice, check_kind
from fastload.calls import explain_calls
from fastload.console.page import escaped
from fastload.console.terminal import counted
from fastload.errors import CorruptImageError, ImageError, ShardError
from fastload.load.rows import row_of
from fastload.pixels.decode import decode_image
from fastload.pixels.orientation import turned_upright
from fastload.store.collection import Collection, Paths, listed, open_collection
from fastload.store.making import make_missing_indexes
from fastload.store.reader import Reader, Scratch
from fastload.store.remote import Access
from fastload.store.remote_reader import RemoteReader, open_reader
from fastload.store.summary import class_table

OutputKind = Literal["pil", "tensor"]


@explain_calls(
    root="write path=…, the shard directory",
    train='write split="train" or split="val"',
    augment="that is an option of Loader; here write transform=…",
    select="write torch.utils.data.Subset(dataset, rows), or take a Loader",
    loader='write output="pil" or output="tensor"',
    batch_size="give it to the DataLoader around the TarDataset, or take a Loader",
    shuffle="give it to the DataLoader around the TarDataset, or take a Loader",
)
class TarDataset(Dataset[tuple[Any, Any]]):
    """The samples of a split as a map from [0, len) to (image, label), like ImageFolder.

    Works with every sampler, with any number of forked or spawned workers, and with torchdata's
    StatefulDataLoader. Thread-safe. For training, `Loader` is several times faster: it decodes only
    the crop.

    Args:
        path: A shard directory, its address in an object store ("s3://bucket/shards"), or a folder
            of images, which is indexed where it has no index yet; or several of them with the same
            classes.
        split: Name of the split.
        transform: Called with each image, such as one of torchvision's transforms.
        target_transform: Called with each label.
        output: What an image is before `transform`: "pil" for an RGB PIL image, "tensor" for
            uint8 [3, H, W] in [0, 255], channels last in memory as torchvision's decoders leave it.
        storage_options: What the client of an object store takes besides the environment; see
            docs/scale.md. There workers must be spawned, not forked.
        cache: Folder on a local disk for what was read of an object store.
        cache_bytes: Bytes that the cache may take; as the disk allows when None.

    Attributes:
        classes: Names of the class folders; a label is a position in it.
        class_names: Readable names of the classes.
        class_to_idx: Label of each class folder.
        class_counts: int64 [classes], images of each class.

    Raises:
        ShardError: If the shards are missing, damaged or do not fit together.
        ValueError: If `output` is neither "pil" nor "tensor".
    """

    def __init__(
        self,
        path: Paths,
        split: str = "train",
        *,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        output: OutputKind = "pil",
        storage_options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        check_kind("split", split, str)
        check_choice("output", output, get_args(OutputKind))
        check_callable("transform", transform)
        check_callable("target_transform", target_transform)
        self.transform = transform
        self.target_transform = target_transform
        self.output = output
        name = f"split {split} of {', '.join(map(str, listed(path)))}"
        make_missing_indexes(path)
        access = Access(storage_options=storage_options, cache=cache, cache_bytes=cache_bytes)
        self._hold(open_collection(path, split, access), name)

    @classmethod
    def of_collection(cls, collection: Collection, name: str) -> TarDataset:
        """The samples of a collection, as PIL images; `name` is what `repr` says of them."""
        dataset = cls.__new__(cls)
        dataset.transform = dataset.target_transform = None
        dataset.output = "pil"
        dataset._hold(collection, name)
        return dataset

    def _hold(self, collection: Collection, name: str) -> None:
        self._collection, self._description = collection, name
        self.classes = list(self._collection.classes)
        self.class_names = list(self._collection.class_names)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.class_counts = self._collection.class_counts
        self._reader: tuple[int, Reader] | None = None

    @cached_property
    def targets(self) -> list[int]:
        """Label of each sample, as a sampler with weights or a stratified split needs them."""
        labels: list[int] = self._collection.index["label"].tolist()
        return labels

    def __len__(self) -> int:
        return len(self._collection.index)

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, Any]:
        """Read, check and decode one sample.

        Args:
            index: In [-len, len).

        Returns:
            The image, full size, after `transform`, and the label after `target_transform`.

        Raises:
            IndexError: If there is no such sample.
            ShardError: If its shard is missing or was replaced, or its bytes are not those that
                were stored; names shard, key and offset.
            CorruptImageError: If the bytes as they were stored cannot be decoded.
        """
        row = self._row(index)
        label = int(self._collection.index["label"][row])
        encoded, bad = self._open_reader().read(np.array([row]), Scratch())
        if bad:
            raise ShardError(bad[0], where=self._open_reader().locate(row))
        try:
            pixels = decode_image(encoded[0])
            if encoded.upright is not None:
                pixels = turned_upright(pixels, int(encoded.upright.orientations[0]))
        except ImageError as error:
            place = self._open_reader().locate(row)
            raise CorruptImageError(error.reason, name=str(place)) from error
        image: Image.Image | Tensor
        if self.output == "pil":
            image = Image.fromarray(pixels)
        else:
            image = torch.from_numpy(pixels).permute(2, 0, 1)
        return (
            self.transform(image) if self.transform else image,
            self.target_transform(label) if self.target_transform else label,
        )

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[tuple[Any, Any]]:
        """Several samples, as a DataLoader asks for them: they are read ahead together."""
        rows = [self._row(index) for index in indices]
        self._open_reader().read_ahead(np.array(rows, np.int64))
        return [self[row] for row in rows]

    def locate(self, index: SupportsIndex) -> tuple[str, str, int]:
        """Where a sample is stored: file name of its shard, its key, its byte offset there."""
        return self._open_reader().locate(self._row(index))

    def file_of(self, index: SupportsIndex) -> Path | None:
        """The file of this machine that is a sample's image; None where there is no such file."""
        if isinstance(self._open_reader(), RemoteReader):
            return None
        number = int(self._collection.index["file"][self._row(index)])
        files = self._collection.files
        return files.path(number) if files.alone(np.array([number]))[0] else None

    def __repr__(self) -> str:
        return (
            f"TarDataset({counted(len(self), 'image')} of {counted(len(self.classes), 'class')},"
            f" {self._description})"
        )

    def _repr_html_(self) -> str:
        counts = self.class_counts.tolist()
        return f"<p>{escaped(repr(self))}</p>{class_table(self.class_names, counts)}"

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_reader": None}
        state.pop("targets", None)  # 300,000 Python integers that no worker needs
        return state

    def _row(self, index: SupportsIndex) -> int:
        return row_of("index", index, len(self))

    def _open_reader(self) -> Reader:
        process = os.getpid()
        # A fork inherits the parent's reader, whose lock a thread of the parent may have held.
        if self._reader is None or self._reader[0] != process:
            self._reader = (process, open_reader(self._collection))
        return self._reader[1]
