"""Discovery on its own, for a host of the lab: says in JSON lines what it finds and logs, until its
standard input ends.

    python -m tests.lan.discover PEER_ID CLUSTER ASK_EVERY
"""

import asyncio
import json
import logging
import sys
import time

from exo.p2p import discovery
from exo.p2p.announcement import Seen


class Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell("log", level=record.levelname, text=record.getMessage())


def tell(event: str, **rest: object) -> None:
    print(json.dumps({"event": event, "time": time.monotonic(), **rest}), flush=True)  # noqa: T201


def found(seen: Seen) -> None:
    tell("found", peer_id=seen.peer_id, addresses=seen.addresses)


async def main(peer_id: str, cluster: str, ask_every: str) -> None:
    logging.basicConfig(level=logging.INFO, handlers=[Teller()])
    vars(discovery)["ASK_EVERY"] = float(ask_every)
    tell("starting")
    mine = discovery.Discovery(peer_id, cluster, 52416, on_found=found, version="0.1.0")
    await mine.start()
    tell("started")
    await asyncio.to_thread(sys.stdin.read)
    tell("seen", peer_ids=[seen.peer_id for seen in mine.seen])
    await mine.close()
    tell("closed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
