"""Creates a database, secrets in the mocked Secrets Manager, and a role to read them, for each agent of the stack.

Runs on every start of the stack: the mock keeps its data in memory only, and passwords are generated each time.
Nothing is stored on disk: each agent finds the key of its role in a volume of its own, which is in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import aioboto3
import asyncpg
from botocore.exceptions import BotoCoreError, ClientError

from agent_runtime.secrets import policy_for

AGENTS = ("customer-service", "handbook")
FILES, CREDENTIALS = Path("/agents"), Path("/aws")
# A secret of another team, which these agents must not be able to read.
FOREIGN = {"finance/agents/ledger": {"api_key": secrets.token_urlsafe(24)}}


async def main() -> None:
    """Create everything for every agent."""
    region = os.environ["AWS_REGION"]
    session = aioboto3.Session(region_name=region)
    async with session.client("secretsmanager") as manager, session.client("iam") as iam:
        for path, value in FOREIGN.items():
            await put(manager, path, value)
        for agent in AGENTS:
            password = secrets.token_urlsafe(24)
            await create_database(agent.replace("-", "_"), password)
            await put(manager, f"myteam/{agent}/database", {"password": password})
            await put(manager, f"myteam/{agent}/model", {"api_key": os.environ.get("OPENAI_API_KEY", "")})
            policy = policy_for([FILES / agent / "agent.compose.yaml"], region=region)
            # In a volume that only this service and the agent mount.
            (CREDENTIALS / agent / "config").write_text(await create_role(iam, agent, policy), encoding="utf-8")
            print(f"{agent}: database, secrets and role are ready", flush=True)


async def create_database(name: str, password: str) -> None:
    """Create a Postgres role and a database of that name, and set the role's password."""
    # The superuser connects through the socket, which only this service and Postgres share.
    connection = await asyncpg.connect(host="/var/run/postgresql", user="postgres", database="postgres")
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
            await connection.execute(f'CREATE ROLE "{name}" LOGIN')
        # A utility statement takes no parameters; the password contains only letters, digits, - and _.
        await connection.execute(f"ALTER ROLE \"{name}\" PASSWORD '{password}'")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    finally:
        await connection.close()


async def put(manager: Any, path: str, value: dict[str, str]) -> None:
    """Create the secret, or set a new value."""
    try:
        await manager.create_secret(Name=path, SecretString=json.dumps(value))
    except manager.exceptions.ResourceExistsException:
        await manager.put_secret_value(SecretId=path, SecretString=json.dumps(value))


async def create_role(iam: Any, agent: str, policy: dict[str, Any]) -> str:
    """Create a role with this policy and a user that may only assume it; return the AWS configuration with its key."""
    login = f"{agent}-login"
    try:
        user = (await iam.create_user(UserName=login))["User"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        user = (await iam.get_user(UserName=login))["User"]["Arn"]
        for old in (await iam.list_access_keys(UserName=login))["AccessKeyMetadata"]:
            await iam.delete_access_key(UserName=login, AccessKeyId=old["AccessKeyId"])
    try:
        trust = json.dumps(document("sts:AssumeRole", Principal={"AWS": user}))
        role = (await iam.create_role(RoleName=agent, AssumeRolePolicyDocument=trust))["Role"]["Arn"]
    except iam.exceptions.EntityAlreadyExistsException:
        role = (await iam.get_role(RoleName=agent))["Role"]["Arn"]
    await iam.put_role_policy(RoleName=agent, PolicyName="secrets", PolicyDocument=json.dumps(policy))
    assume = json.dumps(document("sts:AssumeRole", Resource=role))
    await iam.put_user_policy(UserName=login, PolicyName="role", PolicyDocument=assume)
    key = (await iam.create_access_key(UserName=login))["AccessKey"]
    return (
        f"[default]\nrole_arn = {role}\nsource_profile = login\n\n"
        f"[profile login]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n"
    )


def document(action: str, **statement: Any) -> dict[str, Any]:
    """A policy that allows one action."""
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, **statement}]}


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (OSError, asyncpg.PostgresError, ClientError, BotoCoreError) as error:
        sys.exit(f"seed: {error}")
