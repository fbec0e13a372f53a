"""The tab "How it works" without a browser: what a click yields, and how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from opensora_demo.bundle import Bundles, ModelBundle
from opensora_demo.errors import NumericsError
from opensora_demo.explain.coding import Change, Coding, Stage
from opensora_demo.explain.run import Part, Progress
from opensora_demo.ui.explained import causality, mixable, pixels
from opensora_demo.ui.explaining import Explaining
from opensora_demo.ui.handlers import SORRY, Handlers

VISITOR: Any = SimpleNamespace(session_hash="a")
DISK = "the file could not be written; the server's disk may be full"
HOSTILE = "a ball ${alert(1)} <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def explaining() -> Iterator[Explaining]:
    handlers = Handlers(Bundles())
    yield Explaining(handlers)
    handlers.files.close()


def test_from_a_click_to_five_figures(explaining: Explaining, published: list[dict[str, Any]]) -> None:
    assert list(explaining.page_explain(VISITOR, HOSTILE, "5", "debug-1.2"))[-1] == published[-1]
    values = list(published)
    assert values[0]["phase"] == "working"
    assert values[0]["figures"] == {}
    assert any(v["text"].startswith("Denoising") for v in values)
    last = json.loads(json.dumps(values[-1]))
    assert (last["phase"], last["share"], last["seed"], last["prompt"]) == ("done", 1, 5, HOSTILE)
    assert set(last["figures"]) == {"tokens", "attention", "coding", "flow", "guidance"}
    assert "alert" in last["figures"]["attention"]["words"]
    assert HOSTILE not in json.dumps(last["figures"])
    runs = [v["run"] for v in values]
    assert len(set(runs)) == 1
    assert next(explaining.page_explain(VISITOR, "a ball", "", "debug-1.2"))["run"] == runs[0] + 1


def test_an_empty_form_takes_an_example(explaining: Explaining) -> None:
    first = next(explaining.page_explain(VISITOR, "  ", None, "debug-1.0"))
    assert first["prompt"] == "a sailing boat on a calm lake at dawn"
    assert first["seed"] == 7
    assert next(explaining.page_explain(VISITOR, "", "", "nano"))["prompt"] == "a red ball bouncing over a meadow"


def test_what_does_not_apply_is_said(explaining: Explaining) -> None:
    last = list(explaining.page_explain(VISITOR, "a ball", "", "debug-1.0-dit"))[-1]["figures"]
    assert "one vector" in last["attention"]["facts"][0]
    assert last["attention"]["words"] == []
    assert "IDDPM" in last["flow"]["facts"][0]
    last = list(explaining.page_explain(VISITOR, "a ball", "", "debug-1.0-pixart"))[-1]["figures"]
    assert last["coding"]["facts"][-1] == "One picture has no later frames to change."


@pytest.mark.parametrize(
    ("prompt", "seed", "model", "sentence"),
    [
        ("x" * 600, "", "nano", "prompt: must have at most"),
        ({"a": 1}, "", "nano", "prompt: must be text"),
        ("a ball", "twelve", "nano", "seed: must be a whole number"),
        ("a ball", "", "sora-9", "model: must be one of"),
        ("a ball", "", "opensora-1.2", "cannot run here"),
    ],
)
def test_bad_input_is_explained(explaining: Explaining, prompt: Any, seed: Any, model: str, sentence: str) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(explaining.page_explain(VISITOR, prompt, seed, model))


def test_opening_the_tab_runs_only_what_is_quick(explaining: Explaining) -> None:
    assert list(explaining.page_glance(VISITOR, "a ball", "", "opensora-1.2")) == [{"phase": "idle"}]
    assert next(explaining.page_glance(VISITOR, "a ball", "", "debug-1.0"))["phase"] == "working"


class Watched:
    """Stands in for `explain`: progress until it is closed, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = False

    def __call__(self, bundle: ModelBundle, request: Any, cancel: threading.Event) -> Iterator[Part]:
        try:
            while True:
                yield Progress(done=1, total=2, text="Denoising")
                if self.error is not None:
                    raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NumericsError("not finite"), "not finite"),
        (ZeroDivisionError("x"), SORRY),
        (OSError(28, "no space left"), DISK),
    ],
)
def test_errors_reach_the_page(handlers: Handlers, error: Exception, text: str) -> None:
    values = Explaining(handlers, watch=Watched(error)).page_explain(VISITOR, "a ball", "", "nano")
    seen = []
    with pytest.raises(gr.Error) as caught:
        seen.extend(values)
    assert caught.value.message == text
    assert (seen[-1]["phase"], seen[-1]["text"]) == ("failed", text)


def test_it_waits_for_the_device_and_can_be_stopped(handlers: Handlers) -> None:
    watched = Watched()
    with handlers.bundles.device:
        values = Explaining(handlers, watch=watched).page_explain(VISITOR, "a ball", "", "nano")
        assert next(v for v in values if v["text"] == "Waiting for another run to finish")
        handlers.jobs.stop("a")
        assert [v["phase"] for v in values][-1] == "stopped"


def test_a_stopped_run_releases_everything(handlers: Handlers) -> None:
    watched = Watched()
    values = Explaining(handlers, watch=watched).page_explain(VISITOR, "a ball", "", "nano")
    while next(values)["text"] != "Denoising":
        pass
    assert handlers.bundles.device.locked()
    assert handlers.jobs.stop("a") == 1
    assert [v["phase"] for v in values][-1] == "stopped"
    assert watched.closed
    assert not handlers.bundles.device.locked()
    assert handlers.jobs.stop("a") == 0


def test_causality_is_said_as_it_was_measured() -> None:
    stage = Stage("clip", (3, 9, 8, 8), np.zeros((9, 8, 8, 3), np.uint8))
    spans = ((0, 1), (1, 5), (5, 9))

    def said(*latents: float, causal: bool = True) -> str:
        return causality(Coding((stage,), spans, (Change(5, latents),), 30.0, causal))

    assert said(0.0, 0.0, 2.0).startswith("No latent before the change moves")
    assert said(0.0, 0.2, 2.0).startswith("Latents before the change move by up to 0.2: convolutions are causal")
    assert said(1.0, 1.0, 2.0, causal=False).endswith("this codec looks both ways.")


def test_pictures_are_small() -> None:
    assert pixels(np.zeros((5, 8, 8, 3), np.uint8)) | {"rgb": ""} == {"n": 5, "h": 8, "w": 8, "rgb": ""}
    wide = pixels(np.zeros((2, 90, 160, 3), np.uint8))
    assert max(wide["h"], wide["w"]) <= 24
    assert len(mixable(np.zeros((5, 8, 8, 3), np.float32))) == 5 * 8 * 8 * 3 * 2 * 4 // 3
