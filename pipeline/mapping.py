"""One function done to many items, each by a process: those of this machine, or whatever a caller puts in their place.

    results = processes(2)(function, items, lambda index, result: None)

What is handed out may be done twice, since a process that is lost takes its answer with it. So a function must be repeatable
and stand in a module, where other processes find it, and items and results are paths, digests, counts and figures, never text.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from pipeline.errors import StageError

Function = Callable[[Any], Any]
Done = Callable[[int, Any], None]

MOST_WORKERS = 4
TRIES = 3  # of one item, where each try ends with a process that is lost
LOST = (
    "A process that worked on a piece of the data ended early three times, perhaps for lack of memory: run again (finished "
    "pieces are kept), with fewer workers if it happens again."
)


class Map(Protocol):
    """Does `function` to each item, somewhere.

    The longest item comes first, so that nobody waits for it at the end. `done` is told index and result of each item as they
    come, in any order, one at a time. Returns the results in the order of the items; raises what the function raised.
    """

    def __call__(self, function: Function, items: Sequence[Any], done: Done) -> list[Any]:  # noqa: D102 - see the class
        ...


def here(function: Function, items: Sequence[Any], done: Done) -> list[Any]:
    """A `Map` that does one after the other in this process.

    >>> here(abs, [-2, 3], lambda index, result: print(index, result))
    0 2
    1 3
    [2, 3]
    """
    results = []
    for index, item in enumerate(items):
        results.append(function(item))
        done(index, results[-1])
    return results


def processes(count: int) -> Map:
    """A `Map` of so many processes on this machine. One that dies is replaced, and only the item that it had is done again."""

    def run(function: Function, items: Sequence[Any], done: Done) -> list[Any]:
        queue = Queue(function, items, done)
        with ThreadPoolExecutor(max(1, min(count, len(items)))) as threads:
            try:
                for driver in [threads.submit(queue.drive) for _ in range(min(count, len(items)))]:
                    driver.result()
            finally:
                queue.stop()
        return queue.results()

    return run


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Queue:
    """Items handed out one at a time to threads, each of which drives a process of its own: Python's lock binds threads."""

    def __init__(self, function: Function, items: Sequence[Any], done: Done):
        self._function, self._done = function, done
        self._count, self._waiting = len(items), iter(list(enumerate(items)))
        self._results: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._at_work: set[int] = set()  # ids of processes

    def drive(self) -> int:
        """Start a process, feed it with items until none is left, and return how many it did.

        Raises:
            StageError: one item cost three processes their lives.
            Exception: what the function raised; no thread takes another item then.
        """
        count, pool = 0, None
        try:
            while (entry := self._next()) is not None:
                pool, result = self._try(pool, entry[1])
                if pool is None:  # ended by `stop`, for what another thread raised or the caller wants
                    break
                count += 1
                with self._lock:
                    self._results[entry[0]] = result
                    self._done(entry[0], result)
        except BaseException:
            self.stop()
            raise
        finally:
            if pool is not None:
                pool.shutdown()
        return count

    def stop(self) -> None:
        """Hand out no further item, and end the processes that are at work: one that hangs would hold its stage for good."""
        with self._lock:
            self._stopped = True
            for number in self._at_work:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def results(self) -> list[Any]:
        """Results in the order of the items.

        Raises:
            StageError: some were never done.
        """
        if len(self._results) < self._count:
            raise StageError("Some pieces of the data were not worked on: run again (finished pieces are kept).")
        return [self._results[index] for index in sorted(self._results)]

    def _next(self) -> tuple[int, Any] | None:
        with self._lock:
            return None if self._stopped else next(self._waiting, None)

    def _try(self, pool: ProcessPoolExecutor | None, item: Any) -> tuple[ProcessPoolExecutor | None, Any]:
        """The process to go on with and the item's result; no process after `stop`."""
        for _ in range(TRIES):
            pool = pool or _process()
            try:
                with self._killable(pool):
                    return pool, pool.submit(self._function, item).result()
            except BrokenProcessPool:
                pool.shutdown()
                pool = None
            if self._stopped:
                return None, None
        raise StageError(LOST)

    @contextlib.contextmanager
    def _killable(self, pool: ProcessPoolExecutor) -> Iterator[None]:
        """While this is open, `stop` ends the pool's process."""
        number = pool.submit(os.getpid).result()
        with self._lock:
            self._at_work.add(number)
            if self._stopped:
                os.kill(number, signal.SIGKILL)
        try:
            yield
        finally:
            with self._lock:
                self._at_work.discard(number)


def _process() -> ProcessPoolExecutor:
    """One process, spawned: a fork would copy locks that other threads hold."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """See that this process does not outlive the one that started it, however that ends."""
    parent: Any = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
