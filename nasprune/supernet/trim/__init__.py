"""Which candidates stay within a budget, in stages, down to one for each edge.

Import from here: `trim`, `discretised`, `stages_of`.
May import: `errors`, `common`, `cost`, `space`, `base`, `supernet.find`, `supernet.price`, `supernet.genotype`,
`supernet.structure`, `supernet.score`.
"""
