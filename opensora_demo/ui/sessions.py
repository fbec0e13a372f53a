"""What Gradio keeps for each open page, less what only its own deep links read.

Gradio 6 (state_holder.py, SessionState.config_values) keeps the configuration of every component and the last value it
was sent, so that `gr.DeepLinkButton` can write them down. This page has links of its own; half a megabyte a visitor,
and then every picture of a run, would be held for nothing.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState, StateHolder


class Nothing(dict[int, dict[str, Any]]):
    """Configurations that are not kept: there is an empty one for every component."""

    def __contains__(self, component: object) -> bool:
        return True

    def __getitem__(self, component: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, component: int, config: dict[str, Any]) -> None:
        pass


class LeanSession(SessionState):
    """A session with its changed components and its values of `gr.State`, and no configurations."""

    def __init__(self, blocks: gr.Blocks) -> None:
        without: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(without)
        self.config_values = Nothing()


class LeanSessions(StateHolder):
    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = LeanSession(self.blocks)
        return super().__getitem__(session_id)


def keep_little(page: gr.Blocks) -> None:
    """From now on, of a page that is served."""
    sessions = LeanSessions()
    sessions.set_blocks(page)
    page.app.state_holder = sessions
