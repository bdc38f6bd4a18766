"""Tars -> the images in them, entered in place: `find_in_tars`.

    members ─▶ samples of webdataset: KEY.jpg with KEY.cls, or with a label in KEY.json
            ─▶ or class folders, as `layout` finds them: in the tars, or the tars themselves

Samples are grouped as webdataset groups them: the key of a member is its name up to the first dot
behind the last "/". What webdataset would take for two samples, since the members of one do not lie
side by side, is joined where each has what the other lacks.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastload.console.terminal import counted, printable
from fastload.errors import LayoutError
from fastload.prepare.found import Classes, Found, Image, Oddity
from fastload.prepare.labels import LABEL_FIELDS, choose_field, label_text, take_labels
from fastload.prepare.layout import LayoutOptions, named
from fastload.prepare.naming import split_of_path, splits_of_paths
from fastload.prepare.reasons import Reason
from fastload.prepare.tar_folders import Packed, find_in_packed_folders
from fastload.prepare.tar_members import Member, TarFile, is_header
from fastload.prepare.tar_streams import open_tars
from fastload.prepare.tree import Exclusions, is_litter, looks_like_picture
from fastload.store.object_paths import AnyPath
from fastload.store.tar import TAR_BLOCK

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)  # webdataset's base_plus_ext
_META = re.compile(r"__[^/]*__(?:$|/)")  # what webdataset keeps for itself
_MOST_LABEL_BYTES = 1 << 20  # of a member that holds a label; JSON may hold a long caption


class _Part(NamedTuple):
    """One member of a sample; `ending` is the name behind the first dot, in lower case."""

    name: str
    offset: int
    size: int
    ending: str


@dataclass(slots=True)
class _Listing:
    """What one tar holds."""

    path: str  # relative to the root
    modified_ns: int = 0
    samples: list[tuple[_Part, str]] = field(default_factory=list)  # with labels
    others: list[_Part] = field(default_factory=list)  # without
    passed_over: Counter[str] = field(default_factory=Counter)  # endings of second pictures
    keys: set[str] = field(default_factory=set)  # of the JSON in which no label was found


def find_in_tars(
    paths: Sequence[str], *, root: AnyPath, options: LayoutOptions, exclusions: Exclusions
) -> Found:
    """Find the labelled images in tars.

    Args:
        paths: The tars, relative to the root.
        root: The folder that they lie in.
        options: How to understand them.
        exclusions: What is passed over, among the members too.

    Raises:
        LayoutError: If a file is no tar or is damaged, if there are no labels, or if there are two
            readings.
        OSError: If a file cannot be read.
    """
    found = Found(
        root=root,
        layout="",
        images=[],
        places={},
        classes=Classes(classes=(), class_names=(), numbers={}),
    )
    reader = _Reader(found, options, exclusions)
    ordered = sorted(paths)
    with closing(open_tars([root / path for path in ordered])) as tars:  # type: ignore[type-var]  # a generator
        listings = [reader.list_tar(*one) for one in zip(ordered, tars, strict=True)]
    exclusions.refuse_unused()
    labelled = [one for one in listings if one.samples]
    if not labelled:
        reader.refuse_unlabelled(listings)
        packed = [
            Packed(one.path, one.modified_ns, [part[:3] for part in one.others]) for one in listings
        ]
        return find_in_packed_folders(packed, found, options)
    _pass_over_unlabelled(listings, found, reader.label_field)
    return _found_samples(labelled, found, reader.label_field)


def _pass_over_unlabelled(listings: Sequence[_Listing], found: Found, label_field: str) -> None:
    """Note that the tars of test have no labels.

    Raises:
        LayoutError: If other tars have none, or only some of test.
    """
    labelled = [one.path for one in listings if one.samples]
    without = {
        one.path: len(_pictures(one.others))
        for one in listings
        if not one.samples and _pictures(one.others)
    }
    if {*map(split_of_path, without)} - {"test"} or (
        without and "test" in map(split_of_path, labelled)
    ):
        raise LayoutError(
            f"{labelled[0]} in {found.root} has labels beside its images ({label_field}), "
            f"and {named(without)} has none; name only the tars that belong together"
        )
    if without:
        images = counted(sum(without.values()), "image")
        found.notes.append(f"passed over, no labels: {named(without)} ({images})")


def _found_samples(listings: Sequence[_Listing], found: Found, label_field: str) -> Found:
    """The samples of webdataset tars."""
    root = found.root
    splits = splits_of_paths([one.path for one in listings], root)
    for split in dict.fromkeys(splits.values()):
        paths = [path for path, its in splits.items() if its == split]
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        found.places[split] = paths[0] + more
    for one in listings:
        times = Counter(part.name for part, _ in one.samples)
        for part, label in one.samples:
            again = f"@{part.offset}" if times[part.name] > 1 else ""
            found.images.append(
                Image(
                    *(f"{one.path}{again}/{part.name}", splits[one.path], label, part.size),
                    *(one.modified_ns, one.path, part.offset),
                )
            )
        one.samples.clear()
        found.oddities += [
            Oddity(f"{one.path}/{part.name}", Reason.NO_CLASS, "has no label beside it in the tar")
            for part in _pictures(one.others)
        ]
    passed_over = sum((one.passed_over for one in listings), Counter())
    if passed_over:
        kinds = named(f"{count:,} .{ending}" for ending, count in passed_over.items())
        found.notes.append(f"passed over, beside the image of a sample: {kinds}")
    found.layout = f"samples in {counted(len(listings), 'tar')}, labels in {label_field}"
    folders = dict.fromkeys((root / one.path).parent for one in listings)
    return take_labels(found, folders=[*folders, root])


def _pictures(parts: Sequence[_Part]) -> list[_Part]:
    return [part for part in parts if looks_like_picture(part.name)]


class _Reader:
    """Lists tars one by one; the first label that is found decides where labels are.

    Attributes:
        label_field: Where labels were found, in words; "" before the first.
    """

    def __init__(self, found: Found, options: LayoutOptions, exclusions: Exclusions) -> None:
        self.found = found
        self.options = options
        self.exclusions = exclusions
        self.label_field = ""
        self._member = self._json_field = ""  # where the labels are
        self._labels: dict[str, str] = {}  # one text for each class

    def list_tar(self, path: str, tar: TarFile) -> _Listing:
        """The samples of a tar, with their labels, and its other members."""
        listing = _Listing(path, tar.status.st_mtime_ns)
        waiting: dict[str, dict[str, _Part]] = {}  # samples that lack an image or a label
        parts: dict[str, _Part] = {}
        key = ""
        for part in self._parts_of(tar, path):
            split = _KEY.fullmatch(part.name)
            if split is None:
                listing.others.append(part)
                continue
            if split[1] != key or part.ending in parts:
                self._finish(tar, listing, key, parts, waiting)
                key, parts = split[1], {}
            parts[part.ending] = part
        self._finish(tar, listing, key, parts, waiting)
        listing.others += [part for parts in waiting.values() for part in parts.values()]
        listing.others.sort(key=lambda part: part.offset)
        self.found.notes += tar.notes
        return listing

    def _parts_of(self, tar: TarFile, path: str) -> Iterator[_Part]:
        """The regular members that count; others become oddities."""
        links: dict[str, Member] = {}
        exclusive = bool(self.options.exclude)
        for member in self._members_of(tar):
            name = member.name.removeprefix("./").lstrip("/")
            folder, _, last = name.rpartition("/")
            what, steps = member.kind, folder.split("/") if folder else []
            if ".." in steps or last == "..":
                what = "a member whose name leads out of the tar"
            elif is_litter(last) or any(map(is_litter, steps)) or _META.match(name):
                continue
            if exclusive and self.exclusions.match_within(f"{path}/{name}"):
                continue
            if member.link and member.kind == what:
                links[name] = member
            elif what:
                self.found.oddities.append(Oddity(f"{path}/{name}", Reason.NOT_FILE, what))
            else:
                _, _, ending = last.partition(".")
                yield _Part(name, member.offset, member.size, ending.lower())
        if links:
            yield from self._linked(tar, path, links)

    def _members_of(self, tar: TarFile) -> Iterator[Member]:
        """The members, and in the place of a tar among them its own members."""
        for member in tar.members():
            inner = member.name[-4:].lower() == ".tar" and not member.kind
            if inner and is_header(tar.read(member.offset, min(member.size, TAR_BLOCK))):
                yield from tar.within(member)
            else:
                yield member

    def _linked(self, tar: TarFile, path: str, links: dict[str, Member]) -> Iterator[_Part]:
        """What hard links stand for: tar stores the second name of a file so."""
        wanted = {member.link for member in links.values()}
        there = {one.name: one for one in self._members_of(tar) if one.name in wanted}
        for name, member in links.items():
            target = there.get(member.link)
            if target is None or target.kind:
                detail = f"a hard link to {printable(member.link)}, which is no file of the tar"
                self.found.oddities.append(Oddity(f"{path}/{name}", Reason.NOT_FILE, detail))
                continue
            _, _, ending = name.rpartition("/")[2].partition(".")
            yield _Part(name, target.offset, target.size, ending.lower())

    def _finish(
        self,
        tar: TarFile,
        listing: _Listing,
        key: str,
        parts: dict[str, _Part],
        waiting: dict[str, dict[str, _Part]],
    ) -> None:
        """Take a sample, where it has an image and a label; else keep it for what may follow."""
        before = waiting.get(key)
        if before and not before.keys() & parts.keys():
            parts = before | parts
            del waiting[key]
        elif before:
            listing.others += before.values()
            del waiting[key]
        pairs = self._pairs_in(tar, listing, parts)
        if pairs:
            listing.samples += pairs
        elif parts:
            waiting[key] = parts

    def _pairs_in(
        self, tar: TarFile, listing: _Listing, parts: dict[str, _Part]
    ) -> list[tuple[_Part, str]]:
        """The images of a sample with their labels."""
        images = [part for part in parts.values() if looks_like_picture(part.name)]
        if self.options.image_field:
            chosen = self.options.image_field.lower()
            images = [part for part in images if part.ending == chosen]
        if not images or len(parts) == 1:
            return []
        pairs = []
        for image in images:  # IMG_1.2.jpg has its label in IMG_1.2.cls
            stem = image.ending.rpartition(".")[0]
            own = parts
            if stem:
                ends = {ending: part for ending, part in parts.items() if ending.startswith(stem)}
                own = {ending.removeprefix(f"{stem}."): part for ending, part in ends.items()}
            if label := self._label_in(tar, listing, own):
                pairs.append((image, label))
        if not pairs and len(images) == 1 and (label := self._label_in(tar, listing, parts)):
            pairs = [(images[0], label)]
        if not pairs and len(images) > 1 and self._label_in(tar, listing, parts):
            self._refuse_many(listing, images)
        taken = [image for image, _ in pairs]
        if len(taken) > 1 and len({image.ending.rpartition(".")[0] for image in taken}) == 1:
            self._refuse_many(listing, taken)
        if taken:
            listing.passed_over.update(one.ending for one in images if one not in taken)
        return pairs

    def _refuse_many(self, listing: _Listing, images: Sequence[_Part]) -> None:
        raise LayoutError(
            f"{listing.path} in {self.found.root} has several images for one label: "
            f"{named(printable(image.name) for image in images)}; say which to take with "
            f"--image-field {images[0].ending}"
        )

    def _label_in(self, tar: TarFile, listing: _Listing, parts: dict[str, _Part]) -> str:
        """The label of a sample; "" where it has none.

        The first label that is found decides which member, or field of JSON, holds all labels.
        """
        if not self._member:
            given = self.options.label_field
            member = given.lower() if given else "cls"
            if member in parts:
                self._member, self.label_field = member, f".{member}"
            elif "json" in parts:
                facts = self._json_in(tar, listing, parts["json"])
                fields = [key for key in facts if isinstance(key, str)]
                given = given if given in facts else ""
                chosen = (
                    ""
                    if self.options.label_field and not given
                    else choose_field(fields, given, LABEL_FIELDS, "", "--label-field")
                )
                if not chosen:
                    listing.keys.update(fields)
                    return ""
                self._member, self._json_field = "json", chosen
                self.label_field = f'"{chosen}" of .json'
        part = parts.get(self._member)
        if part is None:
            return ""
        if self._json_field:
            value = self._json_in(tar, listing, part).get(self._json_field)
            return self._checked(listing, part, value)
        return self._checked(listing, part, self._content(tar, listing, part))

    def _content(self, tar: TarFile, listing: _Listing, part: _Part) -> bytes:
        if part.size > _MOST_LABEL_BYTES:
            raise LayoutError(
                f"{self.found.root / listing.path}: {printable(part.name)} has {part.size:,} "
                "bytes, too many for a label"
            )
        return tar.read(part.offset, part.size)

    def _json_in(self, tar: TarFile, listing: _Listing, part: _Part) -> dict[str, Any]:
        try:
            facts = json.loads(self._content(tar, listing, part))
        except (ValueError, RecursionError) as error:
            raise LayoutError(
                f"{self.found.root / listing.path}: {printable(part.name)} is not JSON ({error})"
            ) from error
        return facts if isinstance(facts, dict) else {"label": facts}

    def _checked(self, listing: _Listing, part: _Part, value: object) -> str:
        try:
            label = label_text(value)
        except ValueError as error:
            raise LayoutError(
                f"{self.found.root / listing.path}: {printable(part.name)} holds {error}; expected "
                "an integer or a name; --label-field chooses another field"
            ) from error
        if "\n" in label:
            raise LayoutError(
                f"{self.found.root / listing.path}: {printable(part.name)} holds several lines; "
                "expected an integer or a name"
            )
        return self._labels.setdefault(label, label)

    def refuse_unlabelled(self, listings: Sequence[_Listing]) -> None:
        """Refuse samples with something beside each image that is no label."""
        for one in listings:
            endings = Counter(part.ending for part in one.others)
            beside = [
                ending
                for ending, count in endings.items()
                if not looks_like_picture(f"x.{ending}") and count > 1
            ]
            pictures = _pictures(one.others)
            folders = {part.name.rpartition("/")[0] for part in pictures}
            asked = self.options.label_field or self.options.image_field
            if asked or (pictures and beside and len(folders) == 1):
                given = self.options.label_field
                wanted = f"no label in {given}" if given else "no label: no .cls beside an image"
                found = f"found {named(f'.{ending}' for ending in endings)}"
                keys = f", and in .json {named(sorted(one.keys))}" if one.keys else ""
                raise LayoutError(
                    f"{one.path} in {self.found.root} has {wanted}, {found}{keys}; name the member "
                    "of a sample, or the field of its JSON, that holds the class with --label-field"
                )
