"""A fleet as a company has one: registrations of any number, the same ones every time."""

import random
from typing import Any

TEAMS = {
    "payments": ["refunds", "invoices", "chargebacks", "dunning", "payouts"],
    "support": ["customer-service", "triage", "returns", "complaints", "handbook"],
    "logistics": ["tracking", "customs", "warehouse", "routes", "delivery-slots"],
    "people": ["onboarding", "payroll", "leave", "policies", "recruiting"],
    "platform": ["incident-notes", "runbooks", "cost-report", "access-requests", "release-notes"],
}
PLACES = ["uk", "de", "fr", "es", "it", "nl", "pl", "se", "us", "ca", "mx", "br", "jp", "kr", "in", "au", "sg", "za"]
MODELS = ["openai/gpt-5.1", "azure/gpt-5.1-mini", "ollama/qwen3:8b", "openai/gpt-5.1-nano", "local/smollm2-360m"]
TYPES = ["tool", "stateful", "react", "planning", "stateful_react"]
SERVERS = [
    {"name": "erp", "url": "erp.internal:9000"},
    {"name": "crm", "url": "crm.internal:9000"},
    {"name": "files"},
]


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description} | more


def _schema(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


TOOLS: list[dict[str, Any]] = [
    {
        "name": "search_orders",
        "description": "Find orders by customer, state or amount.",
        "input_schema": _schema(
            ["customer"],
            customer=_text("Name or number of the customer."),
            status={"enum": ["open", "shipped", "returned"], "description": "Only orders in this state."},
            minimum={"type": "number", "minimum": 0, "description": "Only orders above this amount, in pounds."},
            limit={"type": "integer", "minimum": 1, "maximum": 50, "default": 10},
        ),
    },
    {
        "name": "issue_refund",
        "description": "Pay money back. A person approves it first.",
        "input_schema": _schema(
            ["order_id", "amount"],
            order_id=_text("The order, like A-1042."),
            amount={"type": "number", "minimum": 0},
            reason={"enum": ["damaged", "late", "wrong item"]},
        ),
    },
    {
        "name": "search_handbook",
        "description": "Search the company's handbook.",
        "input_schema": _schema(["query"], query=_text("What to look for.")),
    },
    {
        "name": "track_parcel",
        "description": "Where a parcel is now.",
        "input_schema": _schema(["number"], number=_text("The carrier's number.")),
    },
    {
        "name": "create_ticket",
        "description": "Open a ticket for a person.",
        "input_schema": _schema(
            ["title"], title=_text("In a line."), tags={"type": "array", "items": {"type": "string"}}
        ),
    },
    {"name": "today", "description": "Which day it is.", "input_schema": _schema([])},
]


def fleet(count: int, *, ttl_seconds: float | None = 90) -> list[dict[str, Any]]:
    """So many registrations with names of their own, in the order of the names' own making."""
    chance = random.Random(7)
    kinds = [(team, kind) for team, kinds in TEAMS.items() for kind in kinds]
    agents: list[dict[str, Any]] = []
    for number in range(count):
        team, kind = kinds[number % len(kinds)]
        round_ = number // len(kinds)
        place = PLACES[round_ % len(PLACES)]
        ring = round_ // len(PLACES)
        name = f"{kind}-{place}" + (f"-{ring + 1}" if ring else "")
        provider, _, model = chance.choice(MODELS).partition("/")
        agents.append(
            {
                "name": name,
                "endpoint": f"http://{name}.{team}.internal:8000",
                "agent_type": chance.choice(TYPES),
                "tools": chance.sample(TOOLS, chance.randint(1, 4)),
                "version": f"{chance.randint(1, 3)}.{chance.randint(0, 9)}.{chance.randint(0, 9)}",
                "ttl_seconds": ttl_seconds,
                "boot_id": f"{number:08x}-5c1d-4d1e-9a53-0c2f6f3a7e11",
                "description": f"Answers questions about {kind.replace('-', ' ')} for {place.upper()}.",
                "owner": team,
                "tags": [place, chance.choice(["internal", "customer-facing"])],
                "protocols": ["chat", "openai"],
                "model": {"provider": provider, "name": model},
                "metadata": {"mcp_servers": chance.sample(SERVERS, chance.randint(0, 2))},
            }
        )
    return agents
