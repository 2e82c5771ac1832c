"""Schedules, durations, sizes and moments as specs spell them; the time is an argument."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitpipe.schedule import Schedule, duration, moment, rfc3339, size

SCHEDULES = st.sampled_from(
    [
        *("@every 1s", "@every 7s", "@every 1h30m"),
        *("@hourly", "@daily", "@weekly", "@monthly", "@yearly"),
        *("* * * * *", "*/7 3 * * *", "30 4 1,15 * 5", "0 9 ? * MON-FRI", "0 0 29 2 *"),
    ]
)
MOMENTS = st.integers(0, 4_000_000_000)


@pytest.mark.parametrize(
    ("text", "since", "next_one"),
    [
        ("@every 10s", "2026-01-01T00:00:03Z", "2026-01-01T00:00:13Z"),
        ("@every 1h30m", "2026-01-01T00:00:03Z", "2026-01-01T01:30:03Z"),
        ("@every 1.5s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("@daily", "2026-01-01T00:00:01Z", "2026-01-02T00:00:00Z"),
        ("@midnight", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z"),
        ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
        ("@monthly", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@annually", "2026-06-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("30 4 * * 1", "2026-01-01T00:00:00Z", "2026-01-05T04:30:00Z"),
        ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),  # the 13th or a Friday, as with cron
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
    ],
)
def test_when_it_strikes_next(text: str, since: str, next_one: str) -> None:
    found = Schedule(text).after(moment(since))
    assert found is not None and rfc3339(found) == next_one


@given(SCHEDULES, MOMENTS)
def test_strikes_follow_each_other(text: str, since: int) -> None:
    """Whoever looks in time and whoever looks late find the same last strike; none is found twice."""
    schedule = Schedule(text)
    strikes = [since]
    for _ in range(3):
        found = schedule.after(strikes[-1])
        assert found is not None and found > strikes[-1]
        assert schedule.latest(strikes[-1], found - 1) is None
        assert schedule.latest(strikes[-1], found) == found
        assert schedule.latest(found, found) is None
        strikes.append(found)
    assert schedule.latest(since, strikes[-1]) == strikes[-1]
    assert schedule.latest(strikes[-1], since) is None, "the clock was put back"


@given(MOMENTS)
def test_moments_there_and_back(when: int) -> None:
    assert moment(rfc3339(when)) == when
    east = datetime.fromtimestamp(when, timezone(timedelta(hours=5, minutes=30)))
    assert moment(east.isoformat()) == when


@pytest.mark.parametrize("text", ["", "@every", "@every x", "@reboot", "* * * *", "* * * * * *", "61 * * * *", "daily"])
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a (schedule|duration) such as"):
        Schedule(text)


@pytest.mark.parametrize("text", ["@every 0s", "@every 1ms", "@every 0.5s", "@every -5s", "@every 1d"])
def test_no_interval_or_one_that_is_too_short(text: str) -> None:
    wanted = "a duration such as" if text in ("@every -5s", "@every 1d") else "at least 1s"
    with pytest.raises(ValueError, match=f"got '{text}': expected {wanted}"):
        Schedule(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("100", 100), ("1k", 1000), ("1MB", 10**6), ("1.5 mb", 1_500_000), ("2GiB", 2 << 30), ("3T", 3 * 10**12)],
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "0", "MB", "-1MB", "1 XB", "1e3", "1iB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        size(text)


@pytest.mark.parametrize("text", ["", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "noon"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        moment(text)


def test_durations() -> None:
    assert duration("1h30m") == 5400 and duration("1.5s") == 1.5
