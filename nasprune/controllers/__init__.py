"""Built-in controllers, one a file."""
