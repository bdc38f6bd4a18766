"""What the name of a folder tells: a split, unlabelled images, or something that is no class.

A name is read as words, so that training_set, seg_train, train2017, images_train and Testing are
read by one rule. Whether the folder is what its name says is decided in `layout`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastload.console.shell import exclude_option
from fastload.errors import LayoutError
from fastload.prepare.spelling import one_form
from fastload.store.object_paths import AnyPath

SPLITS = ("train", "val", "test")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SPLIT_OF = {
    **dict.fromkeys(_set("train training trn tr trainval learn learning 训练 训练集"), "train"),
    **dict.fromkeys(_set("val valid validation validate va dev development"), "val"),
    **dict.fromkeys(_set("eval evaluation evaluate 验证 验证集"), "val"),
    **dict.fromkeys(_set("test testing tst te ts 测试 测试集"), "test"),
}
_UNLABELLED = _set("pred predict prediction predictions unlabeled unlabelled submission")
# Words that say nothing: training_set, imagesTr, test_data, seg_train, "train (1)".
_NOISE = _set(
    """
    set sets subset data dataset datasets image images img imgs picture pictures pic pics photo
    photos jpg jpeg png file files folder folders dir part seg split splits final raw full all
    cls class classes labeled labelled to the of for copy v 数据 数据集 图片
    """
)
# Folders of images, never of one class.
_CONTAINERS = _set(
    """
    image images img imgs data dataset datasets jpg jpegs jpeg png photos pictures pics
    jpegimages
    """
)
# Folders that hold some of the images, when a number follows: batch_1, images_001.
_PARTS = _CONTAINERS | _set("part parts batch fold chunk set subset split")
# What tools write beside the images, or what describes them; also with a split's name or noise:
# train_logs, masksTr. Numbers are left out: exp2, runs3.
_SIDE = _set(
    """
    runs wandb mlruns mlartifacts lightning_logs tb_logs tensorboard tensorboard_logs logs
    checkpoint checkpoints ckpt ckpts multirun output outputs result results artifacts weights
    predictions exp experiments site_packages venv cache tmp temp plots figures thumbnails
    thumbs backup backups shards tfrecords lmdb script scripts notebooks src saved_models
    catboost_info
    annotation annotations labels masks segmentation segmentations trimaps bboxes bounding_boxes
    new_folder untitled_folder 新建文件夹
    ground_truth groundtruth meta metadata docs lists imagesets image_sets attributes
    """
)
_SIDE_AT_THE_END = _set("checkpoints ckpts wandb mlruns tensorboard outputs annotations")
_RUNS_OF_LETTERS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A folder's name, read.

    Attributes:
        split: "train", "val" or "test", where just one is named; else "".
        rest: The words that are neither a split's nor noise, in lower case.
        words: All words, in lower case.
    """

    split: str
    rest: frozenset[str]
    words: tuple[str, ...]

    @property
    def unlabelled(self) -> bool:
        """Whether the name says that the images have no labels, as those to predict."""
        return bool(self.rest) and self.rest <= _UNLABELLED

    @property
    def generic(self) -> bool:
        """Whether the name says nothing of a class: images, data, train."""
        return bool(self.words) and not self.rest

    @property
    def container(self) -> bool:
        """Whether a folder of images, whatever the class, has such a name."""
        return bool(self.words) and set(self.words) <= _CONTAINERS

    @property
    def part(self) -> bool:
        """Whether a numbered folder of such a name is one part of many."""
        return not _PARTS.isdisjoint(self.words)

    @property
    def side(self) -> bool:
        """Whether tools, or files that describe images, have folders of such a name."""
        known = self.rest <= _SIDE and bool(self.rest)
        return (
            known
            or "_".join(self.words) in _SIDE
            or not _SIDE_AT_THE_END.isdisjoint(self.words[-1:])
        )


def read_name(name: str) -> Reading:
    """Read the name of a folder as words."""
    words = tuple(word for run in _RUNS_OF_LETTERS.findall(one_form(name)) for word in _words(run))
    splits = {_SPLIT_OF[word] for word in words if word in _SPLIT_OF}
    if splits == {"train", "val"}:  # trainval, as in Pascal VOC
        splits = {"train"}
    rest = frozenset(word for word in words if word not in _NOISE and word not in _SPLIT_OF)
    return Reading(splits.pop() if len(splits) == 1 else "", rest, words)


def splits_for_classes(splits: Iterable[str]) -> set[str]:
    """The splits in which a class should have an image: train, or all where there is no train."""
    there = set(splits)
    return there & {"", "train"} or there


def split_of_path(path: str) -> str:
    """The split that the name of a file tells, or else that of a folder above it; "" for none."""
    *folders, name = path.split("/")
    named = (read_name(part).split for part in (name.partition(".")[0], *reversed(folders)))
    return next(filter(None, named), "")


def splits_of_paths(paths: Sequence[str], root: AnyPath) -> dict[str, str]:
    """The split of each file, by its path; "" where no path names one.

    Args:
        paths: Paths relative to the root.
        root: The source, for messages.

    Raises:
        LayoutError: If some name a split and others do not.
    """
    splits = {path: split_of_path(path) for path in paths}
    found = set(splits.values())
    if found == {""}:
        return splits
    example = next(path for path in paths if splits[path])
    if "" in found:
        other = next(path for path in paths if not splits[path])
        raise LayoutError(
            f"{root} can be read in two ways: {example} is {splits[example]} by its name, but "
            f"{other} names no split; rename it, or leave it out with {exclude_option(other)}"
        )
    return splits


def _words(run: str) -> list[str]:
    """The words of a run of letters: trainset and trainSet are train and set."""
    lower = run.lower()
    known = _SPLIT_OF.keys() | _NOISE | _UNLABELLED | _SIDE
    if lower in known:
        return [lower]
    for word in _SPLIT_OF:
        for first, second in ((word, lower.removeprefix(word)), (lower.removesuffix(word), word)):
            if {first, second} <= known and first + second == lower:
                return [first, second]
    camel = [part.lower() for part in _CAMEL.findall(run)]
    return camel if set(camel) & known else [lower]
