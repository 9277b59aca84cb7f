"""`GET /events`: the changes of the table as server-sent events."""

import asyncio
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from starlette.types import Receive, Scope, Send

from discovery.api.auth import Scoped, Table, needs, only
from discovery.api.openapi import problems
from discovery.contract import utc_now
from discovery.registry import Watch

MAX_SEND_SECONDS = 30.0  # for one chunk: a slower reader is disconnected
MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

router = APIRouter(route_class=Scoped)


class EventStream(Response):
    """Sends events as long as the reader stays connected and keeps up."""

    media_type = MEDIA_TYPE

    def __init__(self, watch: Watch, last_event_id: str | None) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._watch, self._last_event_id = watch, last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send(send))
        disconnect = asyncio.ensure_future(_disconnected(receive))
        try:
            done, _ = await asyncio.wait({sending, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, disconnect):
                task.cancel()
            await asyncio.wait({sending, disconnect})
        for task in done:
            task.result()  # an error is logged by the server

    async def _send(self, send: Send) -> None:
        async with aclosing(self._watch.follow(self._last_event_id, utc_now())) as chunks:
            async for chunk in chunks:
                try:
                    async with asyncio.timeout(MAX_SEND_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                except TimeoutError:
                    return  # without a last chunk, which would wait as well; the server closes the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/events",
    summary="Every change, as it happens",
    openapi_extra=needs("read"),
    response_class=Response,
    responses={
        200: {"description": "Server-sent events, until the reader disconnects", "content": {MEDIA_TYPE: {}}},
        **problems(_400="Unknown query parameter", _503="The table is not loaded"),
    },
    dependencies=[Depends(only())],
)
async def events(
    table: Table,
    last_event_id: Annotated[str | None, Header(max_length=256, description="The id to go on from")] = None,
) -> Response:
    """Each event has an `id`, an `event` and one JSON object as `data`.

    `registered`, `updated`, `status`, `removed` and `conflict` carry `agent`: the whole object of `GET /agents` after
    this change, or null when the name is gone. `guard` reports that mass silence began, changed or ended. `reset`
    means: read `GET /agents` again. It comes first where no `Last-Event-ID` was sent or the stream cannot go on from
    it; ignore events with a `revision` up to that list's `X-Registry-Revision`.
    """
    _ = table.etag  # raises while the table is not loaded
    return EventStream(table.watch, last_event_id)
