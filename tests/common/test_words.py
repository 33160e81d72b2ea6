"""Any text, for people, Python and shells."""

from __future__ import annotations

import ast
import os
import subprocess

import pytest

from nasprune.common.words import python, shell, shell_path, visible

TEXTS = [
    "plain",
    "with space",
    "it's",
    'say "hi"',
    "both ' and \"",
    "back\\slash",
    "new\nline\tand\x1b[31mred\x07",
    "\udcff\udcfe raw",
    "×é日本🙂",
    "\u202eright to left\u2028",
    "$HOME `id` $(id) ;&|*?~!",
    "-rf",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_form_is_on_one_line_and_means_the_text(text):
    assert visible(text).isprintable()
    assert python(text).isprintable()
    assert ast.literal_eval(python(text)) == text
    assert shell(text).isprintable()
    echoed = subprocess.run(["bash", "-c", f"printf %s {shell(text)}"], capture_output=True, check=True).stdout
    assert echoed == os.fsencode(text)


def test_what_prints_stays_as_it_is():
    assert visible("×é 'x'") == "×é 'x'"
    assert visible("a\n\x1b\udcff") == "a\\n\\x1b\\xff"
    assert python("runs/x") == '"runs/x"'
    assert shell("runs/x") == "runs/x"


def test_a_path_is_never_an_option():
    assert shell_path("-rf") == "./-rf"
    assert shell_path("a b") == "'a b'"
