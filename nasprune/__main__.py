"""`python -m nasprune`, which is how `torchrun` starts several processes of a command."""

from nasprune.cli import main

main()
