"""Collect tests as on a machine with a GPU that lacks some packages: `python -m
tests.tools.pretended_gpu PACKAGES TESTS...`.

PACKAGES are the missing ones, separated by commas. Tests are collected and not run, so no GPU is
needed. Exit code: pytest's.
"""

import importlib
import sys
from unittest import mock

import pytest
import torch

MEASUREMENTS = (
    "command",
    "agreement",
    "agreement_probe",
    "kernels",
    "loader",
    "step",
    "step_probe",
)


class MissingPackages:
    """A finder for sys.meta_path to which some packages do not exist."""

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
