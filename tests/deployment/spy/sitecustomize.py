"""First on the path of every Python process of a tested deployment.

It counts the noisy steps that touch weights, a byte each. The count is the truth that the ledger is held against. It is written
by the process that takes the step, as the step begins, to the file that HUSHTUNE_TEST_STEPS names; what is appended outlives a
kill -9.
"""

import importlib.util
import os
import sys

WATCHED = "pipeline.train.optimizer"


class Finder:
    """Lets the watched module load as it always does, and wraps its step."""

    def find_spec(self, name, path=None, target=None):
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            watch(module.UnitOptimizer)

        spec.loader.exec_module = exec_module
        return spec


def watch(optimizer):
    real = optimizer.step

    def step(self, *rest, **more):
        with open(os.environ["HUSHTUNE_TEST_STEPS"], "ab", buffering=0) as file:
            file.write(b".")
        return real(self, *rest, **more)

    optimizer.step = step


if "HUSHTUNE_TEST_STEPS" in os.environ:
    sys.meta_path.insert(0, Finder())
