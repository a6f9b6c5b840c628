"""Which measurements of links are worth an entry in the log: pure.

A round trip that jitters by a millisecond is no news; one that doubled is.
"""

from collections.abc import Iterable

from exo.cluster.state import ClusterState, LinkInfo, link_key

_JITTER = 1e-3


def worth_telling(state: ClusterState, links: Iterable[LinkInfo]) -> tuple[LinkInfo, ...]:
    """The links that differ by a factor of two or more from what the state has of them."""
    return tuple(link for link in links if _is_news(state, link))


def _is_news(state: ClusterState, link: LinkInfo) -> bool:
    if link.peer_id not in state.nodes:
        return False
    known = state.links.get(link_key(link.node_id, link.peer_id))
    if known is None:
        return True
    if link.bandwidth is not None and _differ(link.bandwidth, known.bandwidth or 0.0):
        return True
    return _differ(link.latency + _JITTER, known.latency + _JITTER)


def _differ(one: float, other: float) -> bool:
    return not 0.5 < one / max(other, 1e-9) < 2
