"""What the suite promises its tests: see `Tidy` in conftest.py."""

from __future__ import annotations

import asyncio
import gc
import warnings

from gradio.utils import safe_get_lock


def test_no_event_loop_of_a_page_is_left_to_the_collector() -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        safe_get_lock()
        safe_get_lock()
        asyncio.run(asyncio.sleep(0))
        gc.collect()
    assert not [str(w.message) for w in seen]
