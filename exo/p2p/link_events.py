"""What happens to links, as the core is told of it."""

from exo.p2p.events import DialFailed, LinkDown, LinkUp
from exo.p2p.peers import PeerInfo

__all__ = ["DialFailed", "LinkDown", "LinkEvent", "LinkUp", "PeerInfo"]

LinkEvent = LinkUp | LinkDown | DialFailed
