"""The page's head: its title and icon, and what a link to it looks like in a chat."""

from __future__ import annotations

import json
import re
from html import escape

from opensora_demo.messages import Language, message, render
from opensora_demo.ui.scripts import UI_ASSETS, served_at

TITLE = "Open-Sora Demo"
CARD = UI_ASSETS / "card.jpg"  # as chats show it; written by `make_examples`
CARD_PX = (1200, 630)
ICON = UI_ASSETS / "favicon.svg"
_CARD_TAG = re.compile(r'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*>')  # Gradio's own, twice, of Gradio
_ROOT = re.compile(r'"root": ?("(?:[^"\\]|\\.)*")')


def _served(name: str) -> str:
    return f"{served_at()}/{name}"


def with_card(page: str, language: Language) -> str:
    """The page with its title, a sentence and a picture for whoever shows a link to it. Their addresses are whole, as
    readers of such tags want them: Gradio knows where the visitor finds the page, behind proxies too."""
    found = _ROOT.search(page)
    if not found or "</head>" not in page:
        return page  # its configuration alone
    root = str(json.loads(found[1])).rstrip("/")
    said = render(message("ui.head.description"), language)
    picture = f"{root}/{_served(CARD.name)}"
    properties = {
        "og:type": "website",
        "og:site_name": TITLE,
        "og:title": TITLE,
        "og:description": said,
        "og:url": f"{root}/",
        "og:image": picture,
        "og:image:width": str(CARD_PX[0]),
        "og:image:height": str(CARD_PX[1]),
        "og:image:alt": render(message("ui.head.picture"), language),
    }
    names = {"description": said, "twitter:card": "summary_large_image"}
    tags = [f"<title>{TITLE}</title>", f'<link rel="icon" type="image/svg+xml" href="{_served(ICON.name)}">']
    tags += [f'<meta property="{name}" content="{escape(value)}">' for name, value in properties.items()]
    tags += [f'<meta name="{name}" content="{escape(value)}">' for name, value in names.items()]
    return _CARD_TAG.sub("", page).replace("</head>", "".join(tags) + "</head>", 1)
