"""Check that worker processes can import the main module of the program.

A process started by "forkserver" or "spawn" imports the main module. If the main module creates a
loader without the guard `if __name__ == "__main__":`, each worker would create a loader too.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from openfold_opt.parallel.process_exit import exit_immediately

MISSING_GUARD_EXIT_CODE = 78
"""Exit code of a worker whose main module would start workers; EX_CONFIG of sysexits.h."""
MISSING_GUARD = (
    "a worker of the loader imports the main module of this program, and that module creates a "
    "loader: move the code that creates it into a function, and call the function below "
    '`if __name__ == "__main__":` '
    "(or set LoaderConfig.num_workers to 0)"
)


def check_main_module() -> None:
    """Check, before workers are started, that they can import the main module.

    In a worker that is importing the main module, end the process with MISSING_GUARD_EXIT_CODE.

    Raises:
        ValueError: the program was read from standard input, so there is no file to import.
    """
    # Python uses the same attribute in its own check for this case.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        exit_immediately(MISSING_GUARD_EXIT_CODE)
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and file is not None and not Path(file).exists():
        raise ValueError(
            "workers of the loader import the main module of this program, and "
            f"its file {file} does not exist; write the program to a file "
            "(or set LoaderConfig.num_workers to 0)"
        )
