"""What candidates and whole supernets cost, and limits on it.

Import from here: `count_module`, `count_once`, `price`, `parse_limit`, `gated`.
May import: `errors`, `common`, `cost`, `space`, `supernet.find`.
"""
