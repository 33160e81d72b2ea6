"""Options of plugins behind their names on the command line: literals only, and unknown ones are refused."""

from __future__ import annotations

import json

import pytest

TOY = ["search", "--model", "tests.toys:tiny_net", "--budget", "70%", "--out", "run"]


def test_they_reach_the_plugins_and_the_report(command, tmp_path):
    names = {
        "criterion": "lp(p=1, reduce=max)",
        "controller": "evolution(population=4, sample=2)",
        "space": "widths(divisor=2, blocks=False)",
    }
    options = [word for name, spec in names.items() for word in (f"--{name}", spec)]
    code, _, err = command(*TOY, "--trials", 4, *options)
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {name: report["settings"][name] for name in names} == names
    assert report["dropped_blocks"] == []
    assert all(group["kept"] % 2 == 0 for group in report["groups"] if group["frozen_because"] is None)


@pytest.mark.parametrize(
    ("option", "spec", "message"),
    [
        ("--space", "widths(divisr=16)", "unknown `widths` option 'divisr': did you mean divisor"),
        ("--controller", "evolution(popluation=8)", "unknown `evolution` option 'popluation': did you mean population"),
        ("--criterion", "lp(q=1)", "unknown `lp` option 'q'"),
        ("--evaluator", "importance(share=1)", "unknown `importance` option 'share'"),
        ("--space", "widths(min_share=2)", "`min_share` in [0, 1], got None and 2"),
        ("--space", "widths(divisor=abc)", "`divisor` must be a whole number or None, got the str 'abc'"),
        ("--controller", "evolution(population=abc)", "`population` must be a whole number, got the str 'abc'; write"),
        ("--controller", "evolution(population=0)", "`population` must be at least 2 and `sample` at least 1, got 0"),
        ("--controller", "evolution(population=-3)", "`population` must be at least 2"),
        ("--controller", "evolution(sample=0)", "`sample` at least 1, got 32 and 0"),
        ("--space", "widths(16)", "expected NAME or NAME(option=value, ...)"),
        ("--space", "widths(divisor=open('x'))", "expected NAME or NAME(option=value, ...)"),
        ("--controller", "evolution(population=__import__('os').getpid())", "expected NAME or NAME(option=value, ...)"),
    ],
)
def test_what_is_unknown_or_no_literal_is_one_line(command, tmp_path, option, spec, message):
    code, out, err = command(*TOY, option, spec)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
