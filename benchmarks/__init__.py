"""What the package costs, each time as a ratio in one run on one machine: see ``docs/performance.rst``."""
