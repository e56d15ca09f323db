"""Documents and scripts name only what exists."""

import pathlib
import re
import subprocess
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SUFFIXES = ("py", "md", "sh", "toml", "tsv", "json", "npz")
# Paths that a run or a conversion writes, or that are outside the checkout.
MADE_LATER = re.compile(r"^(runs|data|OUTPUT_DIR|shards|\.venv|\.\.)/|^shared/")


def named_paths(text: str) -> set[str]:
    """Relative paths with a folder and a known suffix inside backquotes or links."""
    quoted = re.findall(r"`([^`\n]+)`", text) + re.findall(r"\]\(([^)#\s]+)\)", text)
    pattern = re.compile(rf"^\.?/?[\w./-]+/[\w.-]+\.({'|'.join(SUFFIXES)})$")
    return {name.removeprefix("./") for name in quoted if pattern.match(name) and "://" not in name}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_no_missing_file(document):
    for name in sorted(named_paths(document.read_text(encoding="utf-8"))):
        if MADE_LATER.match(name):
            continue
        bases = (ROOT, document.parent, ROOT / "openfold_opt")
        assert any((base / name).exists() for base in bases), (
            f"{document.name} names {name}, which does not exist"
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_named_paths_finds_a_missing_file():
    assert named_paths("see `benchmark/nowhere.py` and [x](docs/absent.md)") == {
        "benchmark/nowhere.py",
        "docs/absent.md",
    }


@pytest.mark.parametrize("script", ["run_and_time.sh", "run_tests.sh"])
def test_scripts_explain_themselves(script):
    shown = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(f"usage: ./{script}")


def test_unknown_argument_of_the_timed_run_is_refused():
    shown = subprocess.run([ROOT / "run_and_time.sh", "--fast"], capture_output=True, text=True)
    assert shown.returncode == 2
    assert "unknown argument --fast" in shown.stderr


def test_every_verb_of_the_makefile_is_explained():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split()
    for verb in verbs:
        assert re.search(rf"^{verb}:.*##", text, re.MULTILINE), verb


def test_versions_are_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(r for group in extras.values() for r in group)]:
        assert re.fullmatch(r"[\w-]+==[\w.]+", requirement), requirement
