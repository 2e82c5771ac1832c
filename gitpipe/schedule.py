"""When a clock strikes: ``@every 10s``, ``@daily``, five cron fields; and durations, sizes and moments as specs have
them.  Pure: what time it is comes as an argument.  The one module that imports cronsim.

All of it is in UTC and whole seconds, so that every machine counts alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:h|ms|m|s|us|µs|ns))+\Z", re.ASCII)
MOST_SECONDS = 10**9  # thirty years
END_OF_TIME = 253_402_300_799  # 9999-12-31T23:59:59Z, the last moment that has a name
UNITS = {
    unit: Decimal(seconds)
    for unit, seconds in (
        ("h", "3600"),
        ("m", "60"),
        ("s", "1"),
        ("ms", "1e-3"),
        ("us", "1e-6"),
        ("µs", "1e-6"),
        ("ns", "1e-9"),
    )
}
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(i?)b?\Z", re.IGNORECASE | re.ASCII)
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|z|[+-]\d\d:\d\d)\Z", re.ASCII)
EVERY = "@every"
NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def duration(text: object) -> float:
    """Seconds of ``90s``, ``5m``, ``1h30m``; ValueError for anything else."""
    if not isinstance(text, str) or not DURATION.match(text):
        raise ValueError('expected a duration such as "90s", "5m" or "1h30m"')
    parts = re.findall(r"([\d.]+)(h|ms|m|s|us|µs|ns)", text)
    seconds = float(sum(Decimal(number) * UNITS[unit] for number, unit in parts))
    if seconds > MOST_SECONDS:
        raise ValueError(f"expected a duration of at most {MOST_SECONDS // 3600} hours; leave it out for no limit")
    return seconds


def spelled(seconds: float) -> str:
    """The duration as specs have it, in the largest units: ``1h30m``, ``1m30.5s``, ``1ms``."""
    left = Decimal(repr(seconds))
    if left < 1:
        return f"{(left * 1000).normalize():f}ms"
    parts = []
    for unit in "hm":
        count, left = divmod(left, UNITS[unit])
        parts.append(f"{count:f}{unit}" if count else "")
    return "".join(parts) + (f"{left.normalize():f}s" if left or not any(parts) else "")


def size(text: str) -> int:
    """Bytes of ``100``, ``1MB`` (a million), ``1MiB`` (2^20); ValueError for anything else or nothing."""
    found = SIZE.match(text)
    count = 0
    if found:
        step = 1024 if found[3] else 1000
        count = int(Decimal(found[1]) * step ** " kmgtp".index(found[2].lower() or " "))
    if not found or not count or (found[3] and not found[2]):
        raise ValueError(f'expected a size such as "500KB", "1MB" or "2GiB", got {text!r}')
    return count


def moment(text: str) -> int:
    """POSIX seconds of an RFC 3339 time, ``2026-01-01T00:00:00Z``; ValueError for anything else."""
    found = MOMENT.match(text)
    try:
        if found:
            zone = "+00:00" if found[3] in "Zz" else found[3]
            return int(datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp())
    except (ValueError, OverflowError):
        pass
    raise ValueError(f'expected a time such as "2026-01-01T00:00:00Z" (RFC 3339), got {text!r}')


def rfc3339(when: float) -> str:
    """``2026-01-01T00:00:00Z``: what the file of a tick is named."""
    return datetime.fromtimestamp(int(when), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Schedule:
    """``@every DURATION``, ``@hourly`` and the like, or ``MINUTE HOUR DAY MONTH WEEKDAY``.

    ``@every`` counts from the last strike, in whole seconds; the others strike with the clock.

    Raises:
        ValueError: it is none of these, or never strikes.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            known = bool(self._period) or len(self._fields.split()) == 5
            comes = known and self.after(0) is not None
        except ValueError as error:
            raise ValueError(f"{self._wanted()}: {error}") from None
        if not known:
            raise ValueError(self._wanted())
        if not comes:
            raise ValueError(f"{self.text!r} never comes")

    def _wanted(self) -> str:
        return f'expected a schedule such as "@every 10s", "@daily" or "30 4 * * 1", got {self.text!r}'

    @property
    def _period(self) -> int:
        """Seconds between two strikes; 0 where there are fields."""
        word, _, rest = self.text.strip().partition(" ")
        if word != EVERY:
            return 0
        seconds = duration(rest.strip())
        if seconds < 1:
            raise ValueError("expected at least 1s")
        return int(seconds)

    @property
    def _fields(self) -> str:
        return NAMED.get(self.text.strip(), self.text).replace("?", "*")

    def after(self, when: float) -> int | None:
        """The first strike after `when`, which for ``@every`` is where it counts from; None where none comes."""
        if self._period:
            found = int(when) + self._period
            return found if found <= END_OF_TIME else None
        return self._strike(when, back=False)

    def latest(self, since: float, now: float) -> int | None:
        """The last strike after `since` and not after `now`, however many there were; None where there was none."""
        if self._period:
            count = (int(now) - int(since)) // self._period
            return int(since) + count * self._period if count > 0 else None
        found = self._strike(now, back=True)
        return found if found is not None and found > since else None

    def _strike(self, when: float, *, back: bool) -> int | None:
        """The first strike after `when`, or the last one up to it."""
        from cronsim import CronSim, CronSimError

        try:
            start = datetime.fromtimestamp(int(when), timezone.utc)
            if back:  # it goes back from the minute that it is given, which itself does not count
                start = start.replace(second=0) + timedelta(minutes=1)
            return int(next(CronSim(self._fields, start, reverse=back)).timestamp())
        except CronSimError as error:
            raise ValueError(str(error)) from None
        except (StopIteration, OverflowError):
            return None
