"""Logs of server, worker and command are shown where a test fails."""

import pytest

from tests.deployment.harness import Station

collect_ignore = ["spy"]  # what is in it is for the processes that the tests start: no test, and no doctest, is there


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Station):
                report.sections.append((f"logs of {name}", value.story()))
    return report
