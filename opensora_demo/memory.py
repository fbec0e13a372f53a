"""How much memory there is, how much a run really took, and pages of mapped weights that are not needed now."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import re
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


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


def traced_peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors on the CPU held at once while `work` ran, beyond what there was before it: torch's
    profiler counts them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as trace:
        work()
    held = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


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


_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "can't start new thread")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory: torch raises a RuntimeError for a CPU's, and so does Python for a
    thread's, of which a system call says EAGAIN."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def let_go(error: BaseException) -> None:
    """Free what the calls that ended in an error held, so that the next run has room."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def keep_for_good() -> None:
    """Leave what lives now out of all later collections. A full one walks through every object while no other thread
    runs: 0.4 s and more with torch, transformers and Gradio loaded, and libraries ask for it when they close a file."""
    gc.collect()
    gc.freeze()


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


_M_ARENA_MAX = -8  # glibc, man 3 mallopt


def few_arenas(count: int = 2) -> None:
    """Before threads begin: so many heaps for all of them. By default glibc gives each of a server's short-lived
    threads a heap of its own, and what they free there is not given back: 400 MB after a dozen visits. Elsewhere
    nothing happens."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)
