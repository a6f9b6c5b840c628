"""What a response is asked about: its input, what came before it, and how much of that fits."""

import logging
from collections.abc import Awaitable, Callable

from exo.api.context import Context
from exo.api.dry import dry
from exo.api.response_adapter import to_count
from exo.api.response_archive import ResponseArchive
from exo.api.response_items import Item
from exo.api.response_messages import items_of, references, shortened, turns
from exo.api.response_runs import Save, unsaved
from exo.api.response_schema import CountedRequest, ResponseRequest
from exo.api.response_views import Kept
from exo.cluster.state import Instance
from exo.errors import (
    NotFound,
    PreviousResponseNotFound,
    RequestError,
    StorageFull,
    UnsupportedField,
)
from exo.inference.ids import new_id

log = logging.getLogger(__name__)


async def all_items(
    responses: ResponseArchive, body: CountedRequest, response_id: str
) -> list[Item]:
    """All that the response answers: what came before it, then its own input.

    Raises:
        PreviousResponseNotFound, RequestError: something that is referred to is not there.
        Unavailable: the node that keeps it cannot be reached.
    """
    before: list[Item] = []
    if body.previous_response_id is not None:
        kept = await _previous(responses, body.previous_response_id)
        before = [*kept.items, *kept.response.output]
    found = {
        name: await responses.find_item(name, before)
        for name in dict.fromkeys(references(body.input))
    }
    own = items_of(body.input, response_id, len(before), found.__getitem__)
    return [*before, *own]


async def _previous(responses: ResponseArchive, response_id: str) -> Kept:
    try:
        kept = await responses.load(response_id)
    except NotFound as error:
        raise PreviousResponseNotFound(
            error.message, hint=error.hint, param="previous_response_id"
        ) from error
    if kept.response.status == "in_progress":
        raise RequestError(
            f"The response '{response_id}' is not complete yet.", param="previous_response_id"
        )
    return kept


async def fitting(
    context: Context, instance: Instance, body: CountedRequest, items: list[Item]
) -> list[Item]:
    """The items without the first turns that do not fit into the context, if that may be.

    Raises:
        ExoError: the runner refused them.
    """
    if body.truncation != "auto":
        return items
    wanted = body.max_output_tokens if isinstance(body, ResponseRequest) else None
    room = instance.placement.context_length - (wanted or 1)

    async def fits(dropped: int) -> bool:
        asked = to_count(body, shortened(items, dropped), new_id("tok"))
        return (await dry(context, instance, asked)).prompt_tokens <= room

    return shortened(items, await fewest(turns(items) - 1, fits))


async def fewest(most: int, fits: Callable[[int], Awaitable[bool]]) -> int:
    """The least number up to `most` that fits, where every larger one fits too; `most`, if none
    does."""
    if await fits(0):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if await fits(middle):
            high = middle
        else:
            low = middle + 1
    return max(high, 0)


def saver(responses: ResponseArchive, body: ResponseRequest) -> Save:
    """What keeps the response, if it is to be kept.

    Raises:
        UnsupportedField: it is asked for that, and this node stores nothing.
    """
    if body.store is False:
        return unsaved
    if not responses.enabled:
        if body.store or body.background:
            raise UnsupportedField(
                "This node stores no responses.",
                hint="The setting `responses_mb` is 0.",
                param="store" if body.store else "background",
            )
        return unsaved
    return responses.save if body.store else _if_possible(responses.save)


def _if_possible(save: Save) -> Save:
    """An answer that nobody asked to be stored is not lost for want of space."""

    async def tried(kept: Kept) -> None:
        try:
            await save(kept)
        except StorageFull as error:
            log.warning("A response is not stored: %s", error)

    return tried
