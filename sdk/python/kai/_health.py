"""The HealthStatus of an agent that does not make its own."""

from __future__ import annotations

import os
import time

from kai._message import iso_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

    from kai.types import ErrorSummary, HealthStatus

MAX_TYPES = 16  # of errors that are told apart, as many as the supervisor takes; the one that was quiet longest goes first
MAX_TEXT = 1024  # characters of an error's type and message


STARTED = time.monotonic()  # the process: a soft upgrade keeps it


class Health:
    def __init__(self) -> None:
        self._last_activity = time.time()
        self._errors: Dict[str, ErrorSummary] = {}  # by type, the latest last
        self._cpu_at = time.monotonic()
        self._cpu_used = time.process_time()

    def active(self) -> None:
        self._last_activity = time.time()

    def failed(self, error: BaseException, name: str) -> None:
        known = self._errors.pop(name, None)
        if len(self._errors) >= MAX_TYPES:
            del self._errors[next(iter(self._errors))]
        self._errors[name] = {
            "type": name[:MAX_TEXT],
            "count": (known["count"] if known else 0) + 1,
            "lastOccurrence": iso_time(time.time()),
            "message": str(error).encode("utf-8", "replace").decode("utf-8")[:MAX_TEXT],
        }

    def status(self) -> HealthStatus:
        return {
            "status": "healthy",
            "uptime": int((time.monotonic() - STARTED) * 1000),
            "memoryUsage": round(_resident_bytes() / (1 << 20), 1),
            "cpuUsage": self._cpu_usage(),
            "lastActivity": iso_time(self._last_activity),
            "errors": list(self._errors.values()),
        }

    def _cpu_usage(self) -> float:
        """Percent of one core since the last question."""
        now, used = time.monotonic(), time.process_time()
        percent = (used - self._cpu_used) / max(now - self._cpu_at, 0.001) * 100
        self._cpu_at, self._cpu_used = now, used
        return round(percent, 1)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
