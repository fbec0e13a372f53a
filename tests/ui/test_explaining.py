"""The tab "How it works" without a browser: what a click yields, and how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from opensora_demo.catalog import NANO, ModelSpec
from opensora_demo.catalog.nano import NANO_DIT
from opensora_demo.errors import NumericsError
from opensora_demo.explain.beginning import Beginning
from opensora_demo.explain.call import Channels, Halves, Masking, Use
from opensora_demo.explain.coding import Change, Coding, Stage
from opensora_demo.explain.run import Part, Progress
from opensora_demo.messages import message, plain, render
from opensora_demo.request.parse import parse_request
from opensora_demo.request.request import GenerationRequest
from opensora_demo.runtime.bundle import Bundles, ModelBundle
from opensora_demo.service.engine import Loading, Waiting
from opensora_demo.service.local import LocalEngine
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.actions.figures import FigureActions
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.values.articles import channels_value, gates_value, halves_value, mask_value
from opensora_demo.ui.values.explain import FiguresValue, causality
from opensora_demo.ui.values.pictures import mixable, pixels
from tests.ui.conftest import read

VISITOR: Any = SimpleNamespace(session_hash="a")
SORRY, DISK = (render(message(code)) for code in ("run.sorry", "run.disk"))
HOSTILE = "a ball ${alert(1)} <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def explaining() -> Iterator[FigureActions]:
    context = PageContext(LocalEngine(Bundles()))
    yield FigureActions(context)
    context.files.close()


def test_from_a_click_to_every_figure(explaining: FigureActions, published: list[dict[str, Any]]) -> None:
    assert list(explaining.explain(VISITOR, HOSTILE, "5", "debug-1.2"))[-1] == published[-1]
    values = list(published)
    assert values[0]["phase"] == "working"
    assert values[0]["figures"] == {}
    assert any(read(v["text"]).startswith("Denoising") for v in values)
    last = json.loads(json.dumps(values[-1]))
    assert (last["phase"], last["share"], last["seed"], last["prompt"]) == ("done", 1, 5, HOSTILE)
    assert set(last["figures"]) == set(FiguresValue.__optional_keys__)
    assert "alert" in last["figures"]["attention"]["words"]
    assert HOSTILE not in json.dumps(last["figures"])
    runs = [v["run"] for v in values]
    assert len(set(runs)) == 1
    assert next(explaining.explain(VISITOR, "a ball", "", "debug-1.2"))["run"] == runs[0] + 1


def test_an_empty_form_takes_an_example(explaining: FigureActions) -> None:
    first = next(explaining.explain(VISITOR, "  ", None, "debug-1.0"))
    assert first["prompt"] == "a sailing boat on a calm lake at dawn"
    assert first["seed"] == 7
    assert next(explaining.explain(VISITOR, "", "", "nano"))["prompt"] == "a red ball bouncing over a meadow"


def test_what_does_not_apply_is_said(explaining: FigureActions) -> None:
    last = list(explaining.explain(VISITOR, "a ball", "", "debug-1.0-dit"))[-1]["figures"]
    assert "one vector" in read(last["attention"]["fact"])
    assert last["attention"]["words"] == []
    assert "IDDPM" in read(last["flow"]["fact"])
    assert "one vector" in read(last["mask"]["fact"])
    assert last["channels"]["use"] == "variance"
    assert "no such layer" in read(last["causal"]["fact"])
    last = list(explaining.explain(VISITOR, "a ball", "", "debug-1.0-pixart"))[-1]["figures"]
    assert read(last["coding"]["fact"]).endswith("One picture has no later frames to change.")


@pytest.mark.parametrize(
    ("prompt", "seed", "model", "sentence"),
    [
        ("x" * 4600, "", "nano", "prompt: must have at most"),
        ({"a": 1}, "", "nano", "prompt: must be text"),
        ("a ball", "twelve", "nano", "seed: must be a whole number"),
        ("a ball", "", "sora-9", "model: must be one of"),
        ("a ball", "", "opensora-1.2", "cannot run here"),
    ],
)
def test_bad_input_is_explained(explaining: FigureActions, prompt: Any, seed: Any, model: str, sentence: str) -> None:
    with pytest.raises(gr.Error, match=sentence):
        next(explaining.explain(VISITOR, prompt, seed, model))


def test_opening_the_tab_runs_only_what_is_quick(explaining: FigureActions) -> None:
    assert list(explaining.glance(VISITOR, "a ball", "", "opensora-1.2")) == [{"phase": "idle"}]
    assert next(explaining.glance(VISITOR, "a ball", "", "debug-1.0"))["phase"] == "working"


def watching(actions: Actions, watched: Watched) -> FigureActions:
    """With another explanation in the engine's place."""
    actions.context.engine._explain = watched
    return actions.figures


def asked() -> GenerationRequest:
    return parse_request({"prompt": "a ball"}, model_id=NANO.id, limits=NANO.limits)


class Watched:
    """Stands in for `explain`: progress until it is closed, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = False

    def __call__(self, bundle: ModelBundle, request: Any, cancel: threading.Event) -> Iterator[Part]:
        try:
            while True:
                yield Progress(done=1, total=2, text=message("run.denoising_first"))
                if self.error is not None:
                    raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NumericsError(plain("not finite")), "not finite"),
        (ZeroDivisionError("x"), SORRY),
        (OSError(28, "no space left"), DISK),
    ],
)
def test_errors_reach_the_page(actions: Actions, error: Exception, text: str) -> None:
    values = watching(actions, Watched(error)).explain(VISITOR, "a ball", "", "nano")
    seen = []
    with pytest.raises(gr.Error) as caught:
        seen.extend(values)
    assert caught.value.message == text
    assert (seen[-1]["phase"], read(seen[-1]["text"])) == ("failed", text)


def test_it_waits_for_the_device_and_can_be_stopped(actions: Actions) -> None:
    watched = Watched()
    explaining = watching(actions, watched)
    with closing(actions.context.engine.submit(asked()).events()) as other:  # type: ignore[type-var]
        assert isinstance(next(other), Loading)
        values = explaining.explain(VISITOR, "a ball", "", "nano")
        assert next(v for v in values if read(v["text"]) == "Waiting for another run to finish")
        actions.context.runs.stop("a")
        assert [v["phase"] for v in values][-1] == "stopped"


def test_a_stopped_run_releases_everything(actions: Actions) -> None:
    watched = Watched()
    values = watching(actions, watched).explain(VISITOR, "a ball", "", "nano")
    while read(next(values)["text"]) != "Denoising":
        pass
    behind = actions.context.engine.submit(asked())
    with closing(behind.events()) as events:  # type: ignore[type-var]
        assert next(events) == Waiting(1)
    assert actions.context.runs.stop("a") == 1
    assert [v["phase"] for v in values][-1] == "stopped"
    assert watched.closed
    with closing(actions.context.engine.submit(asked()).events()) as events:  # type: ignore[type-var]
        assert isinstance(next(events), Loading)
    assert actions.context.runs.stop("a") == 0


def test_causality_is_said_as_it_was_measured() -> None:
    stage = Stage("clip", (3, 9, 8, 8), np.zeros((9, 8, 8, 3), np.uint8))
    spans = ((0, 1), (1, 5), (5, 9))

    def said(*latents: float, causal: bool = True) -> str:
        return render(causality(Coding((stage,), spans, (Change(5, latents, {}),), 30.0, causal)))

    assert said(0.0, 0.0, 2.0).startswith("No latent before the change moves")
    assert said(0.0, 0.2, 2.0).startswith("Latents before the change move by up to 0.2: convolutions are causal")
    assert said(1.0, 1.0, 2.0, causal=False).endswith("this codec looks both ways.")


def test_what_the_articles_describe_is_said_of_each_model() -> None:
    """Sentences that none of the embedded models says, too."""
    numbers = {"index": 2, "total": 4, "t": 0.5, "scale": 4.0, "given": (2, 4, 1, 2, 2), "answered": (2, 8, 1, 2, 2)}
    grey = np.full((1, 2, 2, 3), 128, np.uint8)
    pictures = dict.fromkeys(("latent", "prompt", "null", "gap", "mix"), grey)

    def halves(calls: int) -> str:
        made = halves_value(Halves(**numbers, calls=calls, apart=0.0, peak=0.25, pictures=pictures))  # type: ignore[arg-type]
        assert "fact" in made
        return read(made["fact"])

    assert halves(1).endswith("All in one call.")
    assert "in 2 calls" in halves(2)

    def channels(use: Use, spec: ModelSpec, noise: tuple[float, float, float] | None = None) -> str:
        values = np.zeros((4 if use == "none" else 8, 2, 2), np.uint8)
        part = Channels(index=2, latent=4, use=use, top=1.0, values=values, noise=noise)
        return read(channels_value(part, spec)["fact"])

    assert "it is a flow" in channels("none", NANO)
    assert "fixed" in channels("none", NANO_DIT)
    assert "cuts the second off" in channels("cut", NANO)
    assert "passes over" in channels("ignored", NANO_DIT)
    assert "0.2 on average, lies between the bounds 0.1 and 0.3" in channels("variance", NANO_DIT, (0.1, 0.2, 0.3))
    assert channels("variance", NANO_DIT, (0.5, 0.505, 0.51)).endswith("near the clip.")
    assert channels("variance", NANO_DIT).endswith("adds none.")

    used = Masking(batch=2, heads=4, patches=80, words=8, used=((2, 1, 1, 8),))
    assert "20480 bytes" in read(mask_value(used, NANO)["fact"])
    assert read(mask_value(used, NANO)["fact"]).endswith("Used instead: 2 x 1 x 1 x 8, 16 bytes.")
    for large, words in ((True, "too large"), (False, "does not train")):
        missing = gates_value(Beginning((), (), too_large=large))
        assert "missing" in missing
        assert words in read(missing["missing"])


def test_pictures_are_small() -> None:
    assert pixels(np.zeros((5, 8, 8, 3), np.uint8)) | {"rgb": ""} == {"frames": 5, "height": 8, "width": 8, "rgb": ""}
    wide = pixels(np.zeros((2, 90, 160, 3), np.uint8))
    assert max(wide["height"], wide["width"]) <= 24
    assert len(mixable(np.zeros((5, 8, 8, 3), np.float32))) == 5 * 8 * 8 * 3 * 2 * 4 // 3
