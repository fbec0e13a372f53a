"""The page in the visitor's language.

The page is built once for everybody, with marks where a text stands, and sent to each visitor with the texts in place:
`SpokenPage` asks `language_of` once, of the Accept-Language header, writes the texts, and tells the browser (as the
language of the document) what the scripts then go by. What functions of the page answer later, messages, marks and
errors, is put into words by `answering`.
"""

from __future__ import annotations

import base64
import gzip
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, get_type_hints

import gradio as gr
from fastapi.middleware import Middleware

from opensora_demo.messages import Language, Message, Param, catalog, from_json, language_of, render, to_json
from opensora_demo.ui.head import with_card
from opensora_demo.ui.scripts import PageFiles, preloads
from opensora_demo.ui.shown_error import ShownError
from opensora_demo.ui.values.common import without_places

# What Gradio's own texts are asked for in; it has no plain "zh", and none for Hong Kong.
LOCALES: dict[Language, str] = {"en": "en", "zh": "zh-CN"}
CATALOG = "\ue002"  # where the words of the scripts stand in the page's head; of the private use area too
MARK = re.compile("\ue000([\\w=-]+)\ue001")  # of the private use area, so nobody types it


def mark(said: Message) -> str:
    """A message as a text of the page that is built for everybody."""
    code = base64.urlsafe_b64encode(json.dumps(to_json(said)).encode()).decode()
    return f"\ue000{code}\ue001"


def speak(text: str, language: Language) -> str:
    """A text with its marks put into words; what only looks like a mark stays."""

    def words(found: re.Match[str]) -> str:
        try:
            said = from_json(json.loads(base64.urlsafe_b64decode(found[1])))
        except (ValueError, LookupError, TypeError, AttributeError):
            return found[0]
        return render(without_places(said), language)

    return MARK.sub(words, text)


def _in_json(text: str) -> str:
    """A text as it stands inside a string of a JSON value, in a script of an HTML page too."""
    quoted = json.dumps(text, ensure_ascii=False)[1:-1]
    return re.sub("[<>&']", lambda found: f"\\u{ord(found[0]):04x}", quoted)


class SpokenPage:
    """ASGI: the page and its configuration, on their way to the browser, in the visitor's language."""

    PATHS = ("", "config", "info")  # the last part of an address

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        whole = scope["type"] == "http" and scope["method"] == "GET"
        if not whole or scope["path"].rsplit("/", 1)[-1] not in self.PATHS:
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        language = language_of(headers.get(b"accept-language", b"").decode("latin-1"))
        start: dict[str, Any] = {}
        body = b""

        async def hold(event: Any) -> None:
            nonlocal start, body
            if event["type"] == "http.response.start":
                start = event
                return
            body += event.get("body", b"")
            if not event.get("more_body"):
                packed = b"gzip" in headers.get(b"accept-encoding", b"")
                spoken = packed_page(body.decode("utf-8"), language, packed)
                kept = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
                added = [(b"content-length", str(len(spoken)).encode())]
                added += [(b"vary", b"accept-language, accept-encoding")]
                added += [(b"content-encoding", b"gzip")] if packed else []
                await send(start | {"headers": kept + added})
                await send({"type": "http.response.body", "body": spoken})

        await self.app(scope, receive, hold)


@lru_cache(maxsize=8)
def packed_page(page: str, language: Language, packed: bool) -> bytes:
    """The page on its way: half a megabyte, or a fifth of it for a browser that can unpack."""
    spoken = spoken_page(page, language).encode()
    return gzip.compress(spoken, mtime=0) if packed else spoken


@lru_cache(maxsize=8)  # the page and its configuration, the same for every visitor of a language
def spoken_page(page: str, language: Language) -> str:
    """A page or its configuration with its texts in place. The browser is told the language before anything runs:
    Gradio's own texts go by `navigator.language`, our scripts by the document's."""
    locale = LOCALES[language]
    page = page.replace(CATALOG, _in_json(json.dumps(catalog(language), ensure_ascii=False)))
    page = MARK.sub(lambda found: _in_json(speak(found[0], language)), page)
    page = re.sub(r'(<html\s+lang=")\w+', rf"\g<1>{locale}", page, count=1)
    page = with_card(page, language)
    tell = f'<script>Object.defineProperty(navigator, "language", {{ get: () => "{locale}" }})</script>'
    return page.replace("<head>", "<head>" + tell, 1)


def spoken(*more: Middleware) -> dict[str, Any]:
    """What `launch` needs so that the page speaks; `more` is what else stands in front of it."""
    return {"head": head(), "app_kwargs": {"middleware": [Middleware(SpokenPage), Middleware(PageFiles), *more]}}


def head() -> str:
    """What our own components need in the page's head: the words of the visitor's language, put in by `spoken_page`,
    and their modules ahead of time."""
    return f'<script type="application/json" id="messages">{CATALOG}</script>{preloads()}'


def speak_to_visitors(page: gr.Blocks) -> None:
    """Have the functions of a page that has been built answer in the visitor's language. Programs call the others, the
    endpoints of the API, which speak English and name settings as their parameters are called."""
    for function in page.fns.values():
        if function.fn and function.api_visibility != "public":
            function.fn = answering(function.fn)


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its answers and errors in the visitor's language."""
    if inspect.isgeneratorfunction(function):

        def call(visitor: gr.Request, *values: Any) -> Any:
            language = language_of(accepted(visitor))
            with spoken_errors(language):
                for answer in function(*values):
                    yield spoken_answer(answer, language)
    else:

        def call(visitor: gr.Request, *values: Any) -> Any:
            language = language_of(accepted(visitor))
            with spoken_errors(language):
                return spoken_answer(function(*values), language)

    own = inspect.Parameter("visitor", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)
    signature = inspect.signature(function)
    call.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
    call.__annotations__ = get_type_hints(function) | {"visitor": gr.Request}
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


@contextmanager
def spoken_errors(language: Language) -> Iterator[None]:
    """What a function raises, in a language."""
    try:
        yield
    except ShownError as error:
        raise error.in_language(language) from error.__cause__


def accepted(request: gr.Request) -> str:
    """The Accept-Language header of a visitor."""
    return str(request.headers.get("accept-language", ""))


_OF_MARKDOWN = re.compile(r"[\\`*_\[\]<>#|~$&]")


def in_markdown(said: Message) -> Message:
    """A message for a component that draws Markdown: what is put into a sentence, a visitor's own words maybe, stands
    there as it is."""

    def as_it_is(value: Param) -> Param:
        match value:
            case Message():
                return in_markdown(value)
            case tuple():
                return tuple(as_it_is(part) for part in value)
            case str():
                return _OF_MARKDOWN.sub(r"\\\g<0>", value)
            case _:
                return value

    return Message(said.code, {name: as_it_is(value) for name, value in said.params.items()})


def spoken_answer(answer: Any, language: Language) -> Any:
    """What a function of the page answers: its messages and marks as words, also in the updates of components."""
    match answer:
        case Message():
            return render(in_markdown(without_places(answer)), language)
        case str():
            return speak(answer, language)
        case list() | tuple():
            return type(answer)(spoken_answer(part, language) for part in answer)
        case {"__type__": "update"}:
            return {name: spoken_answer(value, language) for name, value in answer.items()}
        case _:
            return answer
