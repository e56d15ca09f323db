"""Worker processes and the program that starts them.

A process started by "forkserver" or "spawn" imports the main module of the program. If that makes a
loader without the guard `if __name__ == "__main__":`, each worker would make a loader again.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from openfold_opt.parallel.process_exit import exit_immediately

NO_GUARD_EXIT_CODE = 78
"""Of a worker that found out that it would start workers itself. EX_CONFIG of sysexits.h."""
NO_GUARD = (
    "a worker of the loader imports the main module of this program, and that makes a loader: put "
    'the code that makes it into a function, and call that below `if __name__ == "__main__":` '
    "(or set LoaderConfig.num_workers to 0)"
)


def check_main_module() -> None:
    """Find out before workers are started whether they can import the main module.

    In a worker that is just importing it, this ends the process with NO_GUARD_EXIT_CODE.

    Raises:
        ValueError: the program was read from the standard input, so that there is no file.
    """
    # Python's own check for this case looks at the same attribute.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        exit_immediately(NO_GUARD_EXIT_CODE)
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and file is not None and not Path(file).exists():
        raise ValueError(
            f"workers of the loader import the main module of this program, and its file {file} does "
            "not exist; write the program into a file (or set LoaderConfig.num_workers to 0)"
        )
