"""What candidates and whole supernets cost, and limits on it.

Import from here: `count_module`, `price`, `parse_limit`, `gated`.
May import: `errors`, `common`, `cost`, `space`, `supernet.find`.
"""
