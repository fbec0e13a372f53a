"""Errors on the way to the page."""

from __future__ import annotations

from html import escape

import gradio as gr

from opensora_demo.errors import DemoError, RequestError
from opensora_demo.messages import Language, Message, render
from opensora_demo.ui.values.common import without_places

HubError = gr.Error
"""What the hub's package `spaces` raises for a visitor to read."""


class ShownError(gr.Error):
    """A message under a title, as Gradio shows them: as HTML, so the text is escaped.

    For a program it is English, with a request's field as the API calls it; `in_language` makes it a visitor's.
    """

    def __init__(self, title: Message, problem: Message | DemoError) -> None:
        self.said = without_places(problem.message if isinstance(problem, DemoError) else problem)
        self.heading = title
        field = f"{problem.field}: " if isinstance(problem, RequestError) else ""
        english = field + render(without_places(problem.problem if isinstance(problem, RequestError) else self.said))
        super().__init__(escape(english, quote=False), title=render(title), print_exception=False)

    def in_language(self, language: Language) -> ShownError:
        """The same error in the words of a visitor, with the field as the form calls it."""
        self.message, self.title = escape(render(self.said, language), quote=False), render(self.heading, language)
        return self
