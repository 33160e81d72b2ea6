"""The graph of a model: what moves together when a channel is cut, and which blocks can go."""
