"""What other readers want beside a tar: the index of DALI and the information for timm."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastload.store.manifest import Split
from fastload.store.tar import label_bytes, label_offset


def dali_index(samples: NDArray[np.void], keys: Sequence[str], num_classes: int) -> bytes:
    """DALI's index of a tar, version 1.2: where each component of each sample lies.

    Args:
        samples: SAMPLE [N] of that tar.
        keys: [N], keys of the samples.
        num_classes: Number of classes in the whole shard directory.
    """
    digits = len(label_bytes(0, num_classes))
    lines = [f"v1.2 {len(keys)}"]
    for sample, key in zip(samples, keys, strict=True):
        offset, size = int(sample["offset"]), int(sample["size"])
        behind = label_offset(offset, size)
        lines.append(f"jpg {offset} {size} {key}.jpg cls {behind} {digits} {key}.cls")
    return ("\n".join(lines) + "\n").encode()


def timm_info(splits: dict[str, Split]) -> bytes:
    """What timm's webdataset reader wants to know (`_info.json`)."""
    return json.dumps(
        {
            "splits": {
                name: {
                    "name": name,
                    "num_samples": split.samples,
                    "filenames": [shard.name for shard in split.shards],
                    "shard_lengths": [shard.samples for shard in split.shards],
                }
                for name, split in splits.items()
            }
        },
        indent=1,
    ).encode()
