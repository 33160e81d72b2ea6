"""Families of cell networks: spaces, their operations, genotypes, and the formats these are written in.

Import from here: `SupernetSpace`, `Genotype`, `codecs`, `supernet_space`.
May import: `errors`, `common`, `registry`, `cost`, `space`, `supernet.price`.
"""
