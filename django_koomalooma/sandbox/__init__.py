"""A pretend koomalooma on loopback: keeps a ledger, can misbehave, needs only the standard library."""

from .faults import FAULTS, describe
from .ledger import LedgerError
from .server import Sandbox

__all__ = ["FAULTS", "LedgerError", "Sandbox", "describe"]
