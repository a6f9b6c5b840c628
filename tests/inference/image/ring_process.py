"""One rank of an image model, as a process: `python -m … FOLDER RANK BOUNDS`.

It prints where it listens, reads which ring to form, and prints what comes of it: rank 0 the
SHA-256 of a picture, the others nothing.
"""

import hashlib
import json
import queue
import sys
from pathlib import Path

from exo.errors import RingError
from exo.inference.image.mflux.engine import MfluxEngine
from exo.inference.ring.arrivals import Arrivals
from exo.inference.ring.events import RingDown, RingEvent, RingFrame, RingSpec, RingUp
from exo.inference.ring.tcp import TcpRing
from tests.inference.image.conftest import draw, load_of, spec_of

VARIANT = "flux.2-klein-base-4b"


def main() -> None:
    folder, rank, bounds = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    arrivals, events = Arrivals(), queue.SimpleQueue[RingEvent]()

    def post(event: RingEvent) -> None:
        events.put(event)
        arrivals.put(event)

    ring = TcpRing(rank, "127.0.0.1", post)
    say(port=ring.port, certificate=ring.credentials.certificate)
    engine = MfluxEngine()
    load = {"rank": rank, "size": len(bounds) - 1}
    load |= {"start_layer": bounds[rank], "end_layer": bounds[rank + 1]}
    engine.load(load_of(folder).model_copy(update=load), lambda *_: None)
    ring.connect(RingSpec.model_validate_json(sys.stdin.readline()))
    while not isinstance(event := events.get(), RingUp):
        pass
    life = event.life
    engine.start(ring, life, lambda: arrivals.wait(life))
    if rank == 0:
        say(drawn=hashlib.sha256(draw(engine, spec_of(VARIANT, steps=3))).hexdigest())
        sys.stdin.readline()
        try:
            draw(engine, spec_of(VARIANT, seed=8))
        except RingError as error:
            say(error=str(error))
        return
    while not (isinstance(event := events.get(), RingDown) and event.life == life):
        if isinstance(event, RingFrame) and event.life == life:
            engine.receive(event.frame)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201  what this process is for


if __name__ == "__main__":
    main()
