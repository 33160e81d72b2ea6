"""What tests of commands share."""

from tests.supernet.conftest import steady

__all__ = ["steady"]
