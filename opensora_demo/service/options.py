"""Options from the command line, then from the environment: read once, at the edge, into frozen values.

A bad value raises RequestError whose field is the option or variable that it came from.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from opensora_demo.catalog import DEFAULT_MODEL, MODELS
from opensora_demo.errors import RequestError, WeightsError
from opensora_demo.messages import Message, message
from opensora_demo.nn.attention import AttentionKernel
from opensora_demo.text.quantized import Bits, check_bits
from opensora_demo.weights.lora import LoraFile, lora_files
from opensora_demo.weights.options import PlacementWish, Precision, WeightOptions

Who = Literal["never", "alone", "always"]
Downloads = Who
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
EngineName = Literal["local", "videos", "ray", "zerogpu"]
Environment = Mapping[str, str]
T = TypeVar("T")

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_BITS: Mapping[str, Bits] = {"16": 16, "8": 8, "4": 4}
_PLACEMENTS: Mapping[str, PlacementWish] = {
    "auto": "auto", "together": "together", "in turn": "in turn", "streamed": "streamed",
}  # fmt: skip
_KERNELS: Mapping[str, AttentionKernel] = {"auto": "auto", "fused": "fused", "plain": "plain"}
_PRECISIONS: Mapping[str, Precision] = {
    "auto": "auto", "stored": "stored", "float32": "float32", "bfloat16": "bfloat16",
}  # fmt: skip
_LOG_FORMATS: Mapping[str, LogFormat] = {"text": "text", "json": "json"}
_LOG_LEVELS: Mapping[str, LogLevel] = {"debug": "debug", "info": "info", "warning": "warning", "error": "error"}
_ENGINES: Mapping[str, EngineName] = {
    "local": "local", "videos": "videos", "ray": "ray", "zerogpu": "zerogpu",
}  # fmt: skip
MAX_PORT = 65535
MAX_REPLICAS = 1000
MAX_ABOUT = 300  # characters of what a host says about his instance
ON_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
DEFAULT_GB, MIN_GB, MAX_GB = 10.0, 0.01, 100_000.0  # of kept clips


class _Refused(Exception):
    """What a value must be; the option adds its name."""

    def __init__(self, problem: Message) -> None:
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Where clips and queued runs are kept between runs of the program, how many bytes the clips may take, and who may
    look at them from the page."""

    folder: Path
    max_bytes: int = int(DEFAULT_GB * 1e9)
    who: Who = "alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A server that speaks the dialect of /v1/videos: the address that this is below, and what must be said to it."""

    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Processes that make clips: from `least` to `most` of them as jobs wait, or always as many where these are equal.
    address: of the cluster that is joined, "auto" the one of this machine; None starts one here, for this process."""

    least: int = 1
    most: int = 1
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroGpuOptions:
    """GPUs that the hub lends for the time of a call, `most_s` seconds at most."""

    most_s: int = 120


EngineOptions = ServerAddress | ClusterOptions | ZeroGpuOptions | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How the page is served.

    public: others than who started it can reach it, so what is his alone is off (downloads, metrics, which are on again
    where they are asked for). models: ids of those that may be used; None is all but the debug models. downloads: who
    may fetch weights from the page; "alone" is whoever sits at this machine. metrics: whether /metrics answers. hosts:
    names by which visitors reach the page, besides this machine's where it listens to it alone; none is any name where
    it listens to others. frames: origins of pages that may show this one in a frame, besides its own; "*" is any.
    behind_proxy: the hosting service's own proxy stands in front, which says where visitors reach the page.
    keep_clips: how many are kept of all visitors together (a comparison has up to 25); the oldest go.
    max_runs, max_runs_each: how many may wait or run at once, of all visitors and of one address. about: what the
    host says about this instance.
    storage: what is kept on disk; None is nothing. api_token: what a program must say that calls /v1/videos; empty lets
    every visitor. engine: whose the clips are; None makes them here.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    public: bool = False
    debug_models: bool = False
    models: tuple[str, ...] | None = None
    downloads: Downloads = "alone"
    metrics: bool = True
    hosts: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    behind_proxy: bool = False
    keep_clips: int = 150
    max_runs: int = 60
    max_runs_each: int = 12
    about: str = ""
    log_format: LogFormat = "text"
    log_level: LogLevel = "warning"
    storage: StorageOptions | None = None
    api_token: str = field(default="", repr=False)
    engine: EngineOptions = None

    @property
    def offered(self) -> frozenset[str]:
        """Ids of the models that may be used."""
        usual = (spec.id for spec in MODELS.values() if not spec.hidden)
        debug = (spec.id for spec in MODELS.values() if spec.hidden)
        return frozenset((*(usual if self.models is None else self.models), *(debug if self.debug_models else ())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Generic[T]):
    """One option: its flag, the variables that stand for it in order of precedence, and how its texts are read (one,
    or several where `kind` is "list": several flags, or one variable with the system's path separator in it; those of
    "names" are separated by commas, in flags too; a "pair" is two words)."""

    flag: str
    variables: tuple[str, ...]
    read: Callable[[Sequence[str]], T]
    help: str
    metavar: str | None = None
    kind: Literal["value", "switch", "list", "names", "pair"] = "value"

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        text = f"{self.help} (or {self.variables[0]})" if self.variables else self.help
        if self.kind == "switch":
            parser.add_argument(self.flag, action=argparse.BooleanOptionalAction, help=text)
        elif self.kind == "pair":
            first, second = (self.metavar or "A B").split()
            parser.add_argument(self.flag, nargs=2, metavar=(first, second), help=text)
        else:
            action = "append" if self.kind in ("list", "names") else "store"
            parser.add_argument(self.flag, action=action, metavar=self.metavar, help=text)

    def value(self, args: argparse.Namespace, environment: Environment, default: T) -> T:
        """The argument, else the first variable that says something, else `default`. Raises RequestError."""
        given: Any = getattr(args, self.flag.removeprefix("--").replace("-", "_"), None)
        if given is not None:
            texts = given if isinstance(given, list) else [{True: "1", False: "0"}.get(given, given)]
            return self._read(self.flag, texts)
        for name in self.variables:
            if text := environment.get(name):
                return self._read(name, split_paths(text) if self.kind == "list" else [text])
        return default

    def _read(self, name: str, texts: Sequence[str]) -> T:
        try:
            return self.read(texts)
        except _Refused as error:
            raise RequestError(name, error.problem) from None


def split_paths(text: str) -> list[str]:
    """Paths with the system's separator between them, each perhaps with "=..." behind it; one that is there may have
    the separator in its name."""
    parts, found = text.split(os.pathsep), []
    while parts:
        joined = (os.pathsep.join(parts[:k]) for k in range(1, len(parts) + 1))
        whole = next((one for one in joined if Path(one).exists() or Path(one.rpartition("=")[0]).is_file()), parts[0])
        found.append(whole)
        parts = parts[whole.count(os.pathsep) + 1 :]
    return found


def _token(texts: Sequence[str]) -> str:
    token = texts[-1].strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise _Refused(message("request.token"))
    return token


def _address(texts: Sequence[str]) -> str:
    """Of a server, without a slash or /v1 at its end."""
    url = texts[-1].strip().rstrip("/").removesuffix("/v1")
    if not re.fullmatch(r"https?://[\w.\[\]:-]+(/[\w./~-]*)?", url):
        raise _Refused(message("request.address", got=texts[-1][:80]))
    return url


def _switch(texts: Sequence[str]) -> bool:
    if (word := texts[-1].strip().lower()) not in (*_TRUE, *_FALSE):
        raise _Refused(message("request.one_of", choices=("1", "0"), got=texts[-1]))
    return word in _TRUE


def _folder(texts: Sequence[str]) -> Path:
    if (folder := _at_home(texts[-1])).exists() and not folder.is_dir():
        raise _Refused(message("request.folder", got=str(folder)))
    return folder


def _at_home(path: str) -> Path:
    """With ~ as the user's home, where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _one_of(values: Mapping[str, T]) -> Callable[[Sequence[str]], T]:
    def read(texts: Sequence[str]) -> T:
        if texts[-1] not in values:
            raise _Refused(message("request.one_of", choices=tuple(values), got=texts[-1]))
        return values[texts[-1]]

    return read


def _bits(texts: Sequence[str]) -> Bits:
    bits = _one_of(_BITS)(texts)
    try:
        check_bits(bits)
    except WeightsError as error:
        raise _Refused(error.message) from None
    return bits


def _lora(text: str) -> LoraFile:
    """PATH or PATH=STRENGTH; file names of trainers have "=" in them, "epoch=3-step=1000.safetensors"."""
    lora = LoraFile(_at_home(text))
    path, equals, strength = text.rpartition("=")
    if equals and not lora.path.exists():
        try:
            number = float(strength)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            lora = LoraFile(_at_home(path), number)
        elif "." not in strength or _at_home(path).exists():  # a name of a file it is not
            raise _Refused(message("request.lora_strength", got=strength))
    try:
        lora_files(lora)
    except WeightsError as error:
        raise _Refused(error.message) from None
    return lora


def _loras(texts: Sequence[str]) -> tuple[LoraFile, ...]:
    return tuple(_lora(text) for text in texts if text)


def _words(texts: Sequence[str]) -> tuple[str, ...]:
    """Several, separated by commas or given one by one."""
    return tuple(dict.fromkeys(word for text in texts for part in text.split(",") if (word := part.strip())))


def _models(texts: Sequence[str]) -> tuple[str, ...]:
    """The default model, with which the page begins, and those that are named."""
    for name in (names := _words(texts)):
        if name not in MODELS:
            raise _Refused(message("request.one_of", choices=tuple(MODELS), got=name))
    return tuple(model for model in MODELS if model in (DEFAULT_MODEL, *names))


def _hosts(texts: Sequence[str]) -> tuple[str, ...]:
    """Names without a port, in lower case."""
    return tuple(_host([name]).lower().strip("[]") for name in _words(texts))


def _origins(texts: Sequence[str]) -> tuple[str, ...]:
    for origin in (origins := _words(texts)):
        if origin != "*" and not re.fullmatch(r"https?://[\w.*:\[\]-]+", origin):
            raise _Refused(message("request.origin", got=origin))
    return origins


def _about(texts: Sequence[str]) -> str:
    text = " ".join(texts[-1].split())
    if len(text) > MAX_ABOUT:
        raise _Refused(message("request.long", most=MAX_ABOUT, got=len(text)))
    return text


def _host(texts: Sequence[str]) -> str:
    host = texts[-1].strip()
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        if not host or any(c.isspace() or c in "/:[]" for c in host):
            raise _Refused(message("request.host", got=texts[-1])) from None
        return host
    return f"[{ip}]" if ip.version == 6 else str(ip)  # as an address of a page has it


def _whole(low: int, high: int) -> Callable[[Sequence[str]], int]:
    def read(texts: Sequence[str]) -> int:
        text = texts[-1].strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise _Refused(message("request.whole_not", got=text[:20]))
        if not low <= int(text) <= high:
            raise _Refused(message("request.between", low=low, high=high, got=int(text)))
        return int(text)

    return read


def _two_replicas(texts: Sequence[str]) -> tuple[int, int]:
    """The fewest and the most: two words, or both in one."""
    words = " ".join(texts).replace(",", " ").split()
    if not (len(words) == 2 and all(word.isascii() and word.isdigit() and len(word) < 10 for word in words)):
        raise _Refused(message("request.two_replicas", got=" ".join(words)[:40]))
    least, most = map(int, words)
    if not 1 <= least <= most <= MAX_REPLICAS:
        raise _Refused(message("request.two_replicas", got=f"{least} {most}"))
    return least, most


def _cluster(texts: Sequence[str]) -> str:
    """Of a cluster's head: "auto", or host:port. Ray's client, ray://, cannot stream what replicas say."""
    address = texts[-1].strip()
    if address != "auto" and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", address):
        raise _Refused(message("request.cluster_address", got=texts[-1][:80]))
    return address


def _folder_or_none(texts: Sequence[str]) -> Path | None:
    return None if texts[-1].strip().lower() in _FALSE else _folder(texts)


def _gigabytes(texts: Sequence[str]) -> float:
    try:
        size = float(texts[-1])
    except ValueError:
        raise _Refused(message("request.number")) from None
    if not MIN_GB <= size <= MAX_GB:
        raise _Refused(message("request.between", low=MIN_GB, high=MAX_GB, got=texts[-1]))
    return size


WEIGHTS = Option(
    flag="--weights", variables=("OPENSORA_WEIGHTS",), read=_folder, metavar="DIR",
    help="folder of published weights; downloads go there too",
)  # fmt: skip
CACHE = Option(
    flag="--cache", variables=("OPENSORA_CACHE",), read=_folder, metavar="DIR",
    help="folder in which encoded prompts (and training runs) are kept",
)  # fmt: skip
OFFLINE = Option(
    flag="--offline", variables=("OPENSORA_OFFLINE",), read=_switch, kind="switch",
    help="do not ask the hub for weights",
)  # fmt: skip
ALLOW_PICKLE = Option(
    flag="--allow-pickle", variables=("OPENSORA_ALLOW_PICKLE",), read=_switch, kind="switch",
    help="open .pth and .bin files too, for their tensors only",
)  # fmt: skip
T5_BITS = Option(
    flag="--t5-bits", variables=("OPENSORA_T5_BITS",), read=_bits, metavar="{16,8,4}",
    help="fewer for less memory: 8 needs torchao, 4 bitsandbytes",
)  # fmt: skip
LORAS = Option(
    flag="--lora", variables=("OPENSORA_LORA",), read=_loras, kind="list", metavar="FILE[=STRENGTH]",
    help="a LoRA for Open-Sora 2.0: safetensors, or a folder of peft's; may be given several times",
)  # fmt: skip
PLACEMENT = Option(
    flag="--placement", variables=("OPENSORA_PLACEMENT",), read=_one_of(_PLACEMENTS), metavar="WAY",
    help="of a published model's parts on a GPU: auto, together, in turn or streamed",
)  # fmt: skip
ATTENTION = Option(
    flag="--attention", variables=("OPENSORA_ATTENTION",), read=_one_of(_KERNELS), metavar="KERNEL",
    help="how a network computes attention: auto, fused or plain (plain holds all scores, which only small ones can)",
)  # fmt: skip
PRECISION = Option(
    flag="--precision", variables=("OPENSORA_PRECISION",), read=_one_of(_PRECISIONS), metavar="NUMBERS",
    help="of network and codec: auto (bfloat16 where it was measured to be faster), stored, float32 or bfloat16",
)  # fmt: skip
WEIGHT_OPTIONS: tuple[Option[Any], ...] = (
    WEIGHTS, CACHE, OFFLINE, ALLOW_PICKLE, T5_BITS, LORAS, PLACEMENT, ATTENTION, PRECISION
)  # fmt: skip

HOST = Option(flag="--host", variables=("GRADIO_SERVER_NAME",), read=_host, help="address to listen on")
PORT = Option(
    flag="--port",
    variables=("GRADIO_SERVER_PORT",),
    read=_whole(1, MAX_PORT),
    help="port to listen on; 7860 if left out",
)
SHARE = Option(
    flag="--share", variables=("GRADIO_SHARE",), read=_switch, kind="switch",
    help="open a public address through Gradio's tunnel",
)  # fmt: skip
DEBUG_MODELS = Option(
    flag="--debug-models", variables=("OPENSORA_DEBUG_MODELS",), read=_switch, kind="switch",
    help="offer tiny random models of every family too",
)  # fmt: skip
DOWNLOADS: Option[bool | None] = Option(
    flag="--downloads", variables=("OPENSORA_DOWNLOADS",), read=_switch, kind="switch",
    help="let the page download weights; if left out only where nobody else can reach it",
)  # fmt: skip
PUBLIC: Option[bool | None] = Option(
    flag="--public", variables=("OPENSORA_PUBLIC",), read=_switch, kind="switch",
    help="others can reach the page, so downloads and metrics are off; if left out as the other options say",
)  # fmt: skip
ONLY: Option[tuple[str, ...] | None] = Option(
    flag="--only", variables=("OPENSORA_ONLY",), read=_models, kind="names", metavar="MODELS",
    help=f"offer these models alone, such as nano,nano-dit; {DEFAULT_MODEL} is always one of them",
)  # fmt: skip
METRICS: Option[bool | None] = Option(
    flag="--metrics", variables=("OPENSORA_METRICS",), read=_switch, kind="switch",
    help="answer /metrics; if left out only where nobody else can reach the page",
)  # fmt: skip
HOSTS = Option(
    flag="--allow-host", variables=("OPENSORA_ALLOW_HOST",), read=_hosts, kind="names", metavar="NAMES",
    help="names by which visitors reach the page, behind a reverse proxy its name; others are refused",
)  # fmt: skip
FRAMES = Option(
    flag="--embed", variables=("OPENSORA_EMBED",), read=_origins, kind="names", metavar="ORIGINS",
    help="pages that may show this one in a frame, such as https://example.org, or * for any",
)  # fmt: skip
KEEP_CLIPS = Option(
    flag="--keep-clips", variables=("OPENSORA_KEEP_CLIPS",), read=_whole(1, 100_000), metavar="N",
    help="clips that are kept of all visitors together, the oldest go; 150 if left out",
)  # fmt: skip
MAX_RUNS = Option(
    flag="--max-runs", variables=("OPENSORA_MAX_RUNS",), read=_whole(1, 1000), metavar="N",
    help="runs that may wait or go on at once; 60 if left out",
)  # fmt: skip
MAX_RUNS_EACH = Option(
    flag="--max-runs-each", variables=("OPENSORA_MAX_RUNS_EACH",), read=_whole(1, 1000), metavar="N",
    help="the same of one address, which a class may share; 12 if left out",
)  # fmt: skip
ABOUT = Option(
    flag="--about", variables=("OPENSORA_ABOUT",), read=_about, metavar="TEXT",
    help="what the page says about this instance, such as who runs it",
)  # fmt: skip
LOG_FORMAT = Option(
    flag="--log-format", variables=("OPENSORA_LOG_FORMAT",), read=_one_of(_LOG_FORMATS), metavar="FORMAT",
    help="of the lines on stderr: text, or json, one object a line",
)  # fmt: skip
LOG_LEVEL = Option(
    flag="--log-level", variables=("OPENSORA_LOG_LEVEL",), read=_one_of(_LOG_LEVELS), metavar="LEVEL",
    help="debug, info (every job), warning or error",
)  # fmt: skip
GALLERY = Option(
    flag="--gallery", variables=("OPENSORA_GALLERY",), read=_folder_or_none, metavar="DIR",
    help="folder in which clips and queued runs are kept; off keeps none, as a page does that others can reach",
)  # fmt: skip
GALLERY_GB = Option(
    flag="--gallery-gb", variables=("OPENSORA_GALLERY_GB",), read=_gigabytes, metavar="N",
    help=f"gigabytes that kept clips may take, beyond which the oldest go; {DEFAULT_GB:g} if left out",
)  # fmt: skip
API_TOKEN = Option(
    flag="--api-token", variables=("OPENSORA_API_TOKEN",), read=_token, metavar="TOKEN",
    help="what programs must send to /v1/videos, as Authorization: Bearer TOKEN; if left out nothing",
)  # fmt: skip
ENGINE = Option(
    flag="--engine", variables=("OPENSORA_ENGINE",), read=_one_of(_ENGINES), metavar="ENGINE",
    help="who makes the clips: local, this process; videos, a server at --engine-url; ray, replicas on a cluster; "
    "zerogpu, on a Space with that hardware, and there if left out",
)  # fmt: skip
ENGINE_URL: Option[str | None] = Option(
    flag="--engine-url", variables=("OPENSORA_ENGINE_URL",), read=_address, metavar="URL",
    help="a server with /v1/videos, such as http://127.0.0.1:8000: this demo, vLLM-Omni or SGLang Diffusion",
)  # fmt: skip
ENGINE_TOKEN = Option(
    flag="--engine-token", variables=("OPENSORA_ENGINE_TOKEN",), read=_token, metavar="TOKEN",
    help="what that server wants as Authorization: Bearer TOKEN",
)  # fmt: skip
REPLICAS: Option[int | None] = Option(
    flag="--replicas", variables=("OPENSORA_REPLICAS",), read=_whole(1, MAX_REPLICAS), metavar="N",
    help="of --engine ray: processes that make clips, one at a time each; 1 if left out",
)  # fmt: skip
AUTOSCALE: Option[tuple[int, int] | None] = Option(
    flag="--autoscale", variables=("OPENSORA_AUTOSCALE",), read=_two_replicas, kind="pair", metavar="MIN MAX",
    help="of --engine ray: as many as jobs wait for, from MIN to MAX",
)  # fmt: skip
ADDRESS: Option[str | None] = Option(
    flag="--address", variables=("OPENSORA_ADDRESS",), read=_cluster, metavar="HOST:PORT",
    help="of --engine ray: the cluster that is joined, or auto for this machine's; if left out one is started here",
)  # fmt: skip
GPU_SECONDS: Option[int | None] = Option(
    flag="--gpu-seconds", variables=("OPENSORA_GPU_SECONDS",), read=_whole(10, 3600), metavar="N",
    help="of --engine zerogpu: what a run may ask a GPU for; 120 if left out",
)  # fmt: skip
CLUSTER_OPTIONS: tuple[Option[Any], ...] = (REPLICAS, AUTOSCALE, ADDRESS)
STORAGE_OPTIONS: tuple[Option[Any], ...] = (GALLERY, GALLERY_GB)
SERVER_OPTIONS: tuple[Option[Any], ...] = (
    HOST, PORT, SHARE, PUBLIC, ONLY, DEBUG_MODELS, DOWNLOADS, METRICS, HOSTS, FRAMES, KEEP_CLIPS,
    MAX_RUNS, MAX_RUNS_EACH, ABOUT,
    LOG_FORMAT, LOG_LEVEL, API_TOKEN, ENGINE, ENGINE_URL, ENGINE_TOKEN, *CLUSTER_OPTIONS, GPU_SECONDS, *STORAGE_OPTIONS,
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option[Any]]) -> None:
    for option in options:
        option.add_to(parser)


def read_cache_dir(args: argparse.Namespace, environment: Environment) -> Path:
    """Where what can be made again is kept: by default in the user's cache, as the XDG base directory specification has
    it. Raises RequestError."""
    base = environment.get("XDG_CACHE_HOME")
    return CACHE.value(args, environment, Path(base) / "opensora-demo" if base else _home_cache())


def _home_cache() -> Path:
    """In the user's home; the user of a container may have none."""
    try:
        return Path.home() / ".cache" / "opensora-demo"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"opensora-demo-{os.getuid()}"


def data_dir(environment: Environment) -> Path | None:
    """Where what a person made is kept, as the XDG base directory specification has it; None without a home."""
    if base := environment.get("XDG_DATA_HOME"):
        return Path(base) / "opensora-demo"
    try:
        return Path.home() / ".local" / "share" / "opensora-demo"
    except RuntimeError:
        return None


def read_storage_options(
    args: argparse.Namespace, environment: Environment, *, alone: bool = True
) -> StorageOptions | None:
    """None where nothing is to be kept: where that was said, and, if nothing was, where the machine's owner is not
    `alone`. Raises RequestError."""
    folder = GALLERY.value(args, environment, data_dir(environment) if alone else None)
    size = GALLERY_GB.value(args, environment, DEFAULT_GB)
    if folder is None:
        return None
    return StorageOptions(folder=folder, max_bytes=int(size * 1e9), who="alone" if alone else "always")


def read_weight_options(args: argparse.Namespace, environment: Environment) -> WeightOptions:
    """Raises RequestError. HF_HUB_OFFLINE counts as the hub's own client reads it."""
    hub_offline = environment.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    return WeightOptions(
        weights_dir=WEIGHTS.value(args, environment, Path("weights")),
        cache_dir=read_cache_dir(args, environment),
        offline=OFFLINE.value(args, environment, hub_offline),
        allow_pickle=ALLOW_PICKLE.value(args, environment, False),
        t5_bits=T5_BITS.value(args, environment, 16),
        loras=LORAS.value(args, environment, ()),
        placement=PLACEMENT.value(args, environment, "auto"),
        attention=ATTENTION.value(args, environment, "auto"),
        precision=PRECISION.value(args, environment, "auto"),
    )


def on_zerogpu(environment: Environment) -> bool:
    """On a Space with that hardware, as the hub's package `spaces` reads it."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in _TRUE


def _read_engine(args: argparse.Namespace, environment: Environment) -> EngineOptions:
    """Raises RequestError where what is said does not go together."""
    engine = ENGINE.value(args, environment, "zerogpu" if on_zerogpu(environment) else "local")
    url = ENGINE_URL.value(args, environment, None)
    token = ENGINE_TOKEN.value(args, environment, "")
    cluster = read_cluster_options(args, environment, chosen=engine == "ray")
    gpu_s = GPU_SECONDS.value(args, environment, None)
    if gpu_s is not None and engine != "zerogpu":
        raise RequestError(GPU_SECONDS.flag, message("request.engine_zerogpu"))
    if engine != "videos":
        if url is not None or token:
            name = ENGINE_URL.flag if url is not None else ENGINE_TOKEN.flag
            raise RequestError(name, message("request.engine_videos"))
        if engine == "zerogpu":
            return ZeroGpuOptions() if gpu_s is None else ZeroGpuOptions(most_s=gpu_s)
        return cluster
    if url is None:
        raise RequestError(ENGINE_URL.flag, message("request.missing"))
    if ONLY.value(args, environment, None) is not None:
        raise RequestError(ONLY.flag, message("request.engine_models"))
    return ServerAddress(url=url, token=token)


def read_cluster_options(
    args: argparse.Namespace, environment: Environment, *, chosen: bool = True
) -> ClusterOptions | None:
    """None where the cluster was not `chosen`. Raises RequestError."""
    found = {option.flag: option.value(args, environment, None) for option in CLUSTER_OPTIONS}
    for flag, value in found.items():
        if value is not None and not chosen:
            raise RequestError(flag, message("request.engine_ray"))
    if not chosen:
        return None
    replicas, pair = found[REPLICAS.flag], found[AUTOSCALE.flag]
    if replicas is not None and pair is not None:
        raise RequestError(AUTOSCALE.flag, message("request.not_with", other=REPLICAS.flag))
    least, most = pair or (replicas or 1,) * 2
    return ClusterOptions(least=least, most=most, address=found[ADDRESS.flag])


def read_server_options(args: argparse.Namespace, environment: Environment) -> ServerOptions:
    """Raises RequestError. On a Hugging Face Space (SPACE_ID) the page listens to everybody, and may be framed by
    anybody, as Spaces are."""
    space = "SPACE_ID" in environment
    host = HOST.value(args, environment, "0.0.0.0" if space else "127.0.0.1")
    share = SHARE.value(args, environment, False)
    hosts = HOSTS.value(args, environment, ())
    wish = PUBLIC.value(args, environment, None)
    alone = host.strip("[]") in ON_THIS_MACHINE and not share and not hosts
    public = not alone if wish is None else wish
    downloads: Downloads = "never" if public else "alone"
    if (wish := DOWNLOADS.value(args, environment, None)) is not None:
        downloads = "always" if wish else "never"
    metrics = METRICS.value(args, environment, None)
    return ServerOptions(
        host=host,
        port=PORT.value(args, environment, 7860),
        share=share,
        public=public,
        debug_models=DEBUG_MODELS.value(args, environment, False),
        models=ONLY.value(args, environment, None),
        downloads=downloads,
        metrics=not public if metrics is None else metrics,
        hosts=hosts,
        frames=FRAMES.value(args, environment, ("*",) if space else ()),
        behind_proxy=space or share,
        keep_clips=KEEP_CLIPS.value(args, environment, 150),
        max_runs=MAX_RUNS.value(args, environment, 60),
        max_runs_each=MAX_RUNS_EACH.value(args, environment, 12),
        about=ABOUT.value(args, environment, ""),
        log_format=LOG_FORMAT.value(args, environment, "text"),
        log_level=LOG_LEVEL.value(args, environment, "warning"),
        storage=read_storage_options(args, environment, alone=not public),
        api_token=API_TOKEN.value(args, environment, ""),
        engine=_read_engine(args, environment),
    )
