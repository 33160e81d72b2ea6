"""`python -m nasprune.cli`."""

from nasprune.cli import main

main()
