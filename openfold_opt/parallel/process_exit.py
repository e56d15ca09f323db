"""Exit of a process whose threads may be inside a library call.

When the interpreter shuts down, it stops a daemon thread at its next Python instruction by
unwinding its stack. If the stack contains C++ frames of PyTorch, the unwinding aborts the process
(SIGABRT, exit code 134) although its work is complete. The functions here therefore join every
thread before the exit. If a thread cannot be joined because it hangs in a call, they end the
process without shutting down the interpreter.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

SIGNAL_EXIT_CODES = 128
"""A signal n that ends a process gives the exit code SIGNAL_EXIT_CODES + n."""
INTERRUPTED_EXIT_CODE = SIGNAL_EXIT_CODES + signal.SIGINT
"""Exit code after Ctrl-C."""


def run_program(main: Callable[[], int]) -> NoReturn:
    """Call main and exit the process with the code that it returns.

    The exit code is 130 after Ctrl-C. It is 1, with a traceback, after any other exception.
    """
    try:
        code = main()
    except SystemExit as request:
        code = _code_of(request)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED_EXIT_CODE
    except BaseException:
        traceback.print_exc()
        code = 1
    exit_process(code)


def exit_process(code: int) -> NoReturn:
    """Exit the process with this code, even if a daemon thread hangs in a library call.

    After a signal, the interpreter is not shut down: with PyTorch imported, that takes seconds on a
    busy machine.
    """
    # Stop the threads of thread pools, which otherwise wait for more work.
    concurrent.futures.thread._python_exit()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    if threading.active_count() == 1 and code <= SIGNAL_EXIT_CODES:
        sys.exit(code)
    # Run the registered cleanup handlers, such as multiprocessing's for its socket directory.
    atexit._run_exitfuncs()
    exit_immediately(code)


def exit_immediately(code: int) -> NoReturn:
    """Exit the process with this code without shutting down the interpreter.

    Any thread may call this function, and no other thread can delay it.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code_of(request: SystemExit) -> int:
    """Return the exit code as Python would; print a text to stderr and return 1."""
    if request.code is None or isinstance(request.code, int):
        return request.code or 0
    print(request.code, file=sys.stderr)
    return 1
