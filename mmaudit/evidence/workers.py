"""Fetching batches from a DataLoader whose workers may raise, die or hang, and which must not disturb this process.

Workers are spawned: forking a process in which torch has already computed can hang. That they are alive is looked at while
waiting for them, and not in a signal handler.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from typing import Any

import torch
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader

from mmaudit.checkpoint.importing import importable
from mmaudit.evidence.wording import IN_WORKER, data_note, explain
from mmaudit.exceptions import DataError, MMAuditError
from mmaudit.report.schema import Note

__all__ = ["EndError", "loader_options", "quiet_loader", "reading", "spawnable_workers"]

_LOADER_SEED = 0
_POLL = 1.0
"""Seconds after which torch looks whether its workers are alive."""
_START_UP = 60.0
"""Seconds that spawned workers may take to start, which does not count as waiting for a batch."""
_TIMED_OUT = "DataLoader timed out"


class EndError(Exception):
    """There are no more batches; StopIteration would end the generator that it is raised in."""


@contextlib.contextmanager
def reading(
    source: Iterable[Any] | Callable[[], Iterable[Any]],
    directory: Path | None,
    patience: float,
) -> Iterator[Callable[[str], Any]]:
    """Fetch batches one by one; whatever goes wrong in the user's code becomes one sentence.

    Args:
        source: What to iterate over, or a function that returns it.
        directory: Importable meanwhile, in worker processes too.
        patience: Seconds a worker may take for one batch.

    Yields:
        A function that returns the next batch; it takes the name of the batch, for messages.
    """
    iterator: Any = None
    starting: Any = None

    def fetch(where: str) -> Any:
        nonlocal iterator, starting
        began = since = time.monotonic()
        while True:
            try:
                with importable(directory):
                    if iterator is None:
                        made = source() if callable(source) else source
                        starting = getattr(made, "worker_init_fn", None)
                        iterator = iter(made)
                        _keep_quiet(iterator)
                    return next(iterator)
            except StopIteration:
                if isinstance(source, DataLoader):
                    raise DataError(
                        f"{where} could not be read: the dataset raised StopIteration"
                    ) from None
                raise EndError from None
            except MMAuditError:
                raise
            except (Exception, SystemExit) as error:
                now = time.monotonic()
                exit_code = _exit_code(iterator, error)
                if exit_code is None and _TIMED_OUT in str(error):
                    if (
                        isinstance(starting, _Starting)
                        and not starting.done
                        and now - began < _START_UP
                    ):
                        since = now
                    if now - since < patience:
                        continue
                sentence = _sentence(where, error, now - since, exit_code)
                _stop_workers(iterator)
                raise DataError(sentence) from error

    try:
        yield fetch
    except BaseException:
        _stop_workers(iterator)
        raise


def spawnable_workers(
    loader: DataLoader[Any], directory: Path | None, note: Callable[[Note], None]
) -> int:
    """Worker processes that can be spawned: as many as asked for, or none."""
    if not loader.num_workers:
        return 0
    sink = _Sink()
    try:
        with importable(directory):
            pickle.Pickler(sink, protocol=pickle.HIGHEST_PROTOCOL).dump(
                (loader.dataset, loader.collate_fn, loader.worker_init_fn)
            )
    except Exception as error:
        note(
            data_note(
                "fallback",
                f"data is read without worker processes: the dataset cannot be sent to one ({explain(error)})",
            )
        )
        return 0
    problem = _main_problem(sink.names_main)
    if problem:
        note(data_note("fallback", f"data is read without worker processes: {problem}"))
        return 0
    if (
        loader.multiprocessing_context is None
        or loader.multiprocessing_context.get_start_method() != "spawn"
    ):
        note(
            data_note(
                "information",
                f"the {loader.num_workers} DataLoader workers are spawned, not forked",
            )
        )
    return int(loader.num_workers)


def loader_options(loader: DataLoader[Any], workers: int) -> dict[str, Any]:
    """What a rebuilt loader has in common with the user's, for :func:`quiet_loader`."""
    options: dict[str, Any] = {
        "collate_fn": loader.collate_fn,
        "worker_init_fn": loader.worker_init_fn,
        "num_workers": workers,
    }
    if workers:
        options |= {
            "timeout": _POLL,
            "multiprocessing_context": "spawn",
            "prefetch_factor": loader.prefetch_factor,
        }
    return options


def quiet_loader(dataset: Any, **options: Any) -> DataLoader[Any]:
    """A DataLoader that leaves the global random state alone and counts its workers as they start."""
    with warnings.catch_warnings():
        # The user has seen it when making the loader.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        # The generator keeps the seeds of workers away from the global random state, and the same in every reading.
        options["generator"] = torch.Generator().manual_seed(_LOADER_SEED)
        if options["num_workers"]:
            options["worker_init_fn"] = _Starting(options["worker_init_fn"], options["num_workers"])
        return DataLoader(dataset, **options)


def _sentence(where: str, error: BaseException, seconds: float, exit_code: int | None) -> str:
    if exit_code is not None:
        how = f"exit code {exit_code}" if exit_code >= 0 else f"killed by signal {-exit_code}"
        return (
            f"{where} could not be read: a DataLoader worker died ({how}); num_workers=0 shows the cause, and a script needs"
            " its code under if __name__ == '__main__'"
        )
    if _TIMED_OUT in str(error):
        return (
            f"{where} could not be read: a DataLoader worker gave no answer for {seconds:.0f} s; repair what it waits for,"
            " or give the DataLoader a longer timeout"
        )
    return f"{where} could not be read: {explain(error)}"


def _worker_processes(iterator: Any) -> Sequence[Any]:
    return getattr(iterator, "_workers", ())


def _exit_code(iterator: Any, error: BaseException) -> int | None:
    """Exit code of a worker that has died; negative for a signal, ``None`` where all are alive."""
    workers = _worker_processes(iterator)
    broken = isinstance(error, OSError | EOFError) and IN_WORKER not in str(error)
    if broken:
        # The other end of a connection is gone, perhaps a moment before its process.
        gone = wait_for_any([worker.sentinel for worker in workers], timeout=1)
        for worker in workers:
            if worker.sentinel in gone:
                worker.join(1)
    codes = [worker.exitcode for worker in workers if not worker.is_alive()]
    # With an IterableDataset, workers that have nothing left end by themselves, with 0.
    unexpected = broken or "exited unexpectedly" in str(error)
    return next(
        (code for code in sorted(codes, key=bool, reverse=True) if code or unexpected), None
    )


def _keep_quiet(iterator: Any) -> None:
    """Keep torch from raising in the middle of whatever this process does when a worker dies.

    Its handler of SIGCHLD raises wherever the main thread happens to be, in the model's forward for example. Here dead workers
    are noticed while waiting for the next batch.
    """
    if getattr(iterator, "_worker_pids_set", False):
        _remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def _stop_workers(iterator: Any) -> None:
    """Kill worker processes: torch itself would wait five seconds for each one that hangs."""
    for worker in _worker_processes(iterator):
        if worker.is_alive():
            worker.kill()


def _main_problem(names_main: bool) -> str | None:
    """Why a spawned process could not import this program again, or ``None``."""
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:
        return None
    file = getattr(main, "__file__", None)
    if file is None:
        return "the dataset is defined in an interactive session" if names_main else None
    try:
        guarded = "__name__" in Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "the running program has no file" if names_main else None
    return (
        None
        if guarded
        else f"{Path(file).name} has no if __name__ == '__main__', so a worker would run it again"
    )


class _Starting:
    """A ``worker_init_fn`` that counts the workers that are up, so that a slow start is not taken for a hang."""

    def __init__(self, own: Callable[[int], None] | None, workers: int) -> None:
        self._own = own
        self._missing = multiprocessing.get_context("spawn").Value("i", workers)

    def __call__(self, worker: int) -> None:
        with self._missing.get_lock():
            self._missing.value -= 1
        if self._own is not None:
            self._own(worker)

    @property
    def done(self) -> bool:
        """Whether all workers are up; read without the lock, which a killed worker may hold for ever."""
        return bool(self._missing.get_obj().value <= 0)


class _Sink:
    """Takes what is pickled without keeping it, and remembers whether the main program is named in it."""

    def __init__(self) -> None:
        self.names_main = False
        self._tail = b""

    def write(self, data: Any) -> int:
        chunk = bytes(data) if len(data) <= 65536 else b""
        self.names_main = self.names_main or b"__main__" in self._tail + chunk
        self._tail = chunk[-8:]
        return len(data)
