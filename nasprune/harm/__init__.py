"""What an option hurts: widths of groups and removed blocks priced by one backward pass.

Import from here: `damages`.
May import: `errors`, `common`, `graph`, `cut`, `space`, `calibration`.
"""
