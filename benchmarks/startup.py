"""What the command line costs before it does anything, as a ratio to starting Python.

    python benchmarks/startup.py [REPEATS]

Typer and pydantic are most of it; the verbs' own libraries are loaded when they run.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

AVENIR = str(Path(sys.executable).with_name("avenir"))
COMMANDS = [["--help"], ["train", "--help"]]


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print("| command | times a bare Python start |\n|---|---|")
    for words in COMMANDS:
        # Side by side, so that both meet the same machine.
        pairs = [
            (seconds(AVENIR, *words), seconds(sys.executable, "-c", "")) for _ in range(repeats)
        ]
        ratio = statistics.median(ours / bare for ours, bare in pairs)
        print(f"| `avenir {' '.join(words)}` | {ratio:.1f} |")


if __name__ == "__main__":
    main()
