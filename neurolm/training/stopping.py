"""A run that is asked to stop finishes its step, commits a checkpoint and says how to go on."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75
"""Of a process whose run was stopped on request: sysexits' EX_TEMPFAIL, the same command again goes on."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""`ray job stop`, Kubernetes and batch systems send the first, Ctrl-C the second."""


class Stopped(Exception):
    """A run ended on request, after its checkpoint was written; the message says how to go on."""

    def __init__(self, step: int, total_steps: int) -> None:
        super().__init__(
            f"stopped on request after step {step} of {total_steps}; the checkpoint is written, and the same command "
            "again goes on from there"
        )


@contextmanager
def stop_signals(on_stop: Callable[[], None]) -> Iterator[None]:
    """Make the first SIGTERM or SIGINT a call of ``on_stop``; the next one interrupts at once (KeyboardInterrupt).

    Only the main thread of a process hears signals; in another one this does nothing. A signal that the process was
    started to ignore, as by `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        if is_asked:
            raise KeyboardInterrupt
        is_asked = True
        name = signal.Signals(number).name
        # print is not reentrant, and the signal may have come in the middle of one.
        os.write(2, f"\n{name}: stopping after this step and its checkpoint; once more stops at once\n".encode())
        on_stop()

    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
