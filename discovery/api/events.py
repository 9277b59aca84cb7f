"""`GET /events`: the changes of the table as server-sent events."""

import asyncio
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from starlette.types import Receive, Scope, Send

from discovery.api.auth import Scoped, needs
from discovery.api.dependencies import Table, only, problems
from discovery.contract import utc_now
from discovery.registry.watch import Watch

SLOWEST_SECONDS = 30.0  # for a piece to leave: whoever reads slower is let go
MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

router = APIRouter(route_class=Scoped)


class EventStream(Response):
    """Sends events for as long as the reader stays and keeps up."""

    media_type = MEDIA_TYPE

    def __init__(self, watch: Watch, last_event_id: str | None) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._watch, self._last_event_id = watch, last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            done, _ = await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
        for task in done:
            task.result()  # what went wrong is for the log

    async def _send(self, send: Send) -> None:
        async with aclosing(self._watch.follow(self._last_event_id, utc_now())) as pieces:
            async for piece in pieces:
                try:
                    async with asyncio.timeout(SLOWEST_SECONDS):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    return  # an end would wait for this reader as well: the server closes what has none
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/events",
    summary="Every change, as it happens",
    openapi_extra=needs("read"),
    response_class=Response,
    responses={
        200: {"description": "Server-sent events, until the reader leaves", "content": {MEDIA_TYPE: {}}},
        **problems(_400="Unknown query parameter", _503="The table is not loaded"),
    },
    dependencies=[Depends(only())],
)
async def events(
    table: Table,
    last_event_id: Annotated[str | None, Header(max_length=256, description="Where to go on from")] = None,
) -> Response:
    """Each event has an `id`, an `event` and one JSON object as `data`.

    `registered`, `updated`, `status`, `removed` and `conflict` carry `agent`: the whole object of `GET /agents` after
    this change, or null when the name is gone. `guard` says that mass silence began, changed or ended. `reset` asks to
    read `GET /agents` again: it comes first where no `Last-Event-ID` was sent or the stream cannot go on from it;
    leave out what follows with a `revision` up to that list's `X-Registry-Revision`.
    """
    table.listing()  # a table that is not loaded yet has no events either
    return EventStream(table.watch, last_event_id)
