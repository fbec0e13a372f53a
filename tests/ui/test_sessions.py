"""What is held of a visitor between two clicks."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from opensora_demo.ui.sessions import LeanSession, keep_little
from tests.ui.server import Server


def change(choices: list[str]) -> Any:
    return gr.update(choices=choices, value=choices[0])


@pytest.fixture
def page() -> gr.Blocks:
    with gr.Blocks() as made:
        first = gr.Dropdown(["a", "b"], label="first")
        note = gr.HTML("")
        gr.Button().click(change, [first], [first])
        first.change(lambda value: value, [first], [note])
    return made


def test_configurations_and_values_are_not_kept(page: gr.Blocks) -> None:
    state = LeanSession(page)
    number = next(iter(page.blocks))
    state._update_value_in_config(number, "a picture" * 100)
    state[number] = page.blocks[number]
    assert list(state.components) == []
    assert state.config_values == {}
    assert state[number] is page.blocks[number]
    assert state.blocks_config.blocks is not page.default_config.blocks  # what one visitor changes is his alone


def test_a_changed_component_stays_changed_for_its_visitor(server: Server) -> None:
    """Another model's settings are what the form takes then."""
    sessions = server.page.app.state_holder
    mine = sessions["one visitor"]
    assert isinstance(mine, LeanSession)
    number, block = next((n, b) for n, b in server.page.blocks.items() if isinstance(b, gr.Dropdown))
    mine[number] = gr.Dropdown(["other"], label="other", render=False)
    assert sessions["one visitor"][number].choices == [("other", "other")]
    assert sessions["another"][number] is block
    assert sessions["one visitor"] is mine


def test_there_are_at_most_as_many_as_were_said(page: gr.Blocks) -> None:
    page.state_session_capacity = 2
    page.app = type("App", (), {})()
    keep_little(page)
    for name in "abc":
        page.app.state_holder[name]
    assert list(page.app.state_holder.session_data) == ["b", "c"]
