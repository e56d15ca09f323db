"""The files of the image agree with the project and with each other.

A build tests the rest; docs/containers.md describes it.
"""

import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CODE = "/workspace/openfold-opt"


def instructions():
    """Return (keyword, rest) of every instruction of the Dockerfile."""
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined]


def rest_of(keyword):
    return [rest for name, rest in instructions() if name == keyword]


def sections():
    """Return section name -> lines of the Apptainer definition, with a section "header"."""
    found = {"header": []}
    name = "header"
    for line in (ROOT / "docker/openfold.def").read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.startswith("#"):
            found[name].append(line.strip())
    return found


def test_base_is_an_argument_and_pinned():
    name, base = instructions()[0]
    assert name == "ARG" and rest_of("FROM") == ["${BASE}"]
    assert re.fullmatch(r"BASE=nvcr\.io/nvidia/pytorch:\d\d\.\d\d-py3(@sha256:[0-9a-f]{64})?", base)
    assert sections()["header"] == ["Bootstrap: docker", "From: {{ BASE }}"]
    assert base in sections()["arguments"]


def test_every_copied_file_exists():
    for rest in rest_of("COPY"):
        *sources, _target = shlex.split(rest)
        for source in sources:
            assert (ROOT / source).exists(), source
    for line in sections()["files"]:
        source, target = line.split()
        assert (ROOT / source).exists(), source
        assert target == f"{CODE}/{source}"


def test_definition_contains_the_files_of_the_timed_run():
    contained = {line.split()[0] for line in sections()["files"]}
    assert {
        "benchmark",
        "data_prep",
        "openfold_opt",
        "tools",
        "docker",
        "run_and_time.sh",
        "pyproject.toml",
    } <= contained


def test_images_contain_the_scripts_of_a_slurm_job():
    """run.sub starts every command in the folder of the code, in an image and on a node."""
    jobs = "".join(
        (ROOT / "slurm" / name).read_text(encoding="utf-8") for name in ("run.sub", "steps.sh")
    )
    started = set(re.findall(r"(?<![\w./\"])(slurm/\w+\.sh)(?= )", re.sub("#.*", "", jobs)))
    assert {"slurm/bind.sh", "slurm/module.sh", "slurm/prepare.sh"} <= started
    tops = {line.split()[0] for line in sections()["files"]}
    assert {name.partition("/")[0] for name in started} <= tops


def test_libraries_come_before_code():
    steps = [f"{name} {rest}" for name, rest in instructions()]
    assert steps.index("RUN docker/install_requirements.sh ${EXTRAS}") < steps.index("COPY . .")
    before = [step for step in steps[: steps.index("COPY . .")] if step.startswith("COPY")]
    assert before == [
        "COPY pyproject.toml ./",
        "COPY docker/install_requirements.sh docker/missing_requirements.py docker/",
    ]


def test_only_pyproject_has_versions():
    for name in ("Dockerfile", "openfold.def", "install_requirements.sh"):
        assert "==" not in (ROOT / "docker" / name).read_text(encoding="utf-8"), name


def test_labels():
    labels = dict(
        re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', " ".join(rest_of("LABEL")))
    )
    assert labels["version"] == "${VERSION}" and labels["revision"] == "${REVISION}"
    assert {"title", "description", "licenses"} <= set(labels) and labels["licenses"] == PROJECT[
        "license"
    ]
    assert f"VERSION={PROJECT['version']}" in rest_of("ARG")
    assert f"org.opencontainers.image.version {PROJECT['version']}" in sections()["labels"]


def test_user_is_not_root():
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", rest_of("USER")[-1])


def test_default_command_is_the_timed_run():
    assert rest_of("CMD") == [f'["{CODE}/run_and_time.sh"]'] and rest_of("ENTRYPOINT") == []
    assert sections()["runscript"] == [f'exec {CODE}/run_and_time.sh "$@"']
    # The outputs are not in the folder of the code.
    assert rest_of("WORKDIR")[0] == CODE and rest_of("WORKDIR")[-1] == "/work"
    assert "OPENFOLD_WORK=." in " ".join(rest_of("ENV"))


def ignored(path, patterns):
    parts = path.split("/")
    for pattern in patterns:
        anywhere = pattern.removeprefix("**/")
        names = parts if anywhere != pattern else parts[:1]
        if any(fnmatch.fnmatchcase(name, anywhere) for name in names):
            return True
    return False


def test_dockerignore():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for path in (
        ".git/config",
        ".venv/bin/python",
        "runs/demo/mlperf.log",
        "data/demo/shards/index.h5",
        "benchmark/__pycache__/x.pyc",
    ):
        assert ignored(path, patterns), path
    for top in ("benchmark", "data_prep", "openfold_opt", "tools", "docker"):
        for path in (ROOT / top).rglob("*.[ps][yh]"):
            assert not ignored(str(path.relative_to(ROOT)), patterns), path


def missing_requirements(folder, packages, *extras):
    """Run the script with only the packages of one folder. Return the process and both files."""
    command = [
        sys.executable,
        "-S",
        str(ROOT / "docker/missing_requirements.py"),
        str(folder),
        *extras,
    ]
    shown = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]},
    )
    files = [folder / name for name in ("missing.txt", "held.txt")]
    return shown, [file.read_text().split() if file.exists() else None for file in files]


def install(packages, name, version, module=None):
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if module:
        (packages / module).mkdir()
        (packages / module / "__init__.py").touch()


def test_bare_python_gets_every_pin(tmp_path):
    packages = tmp_path / "packages"
    install(packages, "setuptools", "66.1.1")
    shown, (missing, held) = missing_requirements(tmp_path, packages)
    assert shown.returncode == 0, shown.stderr
    assert missing == PROJECT["dependencies"] and held == []


def test_libraries_of_the_image_are_kept(tmp_path):
    packages = tmp_path / "packages"
    install(packages, "torch", "2.13.0a0+8145d630e8.nv26.06")
    install(packages, "numpy", "2.1.0")
    install(packages, "pytorch-triton", "3.7.0", module="triton")
    shown, (missing, held) = missing_requirements(tmp_path, packages, "gpu", "mpi")
    assert shown.returncode == 0, shown.stderr
    assert "torch, numpy, triton" in shown.stdout
    names = {pin.partition("==")[0] for pin in missing}
    assert "h5py" in names and "mpi4py" in names and not names & {"torch", "numpy", "triton"}
    assert held == ["numpy==2.1.0", "pytorch-triton==3.7.0", "torch==2.13.0a0+8145d630e8.nv26.06"]


def test_unknown_extra_is_refused(tmp_path):
    shown, _ = missing_requirements(tmp_path, tmp_path, "gpus")
    assert shown.returncode == 2 and "gpus" in shown.stderr and "mpi" in shown.stderr


@pytest.fixture()
def timed_run(tmp_path):
    """Return a copy of the checkout whose python prints its arguments, and a function to start it.

    The argument of the function is OPENFOLD_WORK.
    """
    checkout = tmp_path / "checkout"
    for name in (
        "run_and_time.sh",
        "tools/environment.sh",
        "tools/embedded_data.sh",
        "benchmark/presets/demo.py",
    ):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase "$1" in -m) echo "called: $*" ;; esac\n')
    python.chmod(0o755)

    def start(work, *, called_from):
        # An empty variable is the same as no variable.
        environment = {**os.environ, "OPENFOLD_WORK": work}
        return subprocess.run(
            [checkout / "run_and_time.sh"],
            capture_output=True,
            text=True,
            cwd=called_from,
            env=environment,
        )

    return checkout, start


def test_timed_run_writes_to_openfold_work_and_not_to_the_checkout(tmp_path, timed_run):
    checkout, start = timed_run
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = sorted(checkout.rglob("*"))
    shown = start(".", called_from=elsewhere)
    assert shown.returncode == 0, shown.stderr
    assert f"called: -m data_prep synthesize --out {elsewhere}/data/demo/raw" in shown.stdout
    assert (
        f"--data-dir {elsewhere}/data/demo/shards --output-dir {elsewhere}/runs/demo-"
        in shown.stdout
    )
    assert sorted(checkout.rglob("*")) == before


def test_timed_run_writes_to_the_checkout_by_default(tmp_path, timed_run):
    checkout, start = timed_run
    shown = start("", called_from=tmp_path)
    assert (
        f"--data-dir {checkout}/data/demo/shards --output-dir {checkout}/runs/demo-" in shown.stdout
    )


def test_timed_run_refuses_a_missing_directory(tmp_path, timed_run):
    _, start = timed_run
    shown = start("absent", called_from=tmp_path)
    assert shown.returncode == 2
    assert "OPENFOLD_WORK names absent" in shown.stderr


@pytest.mark.parametrize("flags, code", [(["--help"], 0), (["--fast"], 2), (["--tag"], 2)])
def test_help_and_wrong_arguments_of_the_build_script(flags, code):
    shown = subprocess.run(
        [ROOT / "docker/build_without_docker.sh", *flags], capture_output=True, text=True
    )
    assert shown.returncode == code
    assert (
        shown.stdout.startswith("usage: docker/build_without_docker.sh")
        if code == 0
        else "see --help" in shown.stderr
    )


def linter(name):
    """Return the path of a linter on PATH or in the environment of the tests."""
    path = shutil.which(name) or shutil.which(name, path=str(pathlib.Path(sys.executable).parent))
    return path or pytest.skip(
        f"{name} is not installed (pip install {name}-{'py' if name == 'shellcheck' else 'bin'})"
    )


def test_dockerfile_passes_hadolint():
    shown = subprocess.run(
        [linter("hadolint"), "docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0 and shown.stdout == "", shown.stdout


def test_scripts_pass_shellcheck():
    scripts = [ROOT / "run_and_time.sh", ROOT / "run_tests.sh", ROOT / ".ci/run"]
    scripts += [
        path for top in ("docker", "slurm", "tools") for path in sorted((ROOT / top).rglob("*.sh"))
    ]
    shown = subprocess.run(
        [linter("shellcheck"), "-x", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stdout
