"""What every test needs: pytest's own streams stay open."""

from __future__ import annotations

import sys

from absl import logging as absl_logging

# dp_accounting logs through absl, whose handler keeps the stderr of the moment it is imported (pytest's) and closes it when
# Prefect configures logging while a test has put another stderr in its place. It never closes the process's own.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
