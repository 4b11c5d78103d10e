#!/usr/bin/env python3
"""Shows that the tests catch deliberate faults in the Hopper kernels: every mutant must make them fail.

usage: tests/cuda/mutants.py DIR       DIR holds libquire_cuda.so and libquire_cuda_mutant_N.so (target cuda_mutants)

Each library runs the bf16 d128 part of test_forward.py in a process of its own: a wrong barrier may hang the GPU code, which
counts as caught. The library without a fault must pass.
"""
import os
import pathlib
import re
import subprocess
import sys

TIMEOUT_SECONDS = 40
SELECTION = "128 and (dense_lengths and dtype0 or windows or varlen or paged or decode or thousand)"


def run(library, root):
    """(passed, last words) of the tests over one library."""
    environment = dict(os.environ, QUIRE_CUDA_LIBRARY=str(library), PYTHONDONTWRITEBYTECODE="1",
                       PYTHONPATH=os.pathsep.join([str(root / "python"), str(root / "tests/cuda")]))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line", "-k", SELECTION,
               str(root / "tests/cuda/test_forward.py")]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"no end within {TIMEOUT_SECONDS} s"
    lines = [line for line in result.stdout.splitlines() if line.startswith("FAILED")] or result.stdout.splitlines()[-1:]
    return result.returncode == 0, lines[0] if lines else result.stderr[-200:]


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]).resolve()
    names = dict(re.findall(r"k(\w+) = (\d),", (root / "src/kernels/cuda/sm90/params.h").read_text()))
    names = {int(number): name for name, number in names.items()}
    passed, words = run(folder / "libquire_cuda.so", root)
    print(f"no fault: {'passes' if passed else 'FAILS: ' + words}", flush=True)
    faults = 0 if passed else 1
    for number, name in sorted(names.items()):
        passed, words = run(folder / f"libquire_cuda_mutant_{number}.so", root)
        print(f"{name}: {'NOT CAUGHT' if passed else 'caught: ' + words[:150]}", flush=True)
        faults += passed
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
