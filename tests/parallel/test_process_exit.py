"""A program exits with the right code, whatever its threads do."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, concurrent.futures, sys, threading, time
from openfold_opt.parallel.process_exit import run_program
case = sys.argv[1]
if "thread" in case:
    import torch
    a = torch.ones(100, 100)
    def compute():
        while True:
            a @ a
    threading.Thread(target=compute, daemon=True).start()
    time.sleep(0.2)
if "pool" in case:
    pool = concurrent.futures.ThreadPoolExecutor(2)
    pool.submit(int).result()
def work():
    time.sleep(0.5)
    print("worked", flush=True)
threading.Thread(target=work).start()
atexit.register(print, "cleaned up")
def main():
    print("main")
    if "usage" in case:
        sys.exit(2)
    if "text" in case:
        sys.exit("wrong")
    if "interrupt" in case:
        raise KeyboardInterrupt
    if "error" in case:
        raise OSError("disk full")
    return 75 if "code" in case else 0
run_program(main)
"""


@pytest.mark.parametrize(
    ("case", "code", "error"),
    [
        ("plain", 0, ""),
        ("code", 75, ""),
        ("plain interrupt", 130, "interrupted"),
        ("thread", 0, ""),
        ("thread code", 75, ""),
        ("usage", 2, ""),
        ("thread text", 1, "wrong"),
        ("thread interrupt", 130, "interrupted"),
        ("thread error", 1, "OSError: disk full"),
        ("pool code", 75, ""),
        ("pool thread code", 75, ""),
    ],
)
def test_exit_codes(case, code, error):
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM, case], capture_output=True, text=True, timeout=120
    )
    assert completed.returncode == code, completed.stderr
    assert (
        completed.stdout == "main\nworked\ncleaned up\n"
        and error in completed.stderr
        and "terminate" not in completed.stderr
    )
