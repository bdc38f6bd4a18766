"""What the README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from tests.pictures import write_tree
from tests.shards import flat_picture

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    pictures = (flat_picture(number, number % 3) for number in range(256))
    files = {f"data/train/{p.label}/{n}.jpg": p.jpeg for n, p in enumerate(pictures)}
    write_tree(tmp_path, files)  # a plain folder
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(program, names)
    images = names["images"]
    assert isinstance(images, torch.Tensor)
    assert images.shape == (128, 3, 224, 224)
    assert images.dtype == torch.float16
    state = torch.load("loader.pt", weights_only=True)
    assert (state["epoch"], state["position"]) == (30, 0)


def headings_of(document: Path) -> set[str]:
    """The names by which links reach the headings of a document, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_the_documents_leads_somewhere():
    links = 0
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, heading in re.findall(
            r"\]\(([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")
        ):
            links += 1
            if not target.startswith("http"):
                place = document.parent / target if target else document
                assert place.exists(), (document.name, target)
                assert not heading or heading in headings_of(place), (document.name, heading)
    assert links > 10
