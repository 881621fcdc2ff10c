"""Every error that hushtune raises on purpose.

    HushtuneError                 exit 1
    ├── UsageError                exit 2   the call, the policy or the input is wrong
    │   ├── PolicyError                    a policy file or key
    │   ├── InputError                     the data: a file, a line, a column
    │   ├── ModelError                     a base model that is unknown, absent or unfit
    │   └── BusyError                      another process works on the run
    ├── StageError                         a stage could not finish its work
    │   └── TransientError                 a fault that may pass: a locked database, the network, a busy disk
    ├── IntegrityError                     bytes that differ from their digest or signature
    └── BudgetExhausted           exit 4   the lifetime privacy budget does not hold this run

A message says what is wrong, where, and how to mend it, in one sentence, and never quotes private text: file names,
line numbers, column names, policy keys and counts may stand in it; the content of a record may not.
"""

from __future__ import annotations


class HushtuneError(Exception):
    """Base of all errors that hushtune raises on purpose; `exit_code` is what the command returns."""

    exit_code = 1


class UsageError(HushtuneError):
    """The call, the policy or the input is wrong and the user can mend it."""

    exit_code = 2


class PolicyError(UsageError):
    """A policy file cannot be read, or one of its keys is unknown, missing or out of range."""


class InputError(UsageError):
    """A data file is missing, empty, binary or malformed, or holds too few records."""


class ModelError(UsageError):
    """A base model is unknown, not here, or cannot serve this run."""


class BusyError(UsageError):
    """Another process works on the run."""


class StageError(HushtuneError):
    """A stage of the line could not finish; nothing half-written is left behind."""


class TransientError(StageError):
    """A stage stopped on a fault that may pass by itself: a locked database, the network, a busy disk."""


class IntegrityError(HushtuneError):
    """A file differs from its recorded digest or its signature does not verify."""


class BudgetExhausted(HushtuneError):
    """The lifetime privacy budget cannot hold the planned run."""

    exit_code = 4
