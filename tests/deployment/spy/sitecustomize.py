"""First on the path of every Python process of a tested deployment.

It counts the noisy steps that touch weights, a byte each. The count is the truth that the ledger is held against. It is written
by the process that takes the step, as the step begins, to the file that HUSHTUNE_TEST_STEPS names; what is appended outlives a
kill -9.

Where the file that HUSHTUNE_TEST_PACE names is there, training keeps to its pace: JSON with the seconds that a step takes, and
those that the stage may take.
"""

import importlib.util
import json
import os
import sys
import time


class Finder:
    """Lets the watched modules load as they always do, and changes each when it is loaded."""

    def find_spec(self, name, path=None, target=None):
        change = WATCHED.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


def pace():
    try:
        with open(os.environ["HUSHTUNE_TEST_PACE"]) as file:
            return json.load(file)
    except (KeyError, FileNotFoundError):
        return {}


def watch(module):
    real, seconds = module.UnitOptimizer.step, pace().get("step", 0)

    def step(self, *rest, **more):
        with open(os.environ["HUSHTUNE_TEST_STEPS"], "ab", buffering=0) as file:
            file.write(b".")
        time.sleep(seconds)
        return real(self, *rest, **more)

    module.UnitOptimizer.step = step


def limit(module):
    if seconds := pace().get("limit"):
        module.RULES["train"] = module.RULES["train"]._replace(hours=seconds / 3600)


WATCHED = {"pipeline.train.optimizer": watch, "flows.rules": limit}


if "HUSHTUNE_TEST_STEPS" in os.environ:
    sys.meta_path.insert(0, Finder())
