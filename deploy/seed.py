"""Gives each agent of the local stack a database of its own and puts its secrets into the mocked Secrets Manager.

Runs on every start of the stack: the mock forgets what it knew, and a password that was invented again is set again.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys

import aioboto3
import asyncpg

AGENTS = ("customer-service", "handbook")


async def main() -> None:
    """Do it for every agent."""
    session = aioboto3.Session(region_name=os.environ["AWS_REGION"])
    async with session.client("secretsmanager") as manager:
        for agent in AGENTS:
            password = secrets.token_urlsafe(24)
            await give_database(agent.replace("-", "_"), password)
            await put(manager, f"myteam/{agent}/database", {"password": password})
            await put(manager, f"myteam/{agent}/model", {"api_key": os.environ.get("OPENAI_API_KEY", "")})
            print(f"{agent}: database and secrets are ready", flush=True)


async def give_database(name: str, password: str) -> None:
    """A role and a database of that name; the role's password becomes this one."""
    # The superuser comes in through the socket, which only this service and Postgres itself share.
    connection = await asyncpg.connect(host="/var/run/postgresql", user="postgres", database="postgres")
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
            await connection.execute(f'CREATE ROLE "{name}" LOGIN')
        # A utility statement takes no parameters; the password is of letters, digits, - and _ only.
        await connection.execute(f"ALTER ROLE \"{name}\" PASSWORD '{password}'")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    finally:
        await connection.close()


async def put(manager: object, path: str, value: dict[str, str]) -> None:
    """Create the secret, or give it a new value."""
    try:
        await manager.create_secret(Name=path, SecretString=json.dumps(value))
    except manager.exceptions.ResourceExistsException:
        await manager.put_secret_value(SecretId=path, SecretString=json.dumps(value))


try:
    asyncio.run(main())
except (OSError, asyncpg.PostgresError) as error:
    sys.exit(f"seed: {error}")
