"""Options of the kinds that parameters declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import numpy as np
import pytest

from nasprune.common.declared import check_declared, fits, in_words
from nasprune.errors import InputError

if TYPE_CHECKING:
    from nowhere import Unknown


class Own:
    """Annotations are texts here, and one names what is not there when it runs."""

    def __init__(self, task: Unknown, *, times: int = 3, form: Literal["a", "b"] = "a", rate=0.1) -> None: ...


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -3, np.int64(3)], [True, 2.0, "2", None, [1]]),
        (float, [0, 2.5, np.float32(1)], [False, "2", None]),
        (bool, [True, False], [0, 1, "True"]),
        (str, ["", "a"], [1, None, ["a"]]),
        (int | None, [None, 3], ["None", 1.5]),
        (Optional[float], [None, 3], ["x", True]),  # noqa: UP045
        (Union[int, str], [1, "x"], [1.5, None]),  # noqa: UP007
        (Literal["a", 1], ["a", 1], ["b", True, 1.0, ["a"]]),
        (list[int], [[], [1], (1, 2)], [["a"], 1, "12", [True]]),
        (tuple[int, str], [(1, "a"), [1, "a"]], [(1,), ("a", 1), 1]),
        (tuple[float, ...], [(), (1, 2.5)], ["1", (None,)]),
        (Sequence[str], [["a"], "a", ()], [["a", 1], 3]),
        (int | str | Iterable[int | str], [8, "8", ["a=8", 4]], [8.5, [None]]),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "b"}, [("a", 1)], {1: 1}]),
        (list, [[1, "a"]], [3, "a"]),
        (Any, [object(), 3], []),
        (np.dtype, [3, "float32"], []),
    ],
)
def test_a_value_is_of_its_kind_or_not(hint, good, bad):
    assert all(fits(value, hint) for value in good)
    assert not any(fits(value, hint) for value in bad)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "True or False"),
        (int | float | None, "a whole number or a number or None"),
        (Literal["a", 1], "'a' or 1"),
        (tuple[int, int], "a list of 2"),
        (Iterable[int | str], "a list, each item a whole number or a text"),
        (Sequence[np.dtype], "a list"),
        (dict[str, int], "a dict"),
    ],
)
def test_a_kind_in_words(hint, words):
    assert in_words(hint) == words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": "x"}, r"`own` option `times` must be a whole number, got the str 'x'; write .* own\(times=3\)"),
        ({"form": "c"}, r"`form` must be 'a' or 'b', got the str 'c'; write for example own\(form=a\)"),
    ],
)
def test_an_option_of_another_kind_is_named_with_what_was_expected(options, message):
    with pytest.raises(InputError, match=message):
        check_declared("own", Own, options)


def test_what_declares_nothing_or_something_unknown_takes_everything():
    check_declared("own", Own, {"task": 3, "rate": "fast", "times": 4})
