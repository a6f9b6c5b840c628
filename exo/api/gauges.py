"""What a node can say of itself when it is asked: pure, over the node."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from exo import __version__
from exo.api import metric
from exo.api.metric import Metric
from exo.cluster.node import Node
from exo.cluster.state import Instance, InstanceStatus

STATUSES: tuple[InstanceStatus, ...] = ("downloading", "loading", "warming", "ready", "failed")


@dataclass(frozen=True)
class Reading:
    """One value; `labels` are in the order of the metric's."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


def readings(node: Node) -> Iterator[Reading]:
    """All that is read at a scrape."""
    yield from _node(node)
    yield from _cluster(node)
    yield from _links(node)
    for instance in node.state.instances.values():
        if instance.placement.shards[0].node_id == node.options.node_id:
            yield from _instance(node, instance)


def _node(node: Node) -> Iterator[Reading]:
    info = node.info
    yield Reading(metric.INFO, 1, (info.node_id, info.name, __version__))
    if memory := node.memory_of(info.node_id):
        yield Reading(metric.MEMORY_TOTAL, memory.total)
        yield Reading(metric.MEMORY_AVAILABLE, memory.available)


def _cluster(node: Node) -> Iterator[Reading]:
    state = node.state
    found = Counter(state.status(instance) for instance in state.instances.values())
    for status in STATUSES:
        yield Reading(metric.INSTANCES, found[status], (status,))
    online = sum(info.online for info in state.nodes.values())
    yield Reading(metric.NODES, online, ("true",))
    yield Reading(metric.NODES, len(state.nodes) - online, ("false",))


def _links(node: Node) -> Iterator[Reading]:
    network, me = node.network, node.options.node_id
    up = {link.hello.peer_id for link in network.links()}
    for info in node.state.nodes.values():
        if info.node_id == me:
            continue
        peer = (info.node_id, info.name)
        yield Reading(metric.LINK_UP, info.node_id in up, peer)
        measure = network.measures.get(info.node_id)
        if measure is None or info.node_id not in up:
            continue
        yield Reading(metric.LINK_LATENCY, measure.latency, peer)
        if measure.bandwidth is not None:
            yield Reading(metric.LINK_BANDWIDTH, measure.bandwidth, peer)
    for reason, count in network.refused.items():
        yield Reading(metric.REFUSED, count, (reason,))


def _instance(node: Node, instance: Instance) -> Iterator[Reading]:
    labels = (instance.instance_id, instance.card.model_id)
    if load := node.load_stats(instance):
        yield Reading(metric.RUNNING, load.running, labels)
        yield Reading(metric.WAITING, load.waiting, labels)
        if load.kv_capacity:
            yield Reading(metric.KV_RESERVED, load.kv_reserved, labels)
            yield Reading(metric.KV_CAPACITY, load.kv_capacity, labels)
    if ring := node.ring_stats(instance):
        yield Reading(metric.RING_HOP, ring.hop, labels)
        for rank, seconds in enumerate(ring.seconds):
            yield Reading(metric.STAGE_SECONDS, seconds, (*labels, str(rank)))
        for rank, share in enumerate(ring.busy):
            yield Reading(metric.STAGE_BUSY, share, (*labels, str(rank)))
    if drafts := node.draft_stats(instance):
        yield Reading(metric.DRAFTED, drafts.guessed, labels)
        yield Reading(metric.DRAFTS_RIGHT, drafts.accepted, labels)
