"""In front of the page: by which name it may be reached, and what a browser may do with its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi.datastructures import Headers
from fastapi.responses import PlainTextResponse

from opensora_demo.messages import language_of, message, render
from opensora_demo.service.options import ON_THIS_MACHINE, ServerOptions

PROBES = ("/health", "/ready", "/metrics")  # asked by addresses rather than names
# What Gradio takes for the page's own address, and which only a proxy may say.
FORWARDED = ("x-forwarded-host", "x-gradio-server")


def policy(frames: Sequence[str]) -> str:
    """The content security policy (https://www.w3.org/TR/CSP3/). Gradio compiles its templates in the browser and has
    scripts and styles in the page itself, so that these must be allowed; nothing comes from, or goes to, another
    host."""
    parts = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": "'self' data: blob:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": " ".join(("*",) if "*" in frames else ("'self'", *frames)),
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def answer_headers(frames: Sequence[str]) -> dict[str, str]:
    """What goes along with every answer. The address of the page may hold a prompt, so it is told to nobody."""
    return {
        "content-security-policy": policy(frames),
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    }


@dataclass(frozen=True, slots=True)
class Names:
    """By which names the page may be reached: those that were given, and this machine's own where it listens to it
    alone; all where none were given and it listens to others."""

    allowed: frozenset[str]
    any: bool

    @classmethod
    def of(cls, server: ServerOptions) -> Names:
        host = server.host.strip("[]")
        alone = host in ON_THIS_MACHINE and not server.share
        own = {*ON_THIS_MACHINE, host} if alone or server.hosts else set()
        return cls(frozenset({*own, *server.hosts}), any=not (alone or server.hosts))

    def has(self, host: str) -> bool:
        """Whether it is one of them: a Host header, with a port or without."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return self.any or name in self.allowed


def own_path(scope: Any) -> str:
    """The path of a request below the page's own."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


class Guard:
    """ASGI. Requests by a foreign name are refused: a page of another site may have its own name lead to this machine
    (DNS rebinding) and is then no other site to a browser. Where visitors reach the page is believed of a known name,
    or of the hosting service's proxy. Every answer tells the browser what it may do with it."""

    def __init__(self, app: Any, server: ServerOptions) -> None:
        self.app = app
        self.names = Names.of(server)
        self.headers = [(name.encode(), value.encode()) for name, value in answer_headers(server.frames).items()]
        self.behind_proxy = server.behind_proxy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sealed(event: Any) -> None:
            if event["type"] == "http.response.start":
                said = {name.lower() for name, _ in event.get("headers", ())}
                event = event | {"headers": [*event.get("headers", ()), *(h for h in self.headers if h[0] not in said)]}
            await send(event)

        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.names.has(host) and own_path(scope) not in PROBES:
            said = render(message("request.host_name", host=host[:80]), language_of(headers.get("accept-language", "")))
            await PlainTextResponse(said, 421)(scope, receive, sealed)
            return
        if not self.behind_proxy:
            believed = [pair for pair in scope["headers"] if self._believed(*pair)]
            # What is not believed still says that there is a proxy (`context.may`).
            unnamed = [(b"via", b"unnamed")] if len(believed) < len(scope["headers"]) else []
            scope = scope | {"headers": [*believed, *unnamed]}
        await self.app(scope, receive, sealed)

    def _believed(self, name: bytes, value: bytes) -> bool:
        """Whether a header goes on to Gradio."""
        said = name.decode("latin-1").lower()
        first = value.decode("latin-1").split(",")[0].strip()
        return said not in FORWARDED or (said == "x-forwarded-host" and not self.names.any and self.names.has(first))
