"""What a link to the page shows in a chat, and the page's size on the wire."""

from __future__ import annotations

import asyncio
import gzip
import re
from typing import Any

import pytest
from PIL import Image

from opensora_demo.messages import message, render
from opensora_demo.ui.head import CARD, CARD_PX, ICON, TITLE, with_card
from opensora_demo.ui.language import SpokenPage

GRADIO = """<html lang="en"><head><meta charset="utf-8" />
  <meta property="og:title" content="Gradio" />
  <meta
    property="og:image"
    content="https://example.org/gradio.jpg"
  />
  <meta name="twitter:title" content="Gradio" />
  <script>window.gradio_config = {"mode": "blocks", "root":"https://me.example/a%22b"};</script></head><body></body></html>"""


def properties(page: str) -> dict[str, str]:
    return dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)">', page))


def test_a_link_shows_this_demo() -> None:
    page = with_card(GRADIO, "en")
    found = properties(page)
    assert "Gradio" not in str(found)
    assert "gradio.jpg" not in page
    assert f"<title>{TITLE}</title>" in page
    assert found["og:title"] == TITLE
    assert found["description"] == found["og:description"] == render(message("ui.head.description"))
    assert found["og:url"] == "https://me.example/a%22b/"  # whole, as the visitor sees it
    assert found["og:image"].startswith("https://me.example/a%22b/ui/")
    assert found["og:image"].endswith("card.jpg")
    assert "写一句话" in properties(with_card(GRADIO, "zh"))["description"]
    assert ICON.is_file()
    with Image.open(CARD) as picture:
        assert picture.size == CARD_PX
        assert CARD.stat().st_size < 100_000


def test_no_address_gets_out_of_its_attribute() -> None:
    page = GRADIO.replace("a%22b", r"\"><b>x</b>")
    assert with_card(page, "en").count("<b>") == page.count("<b>") == 1


def test_a_configuration_alone_has_no_head() -> None:
    assert with_card('{"root": "https://me.example"}', "en") == '{"root": "https://me.example"}'


@pytest.mark.parametrize("accepted", [b"gzip, deflate, br", b""])
def test_the_page_is_compressed_where_a_browser_can_unpack_it(accepted: bytes) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"<html>" + b"long " * 2000})

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"accept-encoding", accepted)]}
    asyncio.run(SpokenPage(app)(scope, None, send))
    headers, body = dict(sent[0]["headers"]), sent[1]["body"]
    assert int(headers[b"content-length"]) == len(body)
    assert headers[b"vary"] == b"accept-language, accept-encoding"
    assert headers.get(b"content-encoding") == (b"gzip" if accepted else None)
    assert len(gzip.decompress(body) if accepted else body) == 6 + 10_000
    assert (len(body) < 1000) == bool(accepted)
