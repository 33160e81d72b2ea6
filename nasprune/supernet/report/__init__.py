"""What came of a trim, checked against other scorers, and written for people.

Import from here: `examined`, `TrimReport`, `pages`.
May import: `errors`, `common`, `cost`, `space`, `base`, `refit`, `supernet.find`, `supernet.price`,
`supernet.genotype`, `supernet.structure`, `supernet.score`, `supernet.trim`.
"""
