"""What was acknowledged survives the death of the process; `python -m tests.discovery.kill 1000` is the long run."""

from pathlib import Path

from tests.discovery.kill import survive


async def test_no_acknowledged_registration_is_missing_after_the_registry_was_killed_again_and_again(
    tmp_path: Path,
) -> None:
    outcome = await survive(12, tmp_path)
    assert outcome.answers >= 12
    assert outcome.lost == []
