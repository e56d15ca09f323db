"""Which code ran: files and presets that are not committed, and images of other files."""

import shutil
import subprocess

import pytest

from benchmark.code_revision import code_digest, describe_commit, uncommitted_files
from benchmark.finding import FAIL, PASS
from benchmark.submission.code import commit_digest
from benchmark.submission.provenance import check_provenance
from benchmark.submission.submitted_run import find_runs
from tests.support.demo_logs import write_demo_log, write_record

FOLDERS = ("benchmark", "openfold_opt", "data_prep", "slurm")


def git(checkout, *arguments):
    command = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with a preset and a file in each folder of code."""
    root = tmp_path / "checkout"
    code = [f"{folder}/code.py" for folder in FOLDERS]
    for name in (*code, "benchmark/presets/demo.py", "docs/page.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    (root / ".gitignore").write_text("__pycache__/\n*.log\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


@pytest.mark.parametrize("folder", [*FOLDERS, "benchmark/presets"])
def test_a_new_file_in_a_folder_of_code_makes_the_commit_dirty(checkout, folder):
    head = git(checkout, "rev-parse", "HEAD")
    assert describe_commit(checkout) == head
    (checkout / folder / "new one.py").write_text("x = 1\n")
    assert describe_commit(checkout) == f"{head}-dirty"
    assert uncommitted_files(checkout) == [f"{folder}/new one.py"]


def test_a_checkout_that_git_cannot_read_is_unknown(checkout):
    (checkout / "docs" / "page.md").write_text("another page\n")
    (checkout / ".git" / "index").write_bytes(b"damaged")
    assert describe_commit(checkout) == "unknown (git refuses the checkout)"
    with pytest.raises(subprocess.CalledProcessError):
        uncommitted_files(checkout)


def test_a_tag_does_not_take_the_place_of_the_hash(checkout, tmp_path):
    git(checkout, "tag", "-a", "v1.0", "-m", "release")
    head = git(checkout, "rev-parse", "HEAD")
    assert describe_commit(checkout) == head
    image = tmp_path / "image"
    image.mkdir()
    (image / "REVISION").write_text(describe_commit(checkout) + "\n")
    assert describe_commit(image) == head


def test_ignored_files_and_other_files_are_not_code(checkout):
    for name in ("benchmark/__pycache__/code.pyc", "slurm/job.log", "notes.txt", "docs/new.md"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("x\n")
    assert describe_commit(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("change", ["changed", "removed", "staged"])
def test_a_tracked_file_that_differs_makes_the_commit_dirty(checkout, change):
    file = checkout / "docs" / "page.md"
    if change == "removed":
        file.unlink()
    else:
        file.write_text("another page\n")
    if change == "staged":
        git(checkout, "add", ".")
    assert describe_commit(checkout).endswith("-dirty")


@pytest.mark.parametrize(
    ("revision", "known"),
    [
        ("a" * 40, True),
        ("a" * 40 + "-dirty", True),
        ("unknown", False),
        ("", False),
        ("main", False),
        ("v1.0-dirty", False),
    ],
)
def test_revision_of_an_image_is_the_hash_of_a_commit(tmp_path, revision, known):
    (tmp_path / "REVISION").write_text(revision + "\n")
    assert (describe_commit(tmp_path) == revision) == known
    assert (" " in describe_commit(tmp_path)) != known


def test_the_digest_is_that_of_the_commit(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "benchmark" / "__pycache__").mkdir()
    (checkout / "benchmark" / "__pycache__" / "code.py").write_text("x\n")
    (checkout / "docs" / "page.md").write_text("another page\n")
    assert code_digest(checkout) == commit_digest(checkout, head)
    (checkout / "openfold_opt" / "code.py").write_text("y = 2\n")
    assert code_digest(checkout) != commit_digest(checkout, head)


def judge(checkout, folder, *, commit, code=None, **changes):
    write_demo_log(folder / "mlperf.log", seed=1)
    record = {} if code is None else {"code": {"sha256": code}}
    write_record(folder, commit=commit, **record, **changes)
    findings = check_provenance(find_runs([folder]), commit=commit, checkout=checkout)
    return {finding.subject: finding for finding in findings}


def test_a_preset_that_is_not_in_the_commit_is_refused(checkout, tmp_path):
    head = git(checkout, "rev-parse", "HEAD")
    assert judge(checkout, tmp_path / "a", commit=head)["preset"].state == PASS
    for preset in ("mine", "../../elsewhere/mine", "/home/me/mine.py", None):
        found = judge(checkout, tmp_path / "b", commit=head, preset=preset)["preset"]
        assert found.state == FAIL and f"preset {preset}; commit {head} has no file" in found.text
        shutil.rmtree(tmp_path / "b")


def test_an_image_of_other_files_is_refused(checkout, tmp_path):
    """Its REVISION names a clean commit, but the tree it was built from had a changed file."""
    head = git(checkout, "rev-parse", "HEAD")
    same = judge(checkout, tmp_path / "a", commit=head, code=code_digest(checkout))
    assert same["files"].state == PASS
    image = tmp_path / "image"
    shutil.copytree(checkout, image, ignore=shutil.ignore_patterns(".git"))
    (image / "REVISION").write_text(head)
    (image / "benchmark" / "presets" / "demo.py").write_text("# faster\n")
    assert describe_commit(image) == head
    found = judge(checkout, tmp_path / "b", commit=head, code=code_digest(image))["files"]
    assert found.state == FAIL and "are not those of commit" in found.text


def test_logs_without_a_record_have_nothing_to_judge(checkout, tmp_path):
    write_demo_log(tmp_path / "result_0.txt", seed=1)
    assert check_provenance(find_runs([tmp_path]), commit="0" * 40, checkout=checkout) == []
