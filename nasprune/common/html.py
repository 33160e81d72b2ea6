"""Pieces of HTML for pages and notebooks. Every text is escaped; nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from nasprune.common.words import visible

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --soft: #59636e; --line: #d9dee3;
  --panel: #f5f7f9; --accent: #1f6feb; --kept: #1f6feb; --gone: #d5dce4; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e4e8ec; --soft: #9aa5b1; --line: #333a42;
  --panel: #1c2026; --accent: #6aa9ff; --kept: #6aa9ff; --gone: #39424c; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
p { margin: .5rem 0; max-width: 48rem; }
a { color: var(--accent); }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
code, pre { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  overflow-x: auto; }
.bar { display: inline-block; width: 9rem; height: .7rem; border-radius: 3px; background: var(--gone); overflow: hidden;
  vertical-align: middle; }
.bar > span { display: block; height: 100%; background: var(--kept); }
.big { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.big > div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem; }
.big b { display: block; font-size: 1.3rem; font-weight: 650; font-variant-numeric: tabular-nums; }
details > summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
.chart { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .75rem; margin: .75rem 0;
  overflow-x: auto; }
.chart > .vega-embed { display: block; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
li { max-width: 48rem; }
"""
NOTEBOOK = """
div.nasprune div.wide { max-height: 32em; overflow: auto; }
div.nasprune div.wide :is(td, th) { text-align: left; padding: .1em .9em .1em 0; white-space: nowrap; }
div.nasprune div.wide :is(td, th).number { text-align: right; }
.nasprune .bar { display: inline-block; width: 9rem; height: .7rem; border-radius: 3px; background: #88888855; }
.nasprune .bar > span { display: block; height: 100%; border-radius: 3px; background: #1f6feb; }
.nasprune summary { cursor: pointer; }
"""


def text(value: str) -> str:
    """A text as HTML, on one line, with control characters written out."""
    return escape(visible(value))


def code(value: str) -> str:
    """A name or a line of code."""
    return f"<code>{text(value)}</code>"


def prose(value: str) -> str:
    """A sentence, in which what stands between backticks is code."""
    parts = visible(value).split("`")
    if len(parts) % 2 == 0:  # a backtick without another one is none
        return escape(visible(value))
    return "".join(code(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def bar(share: float) -> str:
    """A share of one as a bar."""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar"><span style="width:{width:.1f}%"></span></span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table. head: texts; rows: pieces of HTML. numbers: columns that stand to the right."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if column in numbers else "" for column in range(len(cells))]
        return (
            "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"
        )

    body = "\n".join(row(cells, "td") for cells in rows)
    first = row([text(name) for name in head], "th")
    return f'<div class="wide"><table><thead>{first}</thead><tbody>{body}</tbody></table></div>'


def items(values: Iterable[str]) -> str:
    """A list. values: pieces of HTML."""
    return "<ul>" + "".join(f"<li>{value}</li>" for value in values) + "</ul>"


def folded(title: str, inner: str) -> str:
    """What is shown when its title is clicked."""
    return f"<details><summary>{text(title)}</summary>{inner}</details>"


def page(title: str, parts: Iterable[str], script: str = "") -> str:
    """A whole page that loads nothing. script: of its charts."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f"<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
    )


def in_notebook(parts: Iterable[str]) -> str:
    """Tables for a notebook, without a page around them and in the notebook's colours."""
    return f'<style>{NOTEBOOK}</style><div class="nasprune">{"".join(parts)}</div>'
