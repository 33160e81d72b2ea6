"""`nasprune.progress`: the progress of a search in a notebook or a script, as the command line shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nasprune.cli.screen import SearchScreen


@contextmanager
def progress(time_limit: float | None = None) -> Iterator[Mapping[str, Callable[[Any], None]]]:
    """A bar while the context lasts, and the arguments of `nasprune.search` that move it.

        with nasprune.progress() as shown:
            result = nasprune.search(model, images, "50%", **shown)

    In a notebook the bar needs `ipywidgets`, as all of rich does there; without, and where there is neither notebook
    nor terminal, a line is printed every five seconds.

    Args:
        time_limit: that the search is given, for the time that is left.
    """
    with SearchScreen(time_limit).shown() as screen:
        yield {"on_progress": screen, "on_phase": screen.phase, "on_polish": screen.polishing}
