"""How much memory is free, and how much a run really took."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch


class PeakMemory:
    """The most bytes in use from its making on: of a GPU what tensors held, otherwise what the whole process held.

    On a CPU that includes the pages of mapped weights that were touched, and whatever other threads did meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with suppress(OSError):  # Linux: start the high-water mark anew (man 5 proc, clear_refs)
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int | None:
        """Bytes; None where the system does not say."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        with suppress(OSError):
            if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
                return 1024 * int(found.group(1))
        return None


def free_bytes(device: torch.device) -> int:
    """What could still be allocated; a great number where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    with suppress(OSError):
        if device.type == "cpu" and (
            found := re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        ):
            return 1024 * int(found.group(1))
    return 1 << 62
