"""A graph drawn into a file, as `nasprune inspect --html` and `--dot` do."""

from __future__ import annotations

from pathlib import Path

from nasprune.common.arguments import path as as_path
from nasprune.common.files import write_all
from nasprune.errors import InputError
from nasprune.graph.drawing import dot, page
from nasprune.graph.model import ModelGraph


def draw(graph: ModelGraph, path: str | Path, *, title: str = "model") -> Path:
    """Writes the groups and operations of a graph as a page (`.html`) or for Graphviz (`.dot`); returns the path.

    Args:
        graph: as `nasprune.trace` gives it. title: of the page.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    found = as_path("path", path, "write for example path='graph.html'")
    if found.suffix not in (".html", ".dot"):
        raise InputError(f"the picture must have a name ending with .html or .dot, got {str(found)!r}; rename it")
    drawn = page(graph, title) if found.suffix == ".html" else dot(graph)
    write_all(found.parent, {found.name: drawn.encode(errors="backslashreplace")})
    return found
