"""Supernets from the outside: what is found, scored, trimmed, made discrete, saved and loaded.

Import from here: `Supernet`, `storage`, `folders`.
May import: `errors`, `common`, `registry`, `cost`, `space`, `base`, `data`, `models`, `refit`, `run`,
`supernet.find`, `supernet.price`, `supernet.genotype`, `supernet.structure`, `supernet.score`, `supernet.trim`,
`supernet.train`, `supernet.report`.
"""

from nasprune.supernet.genotype import codecs

__all__ = ["codecs"]
