"""The container files, as far as they can be checked without a daemon: what they copy is there, what they set is known,
and what they start starts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from opensora_demo.serve import parse_options
from opensora_demo.service.options import SERVER_OPTIONS, WEIGHT_OPTIONS

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {name for option in (*SERVER_OPTIONS, *WEIGHT_OPTIONS) for name in option.variables}


def instructions() -> list[tuple[str, str]]:
    """(name, rest) of each line of the Dockerfile."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name not in ("", "#")]


def words(name: str) -> list[list[str]]:
    return [shlex.split(rest) for found, rest in instructions() if found == name]


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for line in words("ENV") for word in line)


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


def test_what_is_copied_is_there_and_not_ignored() -> None:
    sources = [source for line in words("COPY") for source in line[:-1]]
    assert {"app.py", "opensora_demo", "assets", "requirements.txt"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def test_the_python_of_the_image_is_the_one_that_is_tested() -> None:
    ((image, *_),) = words("FROM")
    space = re.search(r'python_version: "(.*)"', (ROOT / "README.md").read_text())
    assert space is not None
    assert image == f"python:{space[1]}-slim"


def test_the_container_serves_everybody_as_somebody_who_is_not_root() -> None:
    ((_, program, *argv),) = ([*map(str, yaml.safe_load(rest))] for name, rest in instructions() if name == "CMD")
    assert program == "app.py"
    server, weights = parse_options(argv, environment())
    assert server.host == "0.0.0.0"
    assert server.public
    assert str(weights.cache_dir).startswith("/data/")
    assert words("EXPOSE") == [[str(server.port)]]
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("CMD")


@pytest.mark.parametrize("name", ["worker", "page"])
def test_every_variable_is_an_option(name: str) -> None:
    given = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in services()[name]["environment"].items()}
    assert set(given) <= KNOWN
    server, _ = parse_options(["--host", "0.0.0.0"], environment() | given)
    assert (server.engine is not None) == (name == "page")


def test_the_page_asks_the_worker_with_its_token_and_by_its_name() -> None:
    worker, page = (services()[name]["environment"] for name in ("worker", "page"))
    assert page["OPENSORA_ENGINE_TOKEN"] == worker["OPENSORA_API_TOKEN"]
    assert page["OPENSORA_ENGINE_URL"] == f"http://{worker['OPENSORA_ALLOW_HOST']}:7860"
    assert list(services()["page"]["depends_on"]) == [worker["OPENSORA_ALLOW_HOST"]]
    assert "ports" not in services()["worker"]
