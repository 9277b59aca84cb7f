import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def durable(request: pytest.FixtureRequest) -> str:
    """The URL of a session store that outlives the process; a SQLite file lies beside the agent's."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else "sqlite:///sessions.db"
