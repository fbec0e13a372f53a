"""The page: `python app.py`, then open http://127.0.0.1:7860. Also the file a Hugging Face Space runs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading

# Idle OpenMP threads should sleep, not spin: on two cores the page and the model share them. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from opensora_demo.bundle import Bundles, fit_threads
from opensora_demo.catalog import DEFAULT_MODEL
from opensora_demo.cli import add_weight_options, apply_weight_options
from opensora_demo.errors import DemoError
from opensora_demo.ui.handlers import Handlers
from opensora_demo.ui.language import head, languages
from opensora_demo.ui.layout import build_page
from opensora_demo.ui.theme import build_theme, page_css


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    on_space = "SPACE_ID" in os.environ
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="0.0.0.0" if on_space else "127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--share", action="store_true", help="open a public address through Gradio's tunnel")
    parser.add_argument("--debug-models", action="store_true", help="offer tiny random models of every family too")
    parser.add_argument(
        "--downloads",
        action=argparse.BooleanOptionalAction,
        help="let the page download weights (by default only where nobody else can reach it)",
    )
    add_weight_options(parser)
    return parser.parse_args(argv)


def warm(bundles: Bundles) -> None:
    """Load the default model while the first visitor still reads the page."""
    try:
        bundles.get(DEFAULT_MODEL)
    except DemoError as error:
        logging.getLogger(__name__).error("%s", error)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder of clips is removed on the way out
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        apply_weight_options(arguments)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fit_threads()
    bundles = Bundles()
    alone = arguments.host in ("127.0.0.1", "localhost") and not arguments.share
    asked = {True: "always", False: "never", None: "alone" if alone else "never"}[arguments.downloads]
    handlers = Handlers(bundles, debug_models=arguments.debug_models, downloads=asked)  # type: ignore[arg-type]
    page = build_page(handlers, debug_models=arguments.debug_models).queue(max_size=20, default_concurrency_limit=20)
    threading.Thread(target=warm, args=(bundles,), name="warm", daemon=True).start()
    try:
        page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=arguments.share,
            show_error=True,
            max_file_size="30mb",
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=["api"],
            theme=build_theme(),
            css=page_css(),
            head=head(),
            i18n=languages(),
        )
    except OSError:
        where = f"{arguments.host}:{arguments.port}"
        print(f"Cannot listen on {where}: taken, or not allowed. Try --port with another number.", file=sys.stderr)
        return 1
    finally:
        handlers.files.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
