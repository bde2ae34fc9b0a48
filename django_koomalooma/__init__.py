"""Points from the koomalooma loyalty programme for Django shops. Importing this needs no settings."""

__version__ = "0.1.0"
