"""A runner that draws with an image model."""

from typing import NoReturn

from exo.inference.image.service import DrawService
from exo.inference.messages import Cancel, Draw
from exo.inference.runner.link import Asked, Link


def draw_forever(link: Link, service: DrawService) -> NoReturn:
    """Sleep in the inbox while nothing is to be drawn, else take what is there and step."""
    while True:
        link.busy = service.busy
        while not service.busy or not link.inbox.empty():
            event = link.inbox.get()
            if isinstance(event, Asked) and isinstance(event.message, Draw | Cancel):
                link.send(*service.handle(event.message))
        link.busy = True
        link.send(*service.step())
        link.steps += 1
