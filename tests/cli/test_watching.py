"""Progress outside of the command line, in a notebook too, and the phases that --verbose prints."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

import nasprune
from nasprune.cli import main, screen
from nasprune.cli.commands.supernets import supernets
from nasprune.cli.options import app
from nasprune.cli.screen import MODE, speak
from nasprune.common.phases import PhaseStep
from nasprune.errors import InputError
from tests.nets import EXAMPLE, TinyResNet


def test_a_search_moves_it(capsys):
    with nasprune.progress() as shown:
        nasprune.search(TinyResNet(), EXAMPLE, "60%", trials=3, **shown)
    assert "trial 3/3" in capsys.readouterr().err


def test_a_notebook_has_a_bar(monkeypatch):
    """Without a kernel: what rich asks of a notebook are stand-ins that keep what is displayed."""
    displayed = []

    class Output(nullcontext):
        def clear_output(self, wait):
            pass

        def close(self):
            pass

    modules = {"IPython": ModuleType("IPython"), "IPython.display": ModuleType("IPython.display")}
    modules["IPython.display"].display = displayed.append
    modules["ipywidgets"] = SimpleNamespace(Output=Output)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    console = Console(force_jupyter=True)
    monkeypatch.setattr(screen, "stderr", lambda: console)
    with nasprune.progress() as shown:
        shown["on_phase"](PhaseStep("tracing", 1, 2, 0.1))
    assert any(isinstance(one, Output) for one in displayed)


def test_a_notebook_without_widgets_has_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    console = Console(force_terminal=False, file=sys.stdout)
    console.is_jupyter = True
    monkeypatch.setattr(screen, "stderr", lambda: console)
    monkeypatch.setattr(Console, "print", lambda self, text, **options: sys.stdout.write(f"{text}\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nasprune.progress() as shown:
            shown["on_phase"](PhaseStep("tracing", 1, 2, 0.1))
    assert "pip install ipywidgets" in capsys.readouterr().out


def test_verbose_prints_each_phase(tmp_path, capsys):
    options = ["--model", "tests.toys:tiny_net", "--budget", "60%", "--trials", "3", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as caught:
        main(["search", *options, "--verbose"])
    err = capsys.readouterr().err
    assert caught.value.code == 0, err
    assert all(re.search(rf"^ +\d+\.\d s +\d\.\d\d GiB  {phase}$", err, re.M) for phase in ("tracing", "proving"))


def test_verbose_says_where_an_error_came_from(tmp_path, capsys):
    for options in ([], ["--verbose"]):
        with pytest.raises(SystemExit) as caught:
            main(["show", str(tmp_path), *options])
        err = capsys.readouterr().err
        assert caught.value.code == 2
        assert err.splitlines()[-1].endswith(" makes one")
        assert ("Traceback" in err) == bool(options)


def test_every_command_can_be_quiet_verbose_and_machine_readable():
    commands = [*app.registered_commands, *supernets.registered_commands]
    assert {"search", "show", "train"} <= {command.name or command.callback.__name__ for command in commands}
    for command in commands:
        assert {"quiet", "verbose", "as_json"} <= set(inspect.signature(command.callback).parameters), command.name


def test_quiet_and_verbose_are_opposites():
    speak()
    with pytest.raises(InputError, match="opposites"):
        speak(quiet=True, verbose=True)
    assert not MODE.verbose
