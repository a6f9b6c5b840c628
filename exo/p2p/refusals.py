"""Why there is no link: a word for counting, and a sentence with a next step for a person."""

from typing import Literal

from exo.errors import PeerRefused

Reason = Literal[
    "other_cluster",
    "older_than_peer",
    "newer_than_peer",
    "peer_locked",
    "peer_open",
    "wrong_secret",
    "self",
    "copied_identity",
    "duplicate_id",
    "duplicate_id_of_mine",
    "linked",
    "refused",
]

_JOIN = "Get a token there with `exo cluster token`, and start this node with "
_COPIED = (
    "Its data folder is a copy of another node's: remove identity.key from it, and start it again."
)
_TEXTS: dict[Reason, tuple[str, str | None]] = {
    "other_cluster": (
        "The other node is in the cluster '{cluster}', not in this one.",
        "To join them, start both with the same --cluster-name.",
    ),
    "older_than_peer": (
        "The other node speaks only newer protocols than this one.",
        "Upgrade exo on this device.",
    ),
    "newer_than_peer": (
        "The other node speaks only older protocols than this one.",
        "Upgrade exo on the other device.",
    ),
    "peer_locked": (
        "The other node's cluster is locked with a secret, and this node has none.",
        _JOIN + "`exo start --join TOKEN`.",
    ),
    "peer_open": (
        "This node's cluster is locked with a secret, and the other node has none.",
        "Print a token here with `exo cluster token`, and give it there to `exo start --join`.",
    ),
    "wrong_secret": (
        "The other node has another secret of the cluster than this one.",
        _JOIN + "`exo start --join TOKEN`, or the other way round.",
    ),
    "self": ("The address is this node's own.", None),
    "copied_identity": ("The other node claims this node's own id.", _COPIED),
    "duplicate_id": ("Two nodes that are both running claim the id {peer_id}.", _COPIED),
    "duplicate_id_of_mine": (
        "The other node is linked with a node that claims this node's id.",
        "One data folder is a copy of the other: remove identity.key from one, and start it again.",
    ),
    "linked": ("The two nodes are linked already.", None),
    "refused": (
        "The other node refuses a link, for a reason that this version does not know.",
        "Upgrade exo on this device.",
    ),
}


def refusal(reason: Reason, *, cluster: str = "", peer_id: str = "") -> PeerRefused:
    """The error for a reason."""
    message, hint = _TEXTS[reason]
    return PeerRefused(message.format(cluster=cluster, peer_id=peer_id), hint=hint)
