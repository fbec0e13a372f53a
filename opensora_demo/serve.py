"""The page: `opensora-demo serve`, or `python app.py` in a checkout, then open http://127.0.0.1:7860."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

from fastapi.middleware import Middleware

from opensora_demo.catalog import DEFAULT_MODEL
from opensora_demo.cluster.join import join
from opensora_demo.cluster.zerogpu import on_this_space
from opensora_demo.errors import DemoError, RequestError
from opensora_demo.media import MAX_VIDEO_BYTES
from opensora_demo.memory import few_arenas, keep_for_good
from opensora_demo.messages import message
from opensora_demo.runtime.bundle import Bundles, fit_threads
from opensora_demo.service.engine import Engine
from opensora_demo.service.folders import process_folder, remove, sweep
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.logs import adopt, configure
from opensora_demo.service.options import (
    ENGINE,
    SERVER_OPTIONS,
    WEIGHT_OPTIONS,
    ClusterOptions,
    Environment,
    ServerAddress,
    ServerOptions,
    ZeroGpuOptions,
    add_options,
    on_zerogpu,
    read_server_options,
    read_weight_options,
)
from opensora_demo.service.outputs import OutputFolder
from opensora_demo.service.remote import connect
from opensora_demo.service.runs import Runs
from opensora_demo.service.shutdown import Shutdown
from opensora_demo.service.storage import Storage
from opensora_demo.toy.tagger import grammar
from opensora_demo.ui.clip_forms import ClipForms
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.doors import Doors
from opensora_demo.ui.gallery_files import GalleryFiles
from opensora_demo.ui.guard import Guard
from opensora_demo.ui.head import ICON
from opensora_demo.ui.language import spoken
from opensora_demo.ui.page import build_page
from opensora_demo.ui.probes import Probes
from opensora_demo.ui.sessions import keep_little
from opensora_demo.ui.shown_error import HubError
from opensora_demo.ui.theme import build_theme, page_css
from opensora_demo.ui.video_api import VideoApi
from opensora_demo.weights.options import WeightOptions

SPARE_THREADS = 40  # a run that is watched takes one, and the page is to be answered meanwhile
NEVER = "1000000000"  # calls after which Gradio sums up its statistics of them, which nobody is shown
SIDE_BY_SIDE = "20"  # answers of one function at once
SESSIONS = 200  # of whom Gradio keeps components that were changed (`ui.sessions`)
JOIN_S = 2.0  # how long the queue of runs may take to write down where it stopped


def parse_options(argv: Sequence[str] | None, environment: Environment) -> tuple[ServerOptions, WeightOptions]:
    """From the command line, then from the environment. Raises RequestError."""
    parser = argparse.ArgumentParser(prog="opensora-demo serve", description=__doc__)
    add_options(parser, (*SERVER_OPTIONS, *WEIGHT_OPTIONS))
    args = parser.parse_args(argv)
    if environment.get("WORLD_SIZE", "1") != "1":  # each of torchrun's processes would serve a page
        raise RequestError("torchrun", message("request.page_one_process"))
    return read_server_options(args, environment), read_weight_options(args, environment)


def in_front(context: PageContext, server: ServerOptions) -> tuple[Middleware, ...]:
    """What a request meets before the page does."""
    return (
        Middleware(Guard, server=server),
        Middleware(Probes, context=context, metrics=server.metrics),
        Middleware(ClipForms, files=context.files),
    )


def engine_of(server: ServerOptions, weights: WeightOptions) -> tuple[Engine, Callable[[threading.Event], None]]:
    """Who makes the clips, and what is done while the first visitor still reads the page. Raises RequestError,
    ServerError."""
    if isinstance(server.engine, ServerAddress):
        return connect(server.engine, public=server.public), threading.Event.set
    offered = replace(weights, models=server.offered, public=server.public)
    if isinstance(server.engine, ClusterOptions):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers
        return join(server.engine, offered), threading.Event.set
    if isinstance(server.engine, ZeroGpuOptions):
        if not on_zerogpu(os.environ) or find_spec("spaces") is None:
            raise RequestError(ENGINE.flag, message("request.engine_no_zerogpu"))
        lend = import_module("spaces").GPU  # imported before torch, by app.py
        return on_this_space(offered, lend, HubError, server.engine.most_s), with_words
    bundles = Bundles(offered)
    return LocalEngine(bundles, learn=True), lambda done: warm(bundles, done)


def with_words(done: threading.Event) -> None:
    """Load the words of the small models' world."""
    grammar()
    done.set()


def warm(bundles: Bundles, done: threading.Event) -> None:
    """Load the default model, and the words of its world, while the first visitor still reads the page."""
    grammar()
    try:
        bundles.get(DEFAULT_MODEL)
        done.set()
    except DemoError as error:
        logging.getLogger(__name__).error("%s", error)


def collect_from_now_on(warming: Callable[[threading.Event], None], done: threading.Event) -> None:
    """Warm up, then collect garbage again, which `opensora_demo.__main__` has left off: what is imported and loaded
    until now is kept for good, and walking through it time and again took a third of the wait for the first clip."""
    try:
        warming(done)
    finally:
        keep_for_good()
        gc.enable()


def main(argv: list[str] | None = None) -> int:
    few_arenas()
    try:
        server, weights = parse_options(argv, os.environ)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shutdown = Shutdown(remove)
    shutdown.listen()
    configure(server.log_format, server.log_level)
    fit_threads()
    sweep()
    uploads = process_folder() / "gradio"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = NEVER
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # and what is answered
    os.environ["GRADIO_DEFAULT_CONCURRENCY_LIMIT"] = SIDE_BY_SIDE  # `queue()` would build the server once more
    try:
        engine, warming = engine_of(server, weights)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        remove()
        return 2
    storage = None if server.storage is None else Storage.open(server.storage, engine)
    context = PageContext(
        engine,
        files=OutputFolder(server.keep_clips),
        downloads=server.downloads,
        about=server.about,
        runs=Runs(most=server.max_runs, most_each=server.max_runs_each, memory=engine),
        storage=storage,
    )
    page = build_page(context)
    doors = Middleware(Doors, context=context, functions=page.fns, uploads=uploads, private=not server.public)
    api = Middleware(VideoApi, context=context, server=server)  # directly in front of the doors
    of_storage = [] if storage is None else [Middleware(GalleryFiles, storage=storage)]
    if storage is not None:
        storage.worker.start()
    try:
        page.launch(
            server_name=server.host,
            server_port=server.port,
            share=server.share,
            prevent_thread_lock=True,
            show_error=False,  # only what is meant for visitors: others may name files of the server
            max_file_size=MAX_VIDEO_BYTES,
            max_threads=server.max_runs + SPARE_THREADS,
            state_session_capacity=SESSIONS,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=["api"],
            theme=build_theme(),
            css=page_css(),
            favicon_path=ICON,
            **spoken(*in_front(context, server), api, doors, *of_storage),
        )
    except OSError:
        where = f"{server.host}:{server.port}"
        print(f"Cannot listen on {where}: taken, or not allowed. Try --port with another number.", file=sys.stderr)
        if storage is not None:
            storage.worker.close()
        engine.close()
        remove()
        return 1
    # Only now: what it imports would keep the page from its first visitor.
    warm_up = threading.Thread(target=collect_from_now_on, args=(warming, context.warmed), name="warm", daemon=True)
    warm_up.start()
    keep_little(page)
    adopt("uvicorn", "uvicorn.error", "uvicorn.access")  # which the server has set up for itself
    shutdown.wait()
    of_queue = [] if storage is None else [storage.worker.close]
    after_queue = [] if storage is None else [lambda: storage.worker.join(JOIN_S)]
    runs_end = [context.runs.close, context.readers.wait, lambda: page.close(verbose=False)]
    shutdown.finish([*of_queue, engine.close, *after_queue, *runs_end])
    return 0
