"""The code in the documents: what a test runs, and what says that it is not run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?"
    r"(?:^```(?P<language>\S*)\n(?P<fenced>(?:.*\n)*?)```$"
    r"|(?<=\n\n)(?P<indented>(?: {4}.*\n|\n(?= {4}))+))",
    re.MULTILINE,
)
_INDENTATION = re.compile("^ {4}", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code.

    Attributes:
        place: The document and the line, as in docs/loader.md:3.
        language: What the fence says; `shell` of an indented block.
        text: The code, without fence or indentation.
        reason: Why no test runs it, in a comment above it that a reader does not see.
    """

    place: str
    language: str
    text: str
    reason: str

    @property
    def lines(self) -> list[str]:
        """The lines that hold code, without comments at their ends."""
        lines = (re.sub(r"(^|\s+)# .*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks_of(text: str, name: str = "") -> list[Block]:
    """The blocks of a document, from its top to its bottom."""
    return [
        Block(
            place=f"{name}:{text.count(chr(10), 0, found.start()) + 1}",
            language="shell" if found["indented"] else found["language"],
            text=found["fenced"] or _INDENTATION.sub("", found["indented"] or ""),
            reason=found["reason"] or "",
        )
        for found in _BLOCK.finditer(text)
    ]


def prose_of(text: str) -> str:
    """A document without its blocks."""
    return _BLOCK.sub("", text)


def text_of(path: Path | str) -> str:
    """What is in a file of the checkout."""
    return (ROOT / path).read_text(encoding="utf-8")


def check_extras(requirement: str) -> None:
    """See that `.[a,b]` names extras of this project."""
    facts = text_of("pyproject.toml").split("[project.optional-dependencies]")[1]
    for extra in re.findall(r"\w+", requirement):
        assert re.search(rf"^{extra} = ", facts, re.MULTILINE), extra


BLOCKS = [
    block
    for path in DOCUMENTS
    for block in blocks_of(text_of(path), path.relative_to(ROOT).as_posix())
]
