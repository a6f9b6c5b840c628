"""How long it takes to see where a model could go, and how good the bounded search is.

    python -m benchmarks.placement [--nodes 64] [--clusters 20] [--seed 0]

The clusters are random: devices from a laptop to a large GPU, links from Thunderbolt to Wi-Fi.
`previews` is what `/instance/previews` computes, `place` what `POST /instance` does. Times are
milliseconds in one thread; `worse` compares the bounded search with the exact one on clusters that
are small enough for both.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any
from unittest import mock

from exo.cluster.placement import NodeResources, Objective, Wanted, options, pipeline, place
from exo.cluster.state import LinkInfo
from exo.device.profile import DeviceProfile
from exo.errors import PlacementImpossible
from exo.models.card import ModelCard

GIB = 2**30
# Kind, memory in GiB, FLOP/s, bytes/s.
DEVICES = (
    ("cpu", 8, 2e11, 3e10),
    ("cpu", 32, 5e11, 6e10),
    ("metal", 12, 6e12, 1e11),
    ("metal", 48, 1.5e13, 4e11),
    ("metal", 160, 3e13, 8e11),
    ("cuda", 22, 1e14, 9e11),
)
# Round trip in seconds, bytes/s.
LINKS = ((6e-5, 2e9), (2e-4, 1.2e8), (5e-4, 1.1e8), (4e-3, 3e7))
SHAPES = {
    "8B": (32, 4096, 32, 8, 128, 4.5e9),
    "70B": (80, 8192, 64, 8, 128, 4.0e10),
    "405B": (126, 16384, 128, 8, 128, 2.3e11),
}


def card(name: str) -> ModelCard:
    layers, hidden, heads, kv_heads, head_dim, size = SHAPES[name]
    return ModelCard.model_validate(
        {
            "model_id": name,
            "family": "llama",
            "architecture": "llama",
            "n_layers": layers,
            "hidden_size": hidden,
            "n_heads": heads,
            "n_kv_heads": kv_heads,
            "head_dim": head_dim,
            "vocab_size": 128256,
            "context_length": 131072,
            "quantization": {"bits": 4, "group_size": 64},
            "storage_size": int(size),
            "packed_size": int(size * 0.89),
        }
    )


def cluster(random: Random, count: int) -> tuple[list[NodeResources], list[LinkInfo]]:
    nodes: list[NodeResources] = []
    for number in range(count):
        kind, memory, flops, bandwidth = random.choice(DEVICES)
        device = DeviceProfile.model_validate(
            {
                "kind": kind,
                "name": kind,
                "cores": 8,
                "memory_total": memory * GIB,
                "flops": {"float32": flops / 2, "bfloat16": flops * random.uniform(0.8, 1.2)},
                "memory_bandwidth": bandwidth * random.uniform(0.8, 1.2),
                "os": "os",
                "python": "3",
                "mlx": "0",
                "measured_at": "2026-01-01T00:00:00+00:00",
            }
        )
        free = int(memory * GIB * random.uniform(0.5, 1.0))
        nodes.append(NodeResources(f"{number:03d}", f"node-{number}", device, free))
    links: list[LinkInfo] = []
    for one in nodes:
        for other in nodes:
            if one is not other:
                latency, bandwidth = random.choice(LINKS)
                pair = {"node_id": one.node_id, "peer_id": other.node_id}
                links.append(LinkInfo(**pair, latency=latency, bandwidth=bandwidth))
    return nodes, links


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    with suppress(PlacementImpossible):
        work()
    return (time.perf_counter() - start) * 1e3


def timed(count: int, clusters: int, seed: int) -> dict[str, Any]:
    random, rows = Random(seed), {}
    for name in SHAPES:
        previews: list[float] = []
        places: dict[Objective, list[float]] = {objective: [] for objective in Objective}
        for _ in range(clusters):
            nodes, links = cluster(random, count)
            model = card(name)
            previews.append(milliseconds(partial(options, model, Wanted(), nodes, links)))
            for objective, found in places.items():
                wanted = Wanted(objective=objective)
                found.append(milliseconds(partial(place, model, wanted, nodes, links)))
        rows[name] = {
            "previews": figures(previews),
            **{f"place_{objective}": figures(found) for objective, found in places.items()},
        }
    return rows


def figures(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 1), "max": round(max(values), 1)}


def worse(clusters: int, seed: int) -> dict[str, Any]:
    """By how much a token takes longer in what the bounded search finds, over all numbers of nodes
    of small clusters; `missed` are those for which it found nothing."""
    random, ratios, missed = Random(seed), [], 0
    for number in range(clusters):
        nodes, links = cluster(random, 6)
        model = card(list(SHAPES)[number % 2])
        exact = options(model, Wanted(), nodes, links)
        with mock.patch.object(pipeline, "FEW", 0):
            bounded = options(model, Wanted(), nodes, links)
        for one, other in zip(exact, bounded, strict=True):
            if one.placement is None:
                continue
            if other.placement is None:
                missed += 1
                continue
            ratios.append((one.placement.decode_tps or 0) / (other.placement.decode_tps or 1) - 1)
    return {
        "options": len(ratios),
        "missed": missed,
        "mean": round(statistics.mean(ratios), 4),
        "p95": round(sorted(ratios)[int(len(ratios) * 0.95)], 4),
        "max": round(max(ratios), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sizes = sorted({2, 6, asked.nodes})
    print(
        json.dumps(
            {
                "milliseconds": {n: timed(n, asked.clusters, asked.seed) for n in sizes},
                "worse": worse(5 * asked.clusters, asked.seed),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
