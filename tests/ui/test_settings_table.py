"""A setting that is added to the table is everywhere: nothing else lists them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pytest

from opensora_demo import cli
from opensora_demo.catalog import NANO
from opensora_demo.errors import RequestError
from opensora_demo.messages import catalog, message
from opensora_demo.request import parse
from opensora_demo.request import settings as table
from opensora_demo.request.limits import Range
from opensora_demo.request.request import GenerationRequest
from opensora_demo.request.settings import Chip, Number, Setting
from opensora_demo.runtime.cost.estimator import Estimator
from opensora_demo.service.forms import compare_names, cost_names, parse_form
from opensora_demo.service.links import checked_settings, link_query
from opensora_demo.service.local import LocalEngine
from opensora_demo.ui.api import Api, endpoint
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.controls import limit_updates, pick_updates
from opensora_demo.ui.form_memory import keep_js
from opensora_demo.ui.language import speak
from opensora_demo.ui.page import build_page
from opensora_demo.ui.values.stage import chip_value, chips
from tests.ui.conftest import FakeBundles

CHURN = Setting(
    name="churn",
    help="noise that is added on the way",
    kind=Number(),
    limit=lambda limits: Range(low=0, high=1, default=0.25, step=0.05),
    left_out=0,
    costs=True,
    chip=Chip(name="churn", place=13),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Churned(GenerationRequest):
    churn: float = 0.0


@pytest.fixture(autouse=True)
def _with_churn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SETTINGS", (*table.SETTINGS, CHURN))
    monkeypatch.setattr(parse, "GenerationRequest", Churned)
    words = {"label.churn": "Churn", "label.churn.hint": "How much noise comes back.", "label.chip.churn": "churn"}
    for code, text in words.items():
        monkeypatch.setitem(catalog("en"), code, text)  # type: ignore[arg-type]


def request_of(**raw: Any) -> GenerationRequest:
    return parse.parse_request({"prompt": "a ball", "seed": 3} | raw, model_id="nano", limits=NANO.limits)


def test_parser_files_links_and_chips_have_it() -> None:
    assert request_of().churn == 0.25  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="churn: must lie between 0 and 1, not 2"):
        request_of(churn=2)
    settings = request_of(churn="0.5").settings()
    assert settings["churn"] == 0.5
    assert "churn" not in request_of(churn=0).settings()
    assert chip_value(message("label.chip.churn"), "0.5") in chips(settings)
    assert "churn=0.5" in link_query(settings)
    assert "churn=0.25" in link_query(request_of().settings())  # without it a link means 0
    found, ignored = checked_settings({"churn": "0.75", "prompt": "a ball"})
    assert (found["churn"], ignored) == (0.75, [])
    assert pick_updates({"churn": 0.75, "model": "nano"})["churn"]["value"] == 0.75


def test_forms_and_their_memory_have_it() -> None:
    form = dict.fromkeys(compare_names()) | {"prompt": "a ball", "model": "nano", "churn": 0.5}
    _, request = parse_form(form, Estimator())
    assert request.churn == 0.5  # type: ignore[attr-defined]
    assert "churn" in cost_names()
    assert '"churn"' in keep_js()
    kept = limit_updates("nano-dit", form, "nano")["churn"]
    assert kept == gr.update(minimum=0, maximum=1, value=0.5, step=0.05, visible=True)


def test_command_line_and_api_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "compare"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert "--churn CHURN" in (shown := capsys.readouterr().out)
        assert CHURN.help in shown
    api = Api(PageContext(FakeBundles()))
    for function in (api.generate, api.compare):
        *before, last = inspect.signature(endpoint(function)).parameters.values()
        assert (last.name, last.default) == ("churn", None)
        names = [p.name for p in before if p.name != "visitor"]
        assert names[:3] == ["prompt", "negative", "reference"]  # by position as ever
    api.context.files.close()


def test_the_page_has_it() -> None:
    context = PageContext(LocalEngine(FakeBundles()))
    page = build_page(context)
    context.files.close()
    (control,) = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == "churn"]
    assert isinstance(control, gr.Slider)
    assert [speak(text, "en") for text in (control.label, control.info)] == ["Churn", "How much noise comes back."]
    assert (control.minimum, control.maximum, control.value) == (0, 1, 0.25)
    listening = [function for function in page.fns.values() if control in function.inputs]
    assert {"make_clip", "make_comparison", "cost"} <= {function.name for function in listening}
    assert any(control in function.outputs for function in page.fns.values() if function.name == "pick")
