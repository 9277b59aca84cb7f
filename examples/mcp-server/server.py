"""The warehouse as an MCP server: two tools over a table of stock, registered with discovery."""

import argparse
import csv
import logging
import os
from datetime import datetime, timedelta
from pathlib import Path

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from discovery.client import RegistrationMiddleware, local_endpoint, own_endpoint
from discovery.contract import Links, Registration, ToolInfo

STOCK = Path(__file__).with_name("stock.csv")
VERSION = "1.0.0"

server = MCPServer("warehouse", version=VERSION, instructions="Stock of an office-furniture shop, in pieces.")


class Item(BaseModel):
    """One row of the table."""

    sku: str
    product: str
    shelf: str
    on_hand: int
    reserved: int
    next_delivery_days: int | None = None
    next_delivery_pieces: int = 0

    @property
    def free(self) -> int:
        return self.on_hand - self.reserved

    @property
    def next_delivery(self) -> str:
        if self.next_delivery_days is None:
            return "none planned"
        day = datetime.now().astimezone() + timedelta(days=self.next_delivery_days)
        return f"{self.next_delivery_pieces} on {day:%d %B}"


@server.tool()
def find_stock(words: str = "", at_most: int | None = None) -> str:
    """Which products are in stock: free pieces, where they are, and the next delivery.

    Args:
        words: Only products whose name or number holds these words; all of them where it is empty.
        at_most: Only products of which at most so many pieces are free, to see what runs out.
    """
    searched = words.lower().split()
    found = [
        item
        for item in stock()
        if all(word in f"{item.product} {item.sku}".lower() for word in searched)
        and (at_most is None or item.free <= at_most)
    ]
    if not found:
        return "No product matches."
    rows = [f"| {i.sku} | {i.product} | {i.free} | {i.shelf} | {i.next_delivery} |" for i in found]
    return "\n".join(["| Number | Product | Free | Shelf | Next delivery |", "|---|---|---:|---|---|", *rows])


@server.tool()
def when_available(product: str, pieces: int = 1) -> str:
    """When so many pieces of one product can be sent: today, after the next delivery, or not yet known.

    Args:
        product: The product's name or number, such as `standing desk` or `DSK-10`.
        pieces: How many are wanted.
    """
    if pieces < 1:
        raise ToolError("`pieces` must be at least 1")
    named = [item for item in stock() if product.lower().strip() in {item.sku.lower(), item.product.lower()}]
    if not named:
        raise ToolError(f"There is no product {product!r}; find_stock lists them.")
    [item] = named
    if item.free >= pieces:
        return f"{pieces} of {item.product} ({item.sku}) can be sent today: {item.free} are free on shelf {item.shelf}."
    if item.next_delivery_days is not None and item.free + item.next_delivery_pieces >= pieces:
        return (
            f"{item.free} of {item.product} ({item.sku}) are free; {pieces} after the delivery of {item.next_delivery}."
        )
    return f"{item.free} of {item.product} ({item.sku}) are free; when {pieces} will be is not known yet."


@server.custom_route("/livez", methods=["GET"])
async def livez(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


def stock() -> list[Item]:
    """The rows of the table."""
    with STOCK.open(encoding="utf-8", newline="") as file:
        rows = [{column: value for column, value in row.items() if value} for row in csv.DictReader(file)]
    return [Item.model_validate(row) for row in rows]


def registered(address: str, *, registry: str, token: str | None, host: str, port: int) -> ASGIApp:
    """The server over streamable HTTP, registered with discovery while it runs."""

    async def registration() -> Registration:
        return Registration(
            name="warehouse",
            endpoint=f"{address}/mcp",
            agent_type="mcp_server",
            version=VERSION,
            description="What is in stock and when more comes.",
            tools=[  # from the server itself, with their schemas
                ToolInfo(name=tool.name, description=tool.description, input_schema=tool.input_schema)
                for tool in await server.list_tools()
            ],
            protocols=["mcp"],
            owner="warehouse-team",
            tags=["stock", "products"],
            links=Links(health=f"{address}/livez"),
        )

    return RegistrationMiddleware(
        server.streamable_http_app(stateless_http=True, host=host),
        registration,
        url=registry,
        token=token,
        heartbeat_seconds=10,
        ready=f"{local_endpoint(port, host)}/livez",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The warehouse as an MCP server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8010, help="port to listen on (8010)")
    parser.add_argument("--address", help="address for other services (from the host and the port)")
    parser.add_argument("--discovery-url", help="the registry (MYAGENT_DISCOVERY_URL, or http://127.0.0.1:9000)")
    options = parser.parse_args()
    registry = options.discovery_url or os.environ.get("MYAGENT_DISCOVERY_URL") or "http://127.0.0.1:9000"
    address = options.address or own_endpoint(options.port, registry=registry, host=options.host)
    token = os.environ.get("MYAGENT_DISCOVERY_TOKEN")
    logging.getLogger("httpx").setLevel("WARNING")  # it logs a line for every heartbeat
    app = registered(address, registry=registry, token=token, host=options.host, port=options.port)
    uvicorn.run(
        app, host=options.host, port=options.port, log_config=None, access_log=False, timeout_graceful_shutdown=5
    )


if __name__ == "__main__":
    main()
