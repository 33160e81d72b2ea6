"""What the docs site does beside Markdown: the README is its first page, and diagrams are drawn without a script.

The diagrams are Mermaid flow charts of one line each, `a["words"] --> b["words"]`, which code hosts draw; here they
become a list of boxes, since the library that draws Mermaid would have to be fetched.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

LICENCE = "LICENSE"
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
BOX = re.compile(r'(\w+)\["([^"]+)"\]')
LINK = re.compile(r"(?:\[docs/(\w+)\.md)?\]\(docs/([\w/.#-]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The README becomes `index.md`; its links into `docs/` become links of the site."""
    text = (Path(config.config_file_path).parent / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=LINK.sub(_of_the_site, text)))
    return files


def _of_the_site(link: re.Match[str]) -> str:
    """A link from the README; where its words are the path of a page, they become the page's name."""
    return f"{f'[{link[1]}' if link[1] else ''}]({link[2]})"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Diagrams as lists."""
    return DIAGRAM.sub(lambda found: _boxes(found[1]), markdown)


def _boxes(diagram: str) -> str:
    """One box below the other, in the order of the arrows."""
    words = dict(BOX.findall(diagram))
    arrows = [line.strip() for line in diagram.splitlines() if "-->" in line]
    order = [re.match(r"\w+", arrows[0])[0]] if arrows else []  # type: ignore[index]
    for arrow in arrows:
        start, end = (re.match(r"\w+", part.strip())[0] for part in arrow.split("-->"))  # type: ignore[index]
        if start != order[-1]:
            raise PluginError(f"a diagram is drawn as one line of boxes, but {start!r} does not follow {order[-1]!r}")
        order.append(end)
    items = "".join(f"<li>{_box(words[name])}</li>" for name in order)
    return f'<ol class="way">{items}</ol>\n'


def _box(words: str) -> str:
    """What stands before the colon is a file."""
    file, colon, rest = words.partition(": ")
    return f"<code>{escape(file)}</code><span>{escape(rest)}</span>" if colon else f"<span>{escape(words)}</span>"
