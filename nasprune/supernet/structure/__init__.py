"""A module recognised as a supernet: its choices, their prices, and smaller copies of it.

Import from here: `Structure`, `recognise`, `refreshed`.
May import: `errors`, `cost`, `space`, `supernet.find`, `supernet.price`, `supernet.genotype`, `supernet.cut`.
"""
