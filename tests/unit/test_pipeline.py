"""The one path: event order, stopping, sharing the noise, previews that disturb nothing."""

from __future__ import annotations

from contextlib import closing
from mmap import mmap
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import torch

from opensora_demo.catalog import NANO
from opensora_demo.errors import Cancelled, NumericsError
from opensora_demo.memory import PeakMemory
from opensora_demo.pipeline import generate, run
from opensora_demo.request.events import Decoding, Encoded, Finished, Started, StepPreview
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import ModelBundle
from opensora_demo.sampling.schedule import flow_times
from opensora_demo.sampling.step import Prediction


def ask(**raw: Any) -> GenerationRequest:
    reference = raw.pop("reference", None)
    raw = {"prompt": "a red ball bouncing on a meadow", "steps": 4, "frames": 5, "seed": 3, **raw}
    return parse_request(raw, model_id="nano", limits=NANO.limits, reference=reference)


def test_events_come_in_order(nano: ModelBundle) -> None:
    events = list(generate(nano, ask()))
    kinds = [type(e) for e in events]
    assert kinds == [Started, Encoded, *[StepPreview] * 4, Decoding, Finished]
    steps = [e for e in events if isinstance(e, StepPreview)]
    assert [s.index for s in steps] == [0, 1, 2, 3]
    assert [s.t for s in steps] == pytest.approx(flow_times(4, 2.0)[:-1])
    assert all(s.previews[0].shape == (2, 64, 64, 3) and s.previews[0].dtype == np.uint8 for s in steps)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.clips[0].frames.shape == (5, 128, 128, 3)
    assert set(last.seconds) == {"text", "denoise", "decode"}


def test_same_seed_same_clip_and_another_seed_another(nano: ModelBundle) -> None:
    a, b, c = (run(nano, ask(seed=s)).clips[0].frames for s in (3, 3, 4))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_comparison_gives_the_clips_of_single_runs(nano: ModelBundle) -> None:
    together = run(nano, ask(guidance=[0, 1, 4])).clips
    assert [c.request.guidance for c in together] == [(0.0,), (1.0,), (4.0,)]
    for clip in together:
        alone = run(nano, clip.request).clips[0].frames
        assert np.abs(alone.astype(int) - clip.frames).max() <= 2  # rounding of batched products
    assert not np.array_equal(together[1].frames, together[2].frames)


def test_closing_after_n_events_ends_the_run(nano: ModelBundle) -> None:
    seen = 0
    with closing(generate(nano, ask(steps=50))) as events:
        for _ in events:
            seen += 1
            if seen == 5:
                break
    assert seen == 5
    assert not torch.is_inference_mode_enabled()


def test_a_set_flag_stops_at_the_next_step(nano: ModelBundle) -> None:
    flag, steps = Flag(), 0
    with pytest.raises(Cancelled):  # noqa: PT012 - the loop is the point
        for event in generate(nano, ask(steps=50), flag):
            if isinstance(event, StepPreview):
                steps += 1
                if steps == 2:
                    flag.set()
    assert steps == 2


def test_conditions_reach_the_clip(nano: ModelBundle) -> None:
    base = run(nano, ask()).clips[0].frames
    for change in (
        {"fps": 24},
        {"negative": "a blue square"},
        {"guidance": 7},
        {"prompt": "a blue star spinning at night"},
    ):
        assert not np.array_equal(base, run(nano, ask(**change)).clips[0].frames), change


def test_unknown_words_are_reported_once(nano: ModelBundle) -> None:
    finished = run(nano, ask(prompt="a dragon, a dragon and a ball", negative="a wyvern", steps=1))
    assert finished.unknown == ("dragon", "wyvern")


def test_a_reference_becomes_the_first_frame(nano: ModelBundle) -> None:
    from opensora_demo.toy.worlds import Scene, render

    clip, _ = render(Scene(shape="ball", colour="red", motion="right", background="meadow", seed=5), size_px=128)
    made = run(nano, ask(reference=clip[:1], prompt="a red ball moving right on a meadow", steps=10)).clips[0].frames
    error = np.square(made[0].astype(float) - clip[0]).mean()
    assert 10 * np.log10(255**2 / error) > 24


def test_numbers_that_are_not_finite_are_an_error_not_a_black_clip(
    nano: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano.family, "velocity", lambda x, *a, **k: Prediction(guided=x * float("nan")))
    with pytest.raises(NumericsError, match="step 1 of 4"):
        run(nano, ask())


@pytest.mark.slow
def test_guidance_one_evaluates_one_branch_and_batches_do_not_change_the_clip(
    nano: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = nano.family.network.forward

    def counted(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(x.shape[0])
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(nano.family.network, "forward", counted)
    for scale, batch in ((1, 1), (0, 1), (4, 2)):
        sizes.clear()
        whole = run(nano, ask(guidance=scale)).clips[0].frames
        assert sizes == [batch] * 4
    sizes.clear()
    run(nano, ask(guidance=[1, 4, 7]))
    assert sizes == [2, 5, 5, 5]  # the first step is shared, later ones leave out what weighs nothing
    monkeypatch.setattr(nano.family, "max_batch", 1)
    apart = run(nano, ask(guidance=4)).clips[0].frames
    assert np.abs(apart.astype(int) - whole).max() <= 2


def test_the_memory_of_a_run_is_measured(nano: ModelBundle) -> None:
    done = run(nano, parse_request({"prompt": "a ball", "steps": 1}, model_id="nano", limits=NANO.limits))
    assert done.peak_bytes is not None
    memory = PeakMemory(torch.device("cpu"))
    before = memory.read() or 0
    with mmap(-1, 100_000_000) as held:  # an allocator may have as much in store
        held.write(bytes(100_000_000))
        assert (memory.read() or 0) - before > 90_000_000
    assert (PeakMemory(torch.device("cpu")).read() or 0) - before < 50_000_000  # a new one starts anew
