"""The anatomy of a JPEG: header, restart intervals; `slice_jpeg`: the smallest JPEG that covers a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded images in one buffer, as a reader leaves them and a decoder takes them.

    Attributes:
        buffer: uint8 [M], the bytes of all images, owned by whoever made the value.
        starts: int64 [N], where each image begins in `buffer`.
        sizes: int64 [N], bytes of each image; `starts + sizes <= M`.
    """

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> memoryview:
        start = int(self.starts[index])
        return memoryview(self.buffer)[start : start + int(self.sizes[index])]

    @staticmethod
    def join(images: Sequence[bytes | memoryview]) -> Encoded:
        """Copy images into one new buffer."""
        sizes = np.array([len(image) for image in images], np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)[: len(images)]
        return Encoded(np.frombuffer(b"".join(images), np.uint8), starts, sizes)
