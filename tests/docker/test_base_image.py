"""The installation into the GPU image, which pip resolves with the packages of its base."""

import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile

import pytest

from tests.docker.test_container import PROJECT, ROOT, install, missing_requirements

PACKAGES = ROOT / "docker/base_image_packages.txt"
PYTHON_VERSION = "3.12"
# Ubuntu 24.04 has glibc 2.39 and accepts wheels for it or an older glibc.
PLATFORMS = ["manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 40))]


def base_packages() -> list[str]:
    lines = PACKAGES.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_list_is_of_the_base_that_the_image_names():
    base = re.search(
        r"^ARG BASE=(\S+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE
    ).group(1)
    assert base in PACKAGES.read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[\w-]+==[\w.+]+", package) for package in base_packages())


@pytest.fixture(scope="session")
def package_index():
    try:
        with urllib.request.urlopen("https://pypi.org/simple/gemmi/", timeout=20):
            return
    except (urllib.error.URLError, TimeoutError) as error:
        pytest.skip(f"the package index cannot be reached: {error}")


def write_wheel_of_ihm(folder: pathlib.Path) -> None:
    """Write an empty wheel of ihm, which pip builds from its source in the image.

    For another platform, pip builds nothing.
    """
    (version,) = (pin[5:] for pin in PROJECT["dependencies"] if pin.startswith("ihm=="))
    information = f"ihm-{version}.dist-info"
    with zipfile.ZipFile(folder / f"ihm-{version}-py3-none-any.whl", "w") as wheel:
        metadata = f"Metadata-Version: 2.1\nName: ihm\nVersion: {version}\n"
        wheel.writestr(f"{information}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{information}/WHEEL", tags)
        wheel.writestr(f"{information}/RECORD", "")


def resolve(folder: pathlib.Path, packages: list[str], *extras: str):
    """Run docker/install_requirements.sh as a dry run. Return the process and the requirements."""
    installed = folder / "packages"
    for package in packages:
        install(installed, *package.split("=="))
    shown, (missing, _) = missing_requirements(folder, installed, *extras)
    assert shown.returncode == 0, shown.stderr
    write_wheel_of_ihm(folder)
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--find-links", folder),
        *("--disable-pip-version-check", "--target", folder / "target"),
        *("--python-version", PYTHON_VERSION, "--only-binary=:all:"),
        *(f"--platform={platform}" for platform in PLATFORMS),
        *("--constraint", folder / "held.txt", "--requirement", folder / "missing.txt"),
    ]
    environment = {**os.environ, "PIP_CONSTRAINT": ""}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return finished, missing


def test_dry_run_has_the_options_of_the_image():
    script = (ROOT / "docker/install_requirements.sh").read_text(encoding="utf-8")
    assert '--constraint "$files/held.txt" \\\n    --requirement "$files/missing.txt"' in script
    assert "PIP_CONSTRAINT=''" in script


def test_missing_requirements_fit_the_base_image(tmp_path, package_index):
    finished, missing = resolve(tmp_path, base_packages(), "mpi", "tests", "dali")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    names = {pin.partition("==")[0] for pin in missing}
    assert names and not names & {"torch", "numpy", "triton"}
    # Nothing was installed.
    assert not (tmp_path / "target").exists()


def test_a_conflict_is_found(tmp_path, package_index):
    """matplotlib needs pyparsing 3."""
    finished, _ = resolve(tmp_path, [*base_packages(), "pyparsing==2.4.7"])
    assert finished.returncode == 1
    assert "pyparsing" in finished.stderr and "conflict" in finished.stderr
