"""Values out of JSON that anybody may have written: whatever is wrong is one sentence with the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

from nasprune.common.fields import Source, parse, shown
from nasprune.common.records import record_of
from nasprune.common.seals import digest_of, sealed, unsealed
from nasprune.errors import InputError, PlanError

SOURCE = Source("'some.json'", "a list of things", "write it again")


@dataclass(frozen=True)
class Inner:
    count: int
    share: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    many: tuple[Inner, ...]
    words: Mapping[str, str]
    which: Literal["a", "b"] = "a"
    maybe: float | None = None
    flags: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise InputError("no such name")


WHOLE = Outer("x", Inner(3, 0.5), (Inner(0, 1.0),), {"k": "v"}, "b", 1.5, {"f": True})


def changed(**values: object) -> str:
    return json.dumps({**asdict(WHOLE), **values})


def test_a_record_comes_back_by_its_annotations():
    assert record_of(Outer, parse(changed(), SOURCE)) == WHOLE
    short = {name: value for name, value in asdict(WHOLE).items() if name in ("name", "inner", "many", "words")}
    assert record_of(Outer, parse(json.dumps(short), SOURCE)).maybe is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 5000, "a number of 5,000 digits"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ("[]", "the whole: expected a mapping"),
        ("{}", "`name` is not there"),
        (changed(more=1), "`more` is not known"),
        (changed(**{"\x1b[2J": 1}), r"`'\\x1b\[2J'` is not known"),
        (changed(name=3), "`name`: expected text"),
        (changed(name="x" * 20_000), "`name`: expected text of at most"),
        (changed(inner={"count": 1.0, "share": 1}), r"`inner\.count`: expected a whole number .*, got 1\.0"),
        (changed(inner={"count": True, "share": 1}), r"`inner\.count`: .* got True"),
        (changed(inner={"count": -1, "share": 1}), r"`inner\.count`: expected a whole number from 0"),
        (changed(inner={"count": 10**30, "share": 1}), r"`inner\.count`: expected a whole number"),
        (changed(inner={"count": 1, "share": float("nan")}), r"`inner\.share`: expected a finite number, got nan"),
        (changed(inner={"count": 1, "share": None}), r"`inner\.share`: expected a finite number, got None"),
        (changed(many=[{"count": 1}]), r"`many\[0\]\.share` is not there"),
        (changed(many={"0": 1}), "`many`: expected a list"),
        (changed(words={"k": ["v"]}), r"`words\.k`: expected text"),
        (changed(which="c"), "`which`: expected one of a, b, got 'c'"),
        (changed(flags={"f": 1}), r"`flags\.f`: expected true or false"),
        (changed(name="refused"), "no such name"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(InputError, match=message) as caught:
        record_of(Outer, parse(text, SOURCE))
    error = str(caught.value)
    assert error.startswith("'some.json' is damaged, it is not a list of things: ")
    assert error.endswith("; write it again")
    assert error.isprintable()
    assert len(error) < 500


def test_bytes_that_are_no_text_and_too_many_of_them():
    with pytest.raises(InputError, match="it is no UTF-8 text"):
        parse(b'{"a": "\xff"}', SOURCE)
    with pytest.raises(InputError, match="expected at most"):
        parse(b" " * (2**26 + 1), SOURCE)


def test_the_error_is_of_the_kind_that_the_source_says():
    with pytest.raises(PlanError):
        parse("{", Source("'plan.json'", "a plan", "search again", PlanError))


def test_values_are_shown_short_and_without_control_characters():
    for value in ("\x1b[31m", 10**6000, ["x" * 9999] * 9999, [[[[[[1]]]]]], {"a": {"b": {"c": {"d": 1}}}}):
        assert shown(value).isprintable()
        assert len(shown(value)) < 1000


def test_a_seal_tells_a_changed_record_whatever_the_order():
    record = {"b": [1, 2.5, None], "a": {"x": "\udcff"}}
    turned = dict(reversed(list(sealed(record).items())))
    assert unsealed(parse(json.dumps(turned), SOURCE)).value == record
    assert digest_of(record) != digest_of({**record, "b": [1, 2.5]})
    with pytest.raises(InputError, match="was changed after it was written"):
        unsealed(parse(json.dumps({**sealed(record), "b": []}), SOURCE))
    with pytest.raises(InputError, match="`digest` is not there"):
        unsealed(parse(json.dumps(record), SOURCE))
