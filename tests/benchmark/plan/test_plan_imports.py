"""A plan answers in seconds, because its questions do not load what takes seconds to import."""

import subprocess
import sys

import pytest

SLOW = ("scipy", "triton", "matplotlib", "torch._dynamo", "torch.utils.flop_counter")
QUESTIONS = ("train", "search", "validate", "systems", "slurm", "explain")


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_does_not_load_slow_modules(question):
    code = (
        f"import sys, benchmark.plan.{question}_command\n"
        f"print([name for name in {SLOW} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
