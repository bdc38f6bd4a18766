"""The look of every page: one style sheet, with colours for light and for dark."""

from __future__ import annotations

COLOURS = {
    "page": ("#fcfcfb", "#15181c"),
    "ink": ("#1c1f24", "#e8eaed"),
    "soft": ("#5d6570", "#9aa3ae"),
    "rule": ("#e3e5e8", "#2c3138"),
    "mark": ("#eef4fb", "#1b2836"),
    "fill": ("#d3e5f5", "#24435f"),
    "accent": ("#1f6fb8", "#58a6ee"),
    "peer": ("#aab3bf", "#5f6975"),
    "floor": ("#dcdfe4", "#3a414a"),
    "guide": ("#c2410c", "#f59e6b"),
    # Okabe and Ito's colours, told apart by people with any colour vision; lighter ones for dark.
    "first": ("#0072b2", "#56b4e9"),
    "second": ("#d55e00", "#ff9248"),
    "third": ("#009e73", "#3ccfa4"),
    "fourth": ("#cc79a7", "#e29fc4"),
}
"""Name of a variable of the style sheet -> its colour in light, and in dark."""


def in_variables(drawing: str) -> str:
    """A drawing in the light colours, as one that is light or dark as the page is."""
    for name, (light, _) in COLOURS.items():
        drawing = drawing.replace(light, f"var(--{name})")
    return drawing


def _variables(dark: bool) -> str:
    return " ".join(f"--{name}: {shades[dark]};" for name, shades in COLOURS.items())


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(False)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(True)} }} }}
body {{ margin: 0 auto; max-width: 980px; padding: 1.5rem 1rem 4rem; background: var(--page);
       color: var(--ink); overflow-wrap: anywhere;
       font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif }}
h1 {{ font-size: 1.6em; margin: 0 0 .3em }} h2 {{ font-size: 1.2em; margin: 2.2em 0 .4em }}
p {{ max-width: 46rem; margin: .4em 0 .8em }} a {{ color: var(--accent) }}
table {{ border-collapse: collapse; margin: .6em 0; font-variant-numeric: tabular-nums }}
td, th {{ padding: .2em min(.6em, 1.4vw); text-align: left; border-bottom: 1px solid var(--rule);
       vertical-align: top; overflow-wrap: normal }}
th {{ color: var(--soft); font-weight: 600 }}
@media (max-width: 30rem) {{ table {{ font-size: .92em }} }}
td.n, th.n {{ text-align: right }} td.n {{ white-space: nowrap }}
td bdi {{ display: inline-block; min-width: 7em; overflow-wrap: anywhere }}
h1, p, summary, figcaption, .place, .pair > div {{ overflow: clip; overflow-clip-margin: 4px }}
tr.ours td {{ background: var(--mark) }}
.pair {{ display: flex; flex-wrap: wrap; gap: .3em 1.5em; padding: .6em 0;
       border-bottom: 1px solid var(--rule) }} .pair > div {{ width: 23em; max-width: 100% }}
.wide {{ max-width: 100%; overflow-x: auto }}
.facts td {{ overflow-wrap: anywhere }}
.cards {{ display: flex; flex-wrap: wrap; gap: .2em .8em }}
figure {{ display: inline-block; margin: .5em 1em .5em 0; max-width: 100%; vertical-align: top }}
figure.chart {{ display: block; margin-right: 0 }}
figure.card {{ width: 10.5em; margin-right: .7em }} .cards figure.card {{ margin-right: 0 }}
figure.card img {{ height: 7rem; object-fit: scale-down; object-position: left bottom }}
div.copies figure.card img {{ height: auto }}
figcaption {{ font-size: .9em; color: var(--soft) }}
figcaption:first-child {{ font-weight: 600; color: var(--ink) }}
.place {{ font-size: .8rem; color: var(--soft) }}
.share {{ border-radius: 2px; background: linear-gradient(var(--fill), var(--fill)) no-repeat;
       background-size: var(--share) 100% }}
div.share {{ color: var(--ink); padding: 0 .25em; margin-bottom: 1px }}
svg {{ max-width: 100%; height: auto }} figure.chart svg {{ width: 100%; min-width: 600px }}
svg text {{ font-family: inherit !important }}
img {{ max-width: 100%; height: auto; border-radius: 3px; vertical-align: top;
       margin: 0 .2em .2em 0 }}
.bar {{ display: inline-block; height: .7em; background: var(--first); border-radius: 2px }}
details {{ border-bottom: 1px solid var(--rule); padding: .2em 0 }}
details > img {{ max-width: calc(33.3% - .2em) }}
summary {{ cursor: pointer }} summary:focus-visible, a:focus-visible, .wide:focus-visible {{
       outline: 2px solid var(--accent); outline-offset: 2px }}
.plot {{ display: grid; grid-template-columns: 4em 1fr; margin: .6em 0 1.2em; max-width: 46rem;
       font-size: .8em; color: var(--soft) }}
.plot svg {{ width: 100%; height: 11em; border-bottom: 1px solid var(--rule); display: block }}
.plot .beside {{ position: relative }}
.plot .beside span {{ position: absolute; right: .5em; transform: translateY(50%); line-height: 1 }}
.plot .below {{ grid-column: 2; display: flex; justify-content: space-between }}
.bars {{ fill: var(--first) }}
.guide, .halo {{ fill: none; stroke-width: 2; vector-effect: non-scaling-stroke }}
.guide {{ stroke: var(--guide); stroke-dasharray: 6 4 }}
.halo {{ stroke: var(--page); stroke-width: 4 }}
.plots {{ display: grid; gap: 0 1.5em; grid-template-columns: repeat(auto-fit, minmax(17em, 1fr)) }}
.copies {{ border-left: 3px solid var(--rule); padding-left: .7em; margin: .6em 0 }}
code {{ font-size: .9em }} pre {{ overflow-x: auto }}
@media print {{ body {{ max-width: none; padding: 0 }} .wide {{ overflow: visible }}
       figure, img, tr, .pair, .copies, .plot {{ break-inside: avoid }}
       h2, h3, summary {{ break-after: avoid }}
       .share, .bar, .bars, tr.ours td {{ print-color-adjust: exact }} }}
"""
