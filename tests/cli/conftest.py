"""What tests of commands share."""

from __future__ import annotations

import pytest

from nasprune.cli import main
from tests.supernet.conftest import steady

__all__ = ["refused", "steady"]


@pytest.fixture
def place(tmp_path):
    """The folder that commands run in: an empty one, where a file of tests has no other."""
    return tmp_path


@pytest.fixture
def command(capsys, place, monkeypatch):
    """Runs `nasprune` with these arguments in `place`; gives exit code, stdout and stderr."""
    monkeypatch.chdir(place)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


def refused(result, *texts):
    """Exit code 2, nothing on stdout, and a last line on stderr that has all `texts`; no traceback."""
    code, out, err = result
    last = err.strip().splitlines()[-1]
    assert (code, out) == (2, ""), err
    assert last.startswith("nasprune: ")
    assert "Traceback" not in err
    for text in texts:
        assert text in last
    return True
