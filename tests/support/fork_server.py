"""Processes forked by a server that has imported the training code, which takes seconds."""

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = ["tests.support.tiny_run", "openfold_opt.loader.loader"]


def fork_server() -> ForkServerContext:
    """Return the context of the fork server of this process."""
    context = multiprocessing.get_context("forkserver")
    # Has no effect if the server runs already; new processes then import what is missing.
    context.set_forkserver_preload(PRELOADED)
    return context
