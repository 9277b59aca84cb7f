"""What was acknowledged survives the death of the process. A long run: `python -m tests.discovery.stores.kill 1000`."""

from pathlib import Path

from tests.discovery.stores.kill import survive


async def test_no_acknowledged_registration_is_missing_after_the_registry_was_killed_again_and_again(
    tmp_path: Path,
) -> None:
    outcome = await survive(12, tmp_path)
    assert outcome.answers >= 12
    assert outcome.lost == []
