"""How much memory there is, how much a run really took, and pages of mapped weights that are not needed now."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


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


def total_bytes(device: torch.device) -> int:
    """The device's own memory; for a CPU what this process may use of the host's; a great number where the system does
    not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return 1 << 62
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # a container's limit; "max" is none
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


MAPPED: set[str] = set()  # files that weights were mapped from, without links
_MADV_DONTNEED = 4  # Linux, man 2 madvise


def give_back(tensors: Iterable[Tensor]) -> None:
    """Take the pages of tensors that are mapped from files of weights out of this process. They stay in the system's
    cache of files while there is room, and come back when they are touched. Linux; elsewhere nothing happens."""
    starts = sorted(tensor.data_ptr() for tensor in tensors)
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, _, _, _, *path = line.split(maxsplit=5)
            first, end = (int(address, 16) for address in span.split("-"))
            # Of other memory the contents would be lost; of a file nobody writes to they are in the file.
            if path and path[0] in MAPPED and any(first <= start < end for start in starts):
                ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _MADV_DONTNEED)
