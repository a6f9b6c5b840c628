"""What comes over the ring to a rank that waits for it within a step."""

import queue

from exo.errors import RingError
from exo.inference.ring.events import RingDown, RingEvent, RingFrame, RingUp
from exo.inference.ring.frames import Frame


class Arrivals:
    """Frames of one life of a ring after the other. Events are put in from the ring's threads; what
    is left of an earlier life is passed over."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[RingEvent] = queue.SimpleQueue()
        self._up = -1
        self._over = -1

    def put(self, event: RingEvent) -> None:
        self._events.put(event)

    def wait(self, life: int) -> Frame:
        """The next frame of that life.

        Raises:
            RingError: it is over.
        """
        while life > self._over:
            event = self._events.get()
            match event:
                case RingUp():
                    self._up = event.life
                    self._over = event.life - 1
                case RingDown():
                    # Before a life's ring stands, it is said why it does not yet.
                    if event.life == self._up:
                        self._over = event.life
                case RingFrame():
                    if event.life == life:
                        return event.frame
        raise RingError("The ring of this model's nodes broke.", retry_after=2)
