"""Which folder is what: splits, classes, or neither. Nothing but names and places decides it.

    {train,val,test}/CLASS/…    CLASS/…    either within folders that hold nothing else of images

Splits without train are a data set to evaluate with, where no folder or archive is named for train.
A folder is a split when its name says so and it holds class folders. What could be read in two ways
is refused with both readings; `LayoutOptions` chooses one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastload.console.shell import exclude_option
from fastload.errors import LayoutError
from fastload.prepare.naming import SPLITS, read_name
from fastload.prepare.spelling import one_form
from fastload.prepare.tree import Folder, looks_like_picture
from fastload.store.object_paths import AnyPath, ObjectPath

LAYOUTS = ("auto", "splits", "classes")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2", ".zst")
_SHOWN = 5  # names in a message
# What file managers call a copy of a folder.
_COPY = re.compile(
    r"(.+?)(?: - (?:copy|kopie|copie|copia|副本)| copy(?: \d+)?)?(?: \(\d+\))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutOptions:
    """How a folder is understood, where its user knows better.

    Attributes:
        layout: "auto"; "splits": what is neither train, val nor test is left out; "classes": every
            folder in the source is a class.
        exclude: Names, relative paths or patterns of what is passed over.
        val_fraction: Of each class's images in train, how many become val; in (0, 1). None: val
            must be a folder, or 0.1 where there are no splits.
        test_fraction: As `val_fraction`, for test; 0 is allowed.
        image_field: Column of a table or parquet file that holds the image or its path, or member
            of a sample in a tar; "" finds it by its name.
        label_field: The same for the class; in a tar also a field of the sample's JSON.
        split_field: Column of a table that names the split.
    """

    layout: str = "auto"
    exclude: tuple[str, ...] = ()
    val_fraction: float | None = None
    test_fraction: float | None = None
    image_field: str = ""
    label_field: str = ""
    split_field: str = ""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction must be in (0, 1), got {self.val_fraction}")
        if self.test_fraction is not None and not 0 <= self.test_fraction < 1:
            raise ValueError(f"test_fraction must be in [0, 1), got {self.test_fraction}")
        if (self.val_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise ValueError("val_fraction and test_fraction must leave something for train")

    def recorded(self) -> dict[str, Any]:
        """What was asked for, as the manifest records it; empty where nothing was."""
        asked: dict[str, Any] = {}
        if self.layout != "auto":
            asked["layout"] = self.layout
        if self.exclude:
            asked["exclude"] = list(self.exclude)
        if self.val_fraction is not None:
            asked["val_fraction"] = self.val_fraction
        if self.test_fraction is not None:
            asked["test_fraction"] = self.test_fraction
        for name in ("image_field", "label_field", "split_field"):
            if field_name := getattr(self, name):
                asked[name] = field_name
        return asked


@dataclass(slots=True)
class Layout:
    """How a folder was understood.

    Attributes:
        base: The folder that holds the splits or the class folders.
        words: The pattern, such as "{train, val}/CLASS".
        splits: Split -> the folder that holds its class folders; "" where there are no splits.
        no_classes: Paths of folders among class folders that are none.
        notes: What was passed over and why, a sentence each.
    """

    base: Folder
    words: str = ""
    splits: dict[str, Folder] = field(default_factory=dict)
    no_classes: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def class_folders(self, split: str) -> list[Folder]:
        """The class folders of a split, sorted by name; those without images too."""
        return [one for one in self.splits[split].folders if one.path not in self.no_classes]


def find_layout(top: Folder, *, root: AnyPath, layout: str = "auto") -> Layout:
    """Decide what each folder is.

    Args:
        top: The source.
        root: Its path, for messages.
        layout: One of `LAYOUTS`.

    Raises:
        LayoutError: If there is nothing to train on, or there are two readings.
    """
    _refuse_broken_links(top, root)
    if not top.holds_images:
        raise LayoutError(_nothing_found(top, root))
    found = Layout(base=top)
    finder = _Finder(found, root, doubtful=layout == "auto")
    if layout != "classes":
        found.base = finder.unwrap(top)
    splits = {} if layout == "classes" else finder.splits_in(found.base)
    if splits:
        finder.take_splits(splits, others_stay=layout == "splits")
    elif layout == "splits":
        raise LayoutError(
            f"{root} holds no folder for train that holds class folders, as --layout splits wants; "
            f"{_expected(root)}"
        )
    else:
        finder.take_classes()
        if layout == "auto":
            finder.name_alone()
    for folder in found.splits.values():
        _refuse_broken_links(folder, root)
    return found


def _refuse_broken_links(folder: Folder, root: AnyPath) -> None:
    """A link to nothing among splits or classes was one of them, on a disk that is not there."""
    for name in folder.files:
        path = root / folder.path_of(name)
        if not looks_like_picture(name) and path.is_symlink() and not _is_there(path):
            raise LayoutError(
                f"{folder.path_of(name)} in {root} is a link to nothing, where a split or a class "
                "would be; mend or remove the link, or leave it out with "
                f"{exclude_option(folder.path_of(name))}"
            )


def _is_there(path: AnyPath) -> bool:
    try:
        return path.exists()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def named(names: Iterable[str]) -> str:
    """The names, or the first few of them."""
    names = list(names)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _in(folder: Folder) -> str:
    return f"{folder.path}/" if folder.path else ""


def _expected(root: AnyPath) -> str:
    return f"expected {root}/train/CLASS/image.jpg, or {root}/CLASS/image.jpg"


@dataclass(slots=True)
class _Finder:
    """The decisions about one source; what is decided goes into `found`."""

    found: Layout
    root: AnyPath
    doubtful: bool  # refuse what has two readings; else the user has chosen

    def unwrap(self, folder: Folder) -> Folder:
        """Enter folders that are alone with their images, down to the splits or classes."""
        while True:
            inner = self._wrapped(folder)
            if inner is None:
                return folder
            self._pass_over(folder, inner)
            folder = inner

    def _wrapped(self, folder: Folder) -> Folder | None:
        children = folder.with_images()
        real = [child for child in children if not read_name(child.name).side]
        if len(real) != 1 or not real[0].with_images():
            return None
        (inner,) = real
        splits = self.splits_in(inner)
        if "train" in splits or 0 < len(splits) == len(inner.with_images()):
            return inner
        if read_name(inner.name).split or inner.pictures:
            return None
        within = [one for one in inner.with_images() if not _is_year(one.name)]
        many = len(within) > 1 or read_name(inner.name).generic
        return inner if many or self._wrapped(inner) is not None else None

    def _pass_over(self, folder: Folder, inner: Folder) -> None:
        """Say what lies beside the folder that holds all the images."""
        for images in (False, True):
            beside = [one for one in folder.folders if one.holds_images is images]
            self.leave_out(
                [one for one in beside if one is not inner],
                "no images in them" if not images else "not among the class folders",
            )
        self._loose(folder)

    def leave_out(self, folders: Sequence[Folder], why: str) -> None:
        """Say that folders are passed over."""
        if folders:
            self.found.notes.append(f"passed over, {why}: {named(one.path for one in folders)}")

    def _loose(self, folder: Folder) -> None:
        if folder.pictures:
            self.found.notes.append(
                f"passed over, outside the class folders: {folder.pictures:,} image"
                f"{'s' * (folder.pictures > 1)} in {folder.path or self.root}/"
            )

    def _archives(self, folder: Folder) -> None:
        """Say which archives may be classes or splits that were not unpacked."""
        unpacked = tuple(f"{one.name}." for one in folder.folders)
        packed = [name for name in _packed(folder) if not name.startswith(unpacked)]
        if packed:
            self.found.notes.append(f"passed over, archives: {named(map(folder.path_of, packed))}")

    def splits_in(self, folder: Folder) -> dict[str, Folder]:
        """Split -> the folder in this one that is it: by its name, and by the folders in it."""
        candidates = [
            (read_name(one.name), one) for one in folder.with_images() if _classes_within(one, None)
        ]
        candidates = [
            (reading, one) for reading, one in candidates if reading.split and not reading.side
        ]
        plain = [(reading, one) for reading, one in candidates if not reading.rest]
        kinds = len({reading.rest for reading, _ in candidates})
        if not plain and kinds == 1 and len(candidates) > 1:
            plain = candidates  # cifar10_train and cifar10_test
        splits: dict[str, Folder] = {}
        for reading, one in plain:
            if reading.split in splits:
                first = splits[reading.split]
                raise LayoutError(
                    f"{first.path} and {one.path} both name the {reading.split} split; rename one "
                    f"of them, or leave one out with {exclude_option(one.path)}"
                )
            splits[reading.split] = one
        return {split: splits[split] for split in SPLITS if split in splits}

    def take_splits(self, splits: dict[str, Folder], *, others_stay: bool) -> None:
        """Take the folders of `splits`; see that what lies beside them may be left out."""
        base = self.found.base
        if "train" not in splits and (meant := _named_for_train(base)):
            there = " and ".join(splits)
            raise LayoutError(
                f"{base.path or self.root} has a folder for {there} but none for train that holds "
                f"class folders ({named(one.path for one in splits.values())}){_unpack(base)}; add "
                "one, rename the folder that is it to train, or leave it out to evaluate only: "
                f"{exclude_option(base.path_of(meant))}"
            )
        self._beside_splits(base, splits, others_stay=others_stay)
        trained: set[str] | None = None
        for split, folder in splits.items():
            inner = _classes_within(folder, trained)
            if inner is None or self._is_unlabelled(split, inner, trained):
                self._without_classes(split, folder)
                continue
            self._check_classes(inner, trained)
            self._archives(inner)
            if self.doubtful and trained is None:
                self._look_deeper(inner.with_images())
            self.found.splits[split] = inner
            if trained is None:
                trained = {one_form(one.name) for one in inner.folders}
        self.found.words = f"{_in(base)}{_pattern(base, self.found.splits)}/CLASS"

    def _beside_splits(self, base: Folder, splits: dict[str, Folder], *, others_stay: bool) -> None:
        taken = {folder.path for folder in splits.values()}
        rest = [folder for folder in base.folders if folder.path not in taken]
        unknown = []
        sure = _share_classes(splits)
        for folder in rest:
            reading = read_name(folder.name)
            if not folder.holds_images:
                continue
            if reading.split and not reading.rest and not _classes_within(folder, None):
                self._without_classes(reading.split, folder)
            elif reading.unlabelled:
                self.leave_out([folder], "images without labels")
            elif reading.side or (sure and not _classes_within(folder, None)):
                self.leave_out([folder], "not a split")
            else:
                unknown.append(folder)
        self.leave_out([one for one in rest if not one.holds_images], "no images in them")
        self._loose(base)
        self._archives(base)
        if others_stay:
            self.leave_out(unknown, "not a split")
        elif unknown:
            self._refuse_beside_splits(list(splits.values()), unknown)

    def _refuse_beside_splits(self, splits: Sequence[Folder], others: Sequence[Folder]) -> None:
        raise LayoutError(
            f"{self.root} can be read in two ways: {named(one.path for one in splits)} "
            f"hold{'s' * (len(splits) == 1)} class folders and {_are_splits(splits)} "
            f"by name, but {named(one.path for one in others)} beside "
            f"{'it' if len(splits) == 1 else 'them'} hold{'s' * (len(others) == 1)} images too; "
            f"did you mean --layout splits (the others are left out), {self._keep_classes()} "
            f"(every one of these folders is a class), or {exclude_option(others[0].path)}?"
        )

    def _is_unlabelled(self, split: str, inner: Folder, trained: set[str] | None) -> bool:
        """Whether a test folder has one folder, of no class: test/unknown/, test/images/."""
        classes = inner.with_images()
        return (
            split == "test"
            and trained is not None
            and len(classes) == 1
            and one_form(classes[0].name) not in trained
            and not classes[0].with_images()
        )

    def _without_classes(self, split: str, folder: Folder) -> None:
        """A split that holds images and no class folders: a test set has no labels yet."""
        images = sum(one.pictures for one in folder.walk())
        if split == "test":
            self.found.notes.append(
                f"passed over, no class folders and so no labels: {folder.path} ({images:,} images)"
            )
            return
        raise LayoutError(
            f"{folder.path} in {self.root} holds {images:,} images but no class folders; put the "
            "images of each class in a folder named after it, or leave it out with "
            f"{exclude_option(folder.path)}"
        )

    def _check_classes(self, inner: Folder, trained: set[str] | None) -> None:
        """Find the folders among class folders that are none; refuse those in doubt."""
        names = {folder.name for folder in inner.folders}
        for folder in inner.folders:
            reading = read_name(folder.name)
            if not folder.holds_images:
                if reading.side or reading.container:
                    self.found.no_classes.add(folder.path)
                continue
            if not self.doubtful or (trained and one_form(folder.name) in trained):
                continue
            if reading.side:
                self._refuse_class(folder, "tools, or annotations, have folders of this name")
            if "pyvenv.cfg" in folder.files:
                self._refuse_class(folder, "it is an environment of Python")
            if reading.container:
                self._refuse_class(folder, "folders of this name hold images of all classes")
            copied = _COPY.fullmatch(folder.name)
            if copied and copied[1] in names - {folder.name}:
                self._refuse_class(folder, f"it is named as a copy of {copied[1]}")
            if reading.split and not reading.rest and _classes_within(folder, None):
                self._refuse_class(folder, f"it is named as a {reading.split} split")
        none = [one for one in inner.folders if one.path in self.found.no_classes]
        self.leave_out(none, "no images in them")

    def _refuse_class(self, folder: Folder, why: str) -> None:
        if read_name(folder.name).container and _classes_within(folder, None):
            way_out = f"did you mean {self.root / folder.path}?"
        else:
            way_out = (
                f"leave it out with {exclude_option(folder.path)}, or keep it with {self._keep()}"
            )
        raise LayoutError(
            f"{folder.path} in {self.root} would become a class, but {why}; {way_out}"
        )

    def _keep(self) -> str:
        """The option by which all folders among the class folders are classes."""
        return self._keep_classes() if "" in self.found.splits else "--layout splits"

    def _keep_classes(self) -> str:
        """The option by which every folder is a class, and of which folder it must be asked."""
        base = self.found.base.path
        return "--layout classes" + (f" for {self.root / base}" if base else "")

    def name_alone(self) -> None:
        """Take class folders in a folder named for val for that split: data/val was given.

        A folder named for test is taken so where one for train lies beside it: a data set that is
        called test is no rare thing.
        """
        if "" not in self.found.splits:
            return
        root = self.root.absolute()
        split = split_alone(root.name)
        if split == "val" or (split == "test" and "train" in splits_beside(root)):
            self.found.splits = {split: self.found.splits[""]}
            self.found.words = f"{_in(self.found.base)}CLASS, all for {split} by the folder's name"
            self.found.notes.append(
                f"all images are {split}, by the name of {self.root}; --layout classes splits them "
                "into train, val and test"
            )

    def take_classes(self) -> None:
        """Take every folder in the base for a class."""
        base = self.found.base
        classes = base.with_images()
        if not classes:
            raise LayoutError(_nothing_found(base, self.root))
        self.found.splits[""] = base
        self.found.words = f"{_in(base)}CLASS, split by fastload"
        if self.doubtful:
            self._refuse_splits_as_classes(classes)
        self._check_classes(base, None)
        self._archives(base)
        if self.doubtful:
            self._refuse_splits_below(classes)
            self._look_deeper(classes)

    def _refuse_splits_as_classes(self, classes: Sequence[Folder]) -> None:
        """A folder named after a split that holds images itself: a class, or images unlabelled."""
        readings = {one.path: read_name(one.name) for one in classes}
        like = [
            one
            for one in classes
            if (readings[one.path].split and not readings[one.path].rest)
            or readings[one.path].unlabelled
        ]
        if not like:
            return
        names = named(one.path for one in like)
        if len(like) == len(classes):
            raise LayoutError(
                f"{self.root} has {names}, which hold images but no class folders; "
                f"{_expected(self.root)}, or {self._keep_classes()} if they are classes"
            )
        # Of two letters, as VA of the states and te of the languages, a name is no split's alone.
        like = [one for one in like if len(one.name) > 2 or not one.name.isascii()]
        if not like:
            return
        names = named(one.path for one in like)
        if [readings[one.path].split for one in like] == ["train"]:
            self.found.notes.append(
                f"{names} is taken for a class: it holds images itself, as its neighbours do"
            )
            return
        raise LayoutError(
            f"{self.root} can be read in two ways: {names} may be, like the other folders, "
            f"{'a class' if len(like) == 1 else 'classes'}, or hold images without labels; did you "
            f"mean {self._keep_classes()}, or {exclude_option(like[0].path)}?"
        )

    def _refuse_splits_below(self, classes: Sequence[Folder]) -> None:
        """CLASS/train/image.jpg: splits lie above classes, or the images would be mixed."""
        for one in classes:
            reading = read_name(one.name)
            if reading.split and not one.pictures:
                self._refuse_class(one, f"it is named as a {reading.split} split and holds folders")
            inner = [(read_name(inner.name), inner.path) for inner in one.with_images()]
            inner = [(reading, path) for reading, path in inner if not reading.rest]
            if len({reading.split for reading, _ in inner} - {""}) > 1:
                raise LayoutError(
                    f"{one.path} in {self.root} holds splits ({named(path for _, path in inner)}), "
                    f"but splits are read above classes, not below them; {_expected(self.root)}; "
                    f"did you mean {self.root / one.path}, or {self._keep_classes()} (mix them and "
                    "split anew)?"
                )

    def _look_deeper(self, classes: Sequence[Folder]) -> None:
        """See that the classes lie neither a level deeper nor a level higher."""
        kinds = {read_name(one.name).words for one in classes}
        numbered = len(classes) > 1 and len(kinds) == 1 and () not in kinds  # fold1, fold2
        deep = [one for one in classes if not one.pictures]
        if numbered and not deep and read_name(classes[0].name).part:
            raise LayoutError(
                f"{self.root} can be read in two ways: {named(one.path for one in classes)} differ "
                "in their numbers, as the parts of one set do; put the images of each class in a "
                f"folder named after it, or take these for the classes with {self._keep()}"
            )
        self._refuse_classes_within_one(classes)
        if len(deep) == len(classes) == 1 and "" in self.found.splits:
            raise LayoutError(
                f"{self.root} holds one folder, and that holds the class folders; "
                f"did you mean {self.root / classes[0].path}?"
            )
        within = {one.path: _past_generic(one).with_images() for one in deep}
        inner = [one.name for folders in within.values() for one in folders]
        if not deep or all(read_name(name).generic or _is_year(name) for name in inner):
            return
        example = f"such as {deep[0].with_images()[0].path}: the outer one is the class"
        if len(deep) < len(classes):
            if any(len(folders) > 1 for folders in within.values()):
                self.found.notes.append(f"some class folders hold folders only, {example}")
            return
        counts = Counter(one_form(name) for name in inner if not _is_year(name))
        shared = sorted(name for name, count in counts.items() if count > 1)
        few = len(shared) >= len(classes)
        if (few or numbered) and len(classes) > 1 and 2 * len(shared) >= len(counts) > 0:
            raise LayoutError(
                f"{self.root} can be read in two ways: {named(one.path for one in classes)} hold "
                f"folders of the same names ({named(shared)}), so these may be the classes; did "
                f"you mean one of the outer folders, or {self._keep()} (the outer folders are "
                "the classes)?"
            )
        self.found.notes.append(f"class folders hold folders only, {example}")

    def _refuse_classes_within_one(self, classes: Sequence[Folder]) -> None:
        """cat/, dog/ and new/cat/, new/dog/: what was unpacked twice, or not yet moved."""
        pictured = {one_form(one.name) for one in classes if one.pictures}
        for one in classes:
            inner = [one_form(inner.name) for inner in one.with_images()]
            common = pictured.intersection(inner) - {one_form(one.name)}
            if not one.pictures and common and 2 * len(common) >= len(inner):
                self._refuse_class(
                    one, f"it holds folders of its neighbours' names ({named(inner)})"
                )


def split_alone(name: str) -> str:
    """The split that the name of a folder tells, where it tells no more; else ""."""
    reading = read_name(name)
    return "" if reading.rest else reading.split


def splits_beside(root: AnyPath) -> dict[str, str]:
    """Split -> the folder named for it beside a folder that is named for another one.

    What lies beside an address is not listed.
    """
    own = split_alone(root.name)
    if isinstance(root, ObjectPath) or not own or not os.access(root.parent, os.R_OK):
        return {}
    beside = ((split_alone(one.name), one) for one in sorted(root.parent.iterdir()))
    return {split: one.name for split, one in beside if split not in {"", own} and one.is_dir()}


def _named_for_train(folder: Folder) -> str:
    """The folder or archive that is named for train and is not it; "" if there is none."""
    names = [one.name for one in folder.folders if not read_name(one.name).side]
    names += _packed(folder)
    stems = ((name.partition(".")[0], name) for name in names)
    return next((name for stem, name in stems if read_name(stem).split == "train"), "")


def _classes_within(folder: Folder, trained: set[str] | None) -> Folder | None:
    """The folder that holds the class folders of a split; None where there are no class folders.

    A folder alone in its split is entered where it is no class: train/train/CLASS is how archives
    unpack.

    Args:
        folder: The folder of the split.
        trained: Names of the classes of train, where they are known.
    """
    while True:
        children = [one for one in folder.with_images() if not read_name(one.name).side]
        if not children:
            return None
        if len(children) > 1 or (trained and one_form(children[0].name) in trained):
            return folder
        (inner,) = children
        within = [one_form(one.name) for one in inner.with_images()]
        if trained:
            enter = not trained.isdisjoint(within)
        else:
            enter = len(within) > 1 and not inner.pictures
        if not enter and not read_name(inner.name).generic:
            return folder
        folder = inner


def _past_generic(folder: Folder) -> Folder:
    """The folder, or the one in it that is alone and whose name says nothing: CLASS/images/."""
    while not folder.pictures and len(inner := folder.with_images()) == 1:
        if not read_name(inner[0].name).generic:
            break
        folder = inner[0]
    return folder


def _pattern(base: Folder, splits: dict[str, Folder]) -> str:
    """The folders of the splits, such as images_{train, val}."""
    paths = {split: folder.path.removeprefix(_in(base)) for split, folder in splits.items()}
    before = {
        path.removesuffix(split) if path.endswith(split) else None for split, path in paths.items()
    }
    if len(before) == 1 and None not in before:
        return f"{before.pop()}{{{', '.join(paths)}}}"
    return f"{{{', '.join(paths.values())}}}"


def _are_splits(folders: Sequence[Folder]) -> str:
    return "is a split" if len(folders) == 1 else "are splits"


def _share_classes(splits: dict[str, Folder]) -> bool:
    """Whether several splits hold class folders of the same names, so that no doubt is left."""
    inner = [_classes_within(folder, None) for folder in splits.values()]
    names = [{one_form(one.name) for one in folder.with_images()} for folder in inner if folder]
    return len(names) > 1 and len(set.intersection(*names)) > 0


def _is_year(name: str) -> bool:
    return len(name) == 4 and name.isdecimal() and name[:2] in {"19", "20"}


def _nothing_found(folder: Folder, root: AnyPath) -> str:
    where = root / folder.path
    if folder.pictures:
        return (
            f"{where} holds {folder.pictures:,} images but no class folders; "
            "put the images of each class in a folder named after it"
        )
    return (
        f"{where} holds no images; expected CLASS/image.jpg or train/CLASS/image.jpg"
        f"{_unpack(folder)}"
    )


def _unpack(folder: Folder) -> str:
    packed = _packed(folder)
    return f"; unpack {named(packed)} first" if packed else ""


def _packed(folder: Folder) -> list[str]:
    return [name for name in folder.files if name.lower().endswith(_ARCHIVES)]
