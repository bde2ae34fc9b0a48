"""`python -m django_koomalooma.sandbox`: the sandbox without Django."""

from __future__ import annotations

import argparse
import functools
import sys

from .cli import UsageError, add_arguments, serve


def main() -> int:
    """Serve until a signal; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m django_koomalooma.sandbox")
    add_arguments(parser)
    try:
        serve(vars(parser.parse_args()), functools.partial(print, flush=True))
    except UsageError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
