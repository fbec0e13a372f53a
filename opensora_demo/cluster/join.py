"""The way to a cluster, from which nobody imports Ray who does not go it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec

from opensora_demo.cluster.engine import ClusterEngine
from opensora_demo.errors import RequestError
from opensora_demo.messages import message
from opensora_demo.service.options import ENGINE, REPLICAS, ClusterOptions
from opensora_demo.weights.options import WeightOptions


def join(options: ClusterOptions, weights: WeightOptions) -> ClusterEngine:
    """An engine of a cluster, which is started or joined. Raises RequestError where Ray is not installed or there is
    too little for so many replicas, ServerError where the cluster does not come up."""
    check_installed()
    from opensora_demo.cluster.on_ray import connect

    return connect(options, found_anywhere(weights))


def restart(options: ClusterOptions, weights: WeightOptions) -> None:
    """Replace the replicas of a cluster, of this machine's where no address is given, one after the other. Raises the
    same."""
    check_installed()
    from opensora_demo.cluster.on_ray import replace_replicas

    replace_replicas(options, found_anywhere(weights))


def check_installed() -> None:
    """Raises RequestError."""
    if find_spec("ray") is None:
        raise RequestError(ENGINE.flag, message("request.engine_no_ray"))


def found_anywhere(weights: WeightOptions) -> WeightOptions:
    """The same for a process that works in another folder."""
    cache = weights.cache_dir
    return replace(
        weights, weights_dir=weights.weights_dir.absolute(), cache_dir=None if cache is None else cache.absolute()
    )


def shares(resources: Mapping[str, float], replicas: int) -> dict[str, float]:
    """What each of so many replicas gets of a cluster: whole cores if there are enough, a GPU of its own where there
    are any. Raises RequestError where there are fewer GPUs."""
    cores = resources.get("CPU", 1.0) / replicas
    share = {"num_cpus": float(math.floor(cores)) if cores >= 1 else math.floor(100 * cores) / 100}
    if gpus := math.floor(resources.get("GPU", 0.0)):
        if replicas > gpus:
            raise RequestError(REPLICAS.flag, message("request.between", low=1, high=gpus, got=replicas))
        share["num_gpus"] = 1.0
    return share
