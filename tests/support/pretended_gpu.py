"""`python -m tests.support.pretended_gpu PACKAGES TESTS...`: collect tests as if there were a GPU.

PACKAGES are missing packages, separated by commas. The tests are not run, so no GPU is needed. The
exit code is that of pytest.
"""

import importlib
import sys
from unittest import mock

import pytest
import torch

MEASUREMENTS = (
    "command",
    "agreement",
    "subprocesses.agreement_probe",
    "kernels",
    "loader",
    "step",
    "subprocesses.step_probe",
)


class MissingPackages:
    """A finder for sys.meta_path that reports some packages as missing."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(missing, *tests):
    sys.meta_path.insert(0, MissingPackages(missing.split(",")))
    with (
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch.cuda, "device_count", lambda: 1),
    ):
        for name in ("benchmark.__main__", *(f"benchmark.perf.{name}" for name in MEASUREMENTS)):
            importlib.import_module(name)
        return pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *tests])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
