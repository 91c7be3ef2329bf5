"""The most memory a process has held, by itself."""

import resource
import sys
from pathlib import Path


def peak_mb() -> float:
    """Return it in MB. `ru_maxrss` alone will not do: a child begins at its parent's peak."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
