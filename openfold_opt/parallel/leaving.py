"""The end of a process whose threads may be inside a library.

When the interpreter ends, it stops a daemon thread at its next step in Python by unwinding its
stack. If that stack leads through C++ of PyTorch, the unwinding aborts the process (SIGABRT, exit
code 134), although its work is done. So every thread is joined before the end, and where one cannot
be joined, as it hangs in a call, the process ends without the interpreter's end.
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
"""An exit code above says by its difference which signal ended the process."""
INTERRUPTED_EXIT_CODE = SIGNAL_EXIT_CODES + signal.SIGINT
"""Exit code after Ctrl-C."""


def run_program(main: Callable[[], int]) -> NoReturn:
    """Call main and end the process with its exit code: 130 after Ctrl-C, 1 with a traceback after
    any other exception.
    """
    try:
        code = main()
    except SystemExit as end:
        code = _code_of(end)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED_EXIT_CODE
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process with this exit code, even if a daemon thread hangs in a library.

    After a signal it does without the interpreter's end, which takes seconds on a busy machine once
    PyTorch is imported.
    """
    # the threads of a pool wait for work until they are told that no more will come
    concurrent.futures.thread._python_exit()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    if threading.active_count() == 1 and code <= SIGNAL_EXIT_CODES:
        sys.exit(code)
    # what handlers clean up, such as multiprocessing's folder of sockets
    atexit._run_exitfuncs()
    leave_at_once(code)


def leave_at_once(code: int) -> NoReturn:
    """End the process with this exit code, whatever its threads do, without the interpreter's end;
    any thread may call it.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code_of(end: SystemExit) -> int:
    """The exit code that Python would give: a text is printed and means 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
