"""How often somebody may come: so many times a minute, all at once or spread out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MOST_CALLERS = 10_000


class Limiter:
    """Remembers of each caller one instant only: when it will have nothing left of what it used.

    Of more than `most_callers` the one that came longest ago is forgotten, and begins anew.
    """

    def __init__(
        self, per_minute: int | None, *, clock: Callable[[], float] = time.monotonic, most_callers: int = MOST_CALLERS
    ) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._most_callers = most_callers
        self._used_until: OrderedDict[str, float] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Count one time, or say how many seconds it is until the next one: 0 for a caller who may come."""
        if self._per_minute is None:
            return 0.0
        now, step = self._clock(), 60 / self._per_minute
        until = max(now, self._used_until.get(caller, now)) + step
        if until - now > 60 + step / 1000:  # the rounding of many small steps
            return until - now - 60
        self._used_until[caller] = until
        self._used_until.move_to_end(caller)
        if len(self._used_until) > self._most_callers:
            self._used_until.popitem(last=False)
        return 0.0
