"""Parts of a resumed run are linked, and a pre-empted run is not one that did not converge."""

import json
import shutil

from benchmark.__main__ import main
from benchmark.mlperf.run_log import MARK
from benchmark.results.continued import separate_resumed_runs
from benchmark.results.gather import gather
from tests.support.demo_logs import write_demo_log


def preempted(path, *, seed, error="PreemptedError"):
    """A log of a run that was stopped after an evaluation, as the run's observer writes it."""
    write_demo_log(path, seed=seed, scores=(0.5,), minutes=5)
    lines = path.read_text().splitlines()
    last = json.loads(lines[-1].partition(MARK)[2])
    last["metadata"] |= {"status": "aborted", "error": error}
    path.write_text("\n".join([*lines[:-1], MARK + json.dumps(last)]) + "\n")
    return path


def resumed_run(folder, *, seed):
    preempted(folder / "mlperf.log", seed=seed)
    write_demo_log(folder / "mlperf_continued_1.log", seed=seed, num_resumptions=1)
    return folder


def whole_runs(root, number):
    for seed in range(number):
        write_demo_log(root / f"run_{seed}" / "mlperf.log", seed=seed, minutes=5)


def test_a_resumed_run_is_one_run_and_not_one_that_did_not_converge(tmp_path, capsys):
    whole_runs(tmp_path, 3)
    resumed_run(tmp_path / "run_3", seed=3)
    assert main(["summarize", str(tmp_path), "--format", "json"]) == 1
    content = json.loads(capsys.readouterr().out)
    (each,) = content["sets"]
    assert (each["runs"], each["converged"]) == (3, 3)
    (skipped,) = content["left_out"]
    assert skipped["path"].endswith("run_3/mlperf.log")
    assert skipped["reason"] == (
        "a resumed run is not a result: one run in 2 logs: "
        "mlperf.log (preempted after 200 samples), "
        "mlperf_continued_1.log (resumed from step 0, success after 400 samples)"
    )


def test_the_first_log_alone_brings_the_others(tmp_path):
    resumed_run(tmp_path, seed=3)
    whole, reasons = separate_resumed_runs([tmp_path / "mlperf.log"])
    assert whole == []
    assert "mlperf_continued_1.log" in reasons[tmp_path / "mlperf.log"]
    # a copy of the continued log alone, elsewhere
    copy = tmp_path / "elsewhere" / "run.log"
    copy.parent.mkdir()
    shutil.copyfile(tmp_path / "mlperf_continued_1.log", copy)
    whole, reasons = separate_resumed_runs([copy])
    assert whole == [] and "its first log is missing" in reasons[copy]


def test_copies_in_one_folder_are_linked_by_their_seed(tmp_path):
    for seed in range(3):
        write_demo_log(tmp_path / f"result_{seed}.txt", seed=seed, minutes=5)
    resumed_run(tmp_path / "out", seed=7)
    shutil.move(tmp_path / "out" / "mlperf.log", tmp_path / "result_3.txt")
    shutil.move(tmp_path / "out" / "mlperf_continued_1.log", tmp_path / "result_4.txt")
    found = gather([tmp_path])
    (each,) = found.sets
    assert [run.seed for run in each.runs] == [0, 1, 2] and each.num_rejected == 1
    (rejection,) = found.rejections
    assert rejection.path.name == "result_3.txt" and "result_4.txt (resumed" in rejection.reason


def test_a_whole_run_with_the_seed_of_a_resumed_one_counts(tmp_path):
    write_demo_log(tmp_path / "result_0.txt", seed=7, minutes=5)
    write_demo_log(tmp_path / "result_1.txt", seed=7, num_resumptions=1)
    whole, reasons = separate_resumed_runs([tmp_path / "result_0.txt", tmp_path / "result_1.txt"])
    assert whole == [tmp_path / "result_0.txt"]
    assert list(reasons) == [tmp_path / "result_1.txt"]


def test_a_preempted_run_that_was_not_continued_is_skipped(tmp_path):
    whole_runs(tmp_path, 2)
    preempted(tmp_path / "run_2" / "mlperf.log", seed=2)
    found = gather([tmp_path])
    assert [len(each.runs) for each in found.sets] == [2]
    assert "preempted after 200 samples) was not continued yet" in found.rejections[0].reason


def test_a_run_that_failed_otherwise_did_not_converge(tmp_path):
    """To leave it out would be a choice among runs."""
    whole_runs(tmp_path, 2)
    preempted(tmp_path / "run_2" / "mlperf.log", seed=2, error="NonFiniteError")
    found = gather([tmp_path])
    assert found.rejections == ()
    assert [run.is_converged for run in found.sets[0].runs] == [True, True, False]
