"""What a cleaning report tells, as parts of a page: by reason, and copies side by side.

Copies are those that went, and those that stayed: a class that has a photograph three times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fastload.console.page import Picture, card, escaped, place
from fastload.console.terminal import counted, printable
from fastload.prepare.duplicates import COPY_OF
from fastload.prepare.reasons import Reason
from fastload.prepare.report import REPEAT, Row
from fastload.prepare.thumbnails import draw_thumbnails

MOST_REASONS = 60  # on a page: more than there are, as a report may be of another version
MOST_OF_A_REASON = 24  # files on a page; the report has them all
MOST_GROUPS, MOST_COPIES = 40, 6
# Reasons for which a file is not opened once more: it is not there, or harmed its decoder.
_LEFT_ALONE = {
    *(Reason.EMPTY, Reason.NOT_IMAGE, Reason.BOMB, Reason.LARGE, Reason.CRASH, Reason.SLOW),
    *(Reason.MEMORY, Reason.UNREADABLE, Reason.NOT_FILE),
}
_COPIES = {Reason.TWO_CLASSES.slug, Reason.TWO_SPLITS.slug}


def aside_parts(rows: Iterable[Row], root: Path | None) -> list[str]:
    """The parts of a page, as HTML; none where nothing was set aside.

    Args:
        rows: Of the report.
        root: The folder that their paths are relative to; None where it is not known.
    """
    dropped = [row for row in rows if row.action != "stored"]
    if not dropped:
        return []
    shown: dict[str, list[Row]] = {}
    counts: dict[str, int] = {}
    for row in dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
        if row.reason not in _COPIES and counts[row.reason] <= MOST_OF_A_REASON:
            shown.setdefault(row.reason, []).append(row)
    groups = _groups([row for row in dropped if row.reason in _COPIES])
    pictured = [row.path for some in shown.values() for row in some if not _left_alone(row.reason)]
    pictured += [path for group in groups[:MOST_GROUPS] for path in list(group)[:MOST_COPIES]]
    jpegs = {} if root is None else draw_thumbnails(root, dict.fromkeys(pictured))
    ordered = sorted(shown, key=lambda slug: -counts[slug])
    parts = [
        _reason(slug, shown[slug], counts[slug], jpegs, is_open=number < 3)
        for number, slug in enumerate(ordered[:MOST_REASONS])
    ]
    if len(ordered) > MOST_REASONS:
        more = counted(len(ordered) - MOST_REASONS, "more reason")
        parts.append(f"<p>{more}; cleaning.csv has them all.</p>")
    if groups:
        title = "stand in several classes or splits"
        parts.append(_copies(title, groups, jpegs))
    return parts


def repeat_parts(rows: Iterable[Row], root: Path | None) -> list[str]:
    """The images that one class of a split has several times, as HTML; none where there are none.

    Args:
        rows: Of the report.
        root: See `aside_parts`.
    """
    groups = sorted(_groups([row for row in rows if row.reason == REPEAT]), key=len, reverse=True)
    pictured = [path for group in groups[:MOST_GROUPS] for path in list(group)[:MOST_COPIES]]
    jpegs = {} if root is None else draw_thumbnails(root, pictured)
    title = "stand several times in one class of a split"
    return [_copies(title, groups, jpegs)] if groups else []


def _left_alone(slug: str) -> bool:
    with suppress(ValueError):
        return Reason(slug) in _LEFT_ALONE
    return True


def _words(slug: str) -> str:
    """What a reason means; the slug itself where a report has one that is unknown."""
    with suppress(ValueError):
        return Reason(slug).words
    return slug


def _reason(
    slug: str, rows: Sequence[Row], count: int, jpegs: Mapping[str, bytes], *, is_open: bool
) -> str:
    cards = "".join(
        _card(row.path, jpegs, row.detail if row.detail != _words(slug) else "", row.action)
        for row in rows
    )
    more = f"<p>The first {len(rows):,}; cleaning.csv has them all.</p>" * (count > len(rows))
    return (
        f"<details{' open' * is_open}><summary><b>{escaped(_shortened(_words(slug)))}</b>"
        f" ({escaped(_shortened(slug))}): {counted(count, 'file')}</summary>{more}"
        f'<div class="cards">{cards}</div></details>'
    )


def _card(path: str, jpegs: Mapping[str, bytes], detail: str, action: str) -> str:
    lines = [place(_shortened(path))] * (path in jpegs)
    lines += [escaped(_shortened(detail))] * bool(detail)
    lines += [escaped(_shortened(action))] * (action != "set aside")
    return card(Picture(jpeg=jpegs.get(path), place=_shortened(path)), lines)


def _shortened(text: str) -> str:
    """A text of a bounded length: names of files may have thousands of letters."""
    return text if len(text) <= 300 else f"{text[:200]}…{text[-90:]}"


def _groups(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Copies of one picture: path -> what became of it, group by group."""
    raw = {printable(row.path): row.path for row in rows}
    actions = {row.path: row.action for row in rows if row.action != "stored"}
    group_of: dict[str, list[str]] = {}
    for row in rows:
        said = row.detail.removeprefix(COPY_OF)
        other = raw.get(said, said)
        mine = group_of.setdefault(row.path, [row.path])
        theirs = group_of.setdefault(other, [other])
        if mine is not theirs:
            large, small = (mine, theirs) if len(mine) >= len(theirs) else (theirs, mine)
            large += small
            group_of |= dict.fromkeys(small, large)
    groups = {id(group): group for group in group_of.values()}.values()
    return [{path: actions.get(path, "stays") for path in sorted(group)} for group in groups]


def _copies(title: str, groups: Sequence[Mapping[str, str]], jpegs: Mapping[str, bytes]) -> str:
    count = sum(len(group) for group in groups)
    found = f"{counted(len(groups), 'picture')} in {counted(count, 'file')}, side by side"
    lines = [f"<details open><summary><b>{title}</b>: {found}</summary>"]
    if len(groups) > MOST_GROUPS:
        lines.append(f"<p>{counted(MOST_GROUPS, 'picture')} shown; cleaning.csv names all.</p>")
    for group in groups[:MOST_GROUPS]:
        shown = list(group.items())[:MOST_COPIES]
        cards = "".join(_card(path, jpegs, what, "set aside") for path, what in shown)
        more = len(group) - len(shown)
        cards += f"<p>and {counted(more, 'copy')}</p>" * bool(more)
        lines.append(f'<div class="copies cards">{cards}</div>')
    return "".join([*lines, "</details>"])
