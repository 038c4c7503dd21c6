"""The calendar of the real-time clock: seconds since 1970 to its bytes and back, BCD or binary, 12 or 24 hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY_OF_WEEK, DAY_OF_MONTH, MONTH, YEAR = range(6, 10)
#: the byte that PC firmware and operating systems keep the century in
CENTURY: Final = 0x32
TIME_BYTES: Final = (SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY_OF_MONTH, MONTH, YEAR, CENTURY)

AFTERNOON: Final = 0x80  # of an hour in 12-hour mode
#: alarm bytes from here on match always
DO_NOT_CARE: Final = 0xC0
DAY_SECONDS: Final = 86_400
_EPOCH: Final = date(1970, 1, 1).toordinal()
#: what the calendar can say: years 0 to 9999 by century and year; ``date`` knows no year 0
_FIRST_DAY, _LAST_DAY = date.min.toordinal() - _EPOCH, date.max.toordinal() - _EPOCH


@dataclass(frozen=True, slots=True)
class Format:
    """How bytes are written (register B, DM and 24/12)."""

    binary: bool
    hours24: bool

    def encode(self, value: int) -> int:
        return value if self.binary else value // 10 << 4 | value % 10

    def decode(self, byte: int) -> int:
        return byte if self.binary else (byte >> 4) * 10 + (byte & 0xF)

    def encode_hour(self, hour: int) -> int:
        if self.hours24:
            return self.encode(hour)
        return self.encode((hour + 11) % 12 + 1) | AFTERNOON * (hour >= 12)

    def decode_hour(self, byte: int) -> int:
        if self.hours24:
            return self.decode(byte)
        return self.decode(byte & ~AFTERNOON) % 12 + 12 * bool(byte & AFTERNOON)


def time_bytes(seconds: int, form: Format) -> dict[int, int]:
    """TIME_BYTES for a time in seconds since 1970."""
    days, second = divmod(seconds, DAY_SECONDS)
    day = date.fromordinal(min(max(days, _FIRST_DAY), _LAST_DAY) + _EPOCH)
    return {
        SECONDS: form.encode(second % 60),
        MINUTES: form.encode(second // 60 % 60),
        HOURS: form.encode_hour(second // 3600),
        DAY_OF_WEEK: day.isoweekday() % 7 + 1,  # Sunday is 1
        DAY_OF_MONTH: form.encode(day.day),
        MONTH: form.encode(day.month),
        YEAR: form.encode(day.year % 100),
        # always BCD: it is a convention of PC firmware, not a register of the chip
        CENTURY: day.year // 1000 << 4 | day.year // 100 % 10,
    }


def seconds_of(stored: Mapping[int, int] | bytes | bytearray, form: Format) -> int:
    """Seconds since 1970 of TIME_BYTES; what is no date is taken for the nearest sensible one."""
    century = (stored[CENTURY] >> 4) * 10 + (stored[CENTURY] & 0xF)
    year = min(max(century * 100 + form.decode(stored[YEAR]), 1), 9998)
    month = min(max(form.decode(stored[MONTH]), 1), 12)
    days = date(year, month, 1).toordinal() - _EPOCH + form.decode(stored[DAY_OF_MONTH]) - 1
    minutes = form.decode_hour(stored[HOURS]) * 60 + form.decode(stored[MINUTES])
    return days * DAY_SECONDS + minutes * 60 + form.decode(stored[SECONDS])


def next_alarm(after: int, stored: Mapping[int, int] | bytes | bytearray, form: Format) -> int | None:
    """The first time (seconds since 1970) after ``after`` that the alarm bytes match; None if none ever does."""
    hours = _matching(stored[HOURS_ALARM], form.decode_hour(stored[HOURS_ALARM]), 24)
    minutes = _matching(stored[MINUTES_ALARM], form.decode(stored[MINUTES_ALARM]), 60)
    seconds = _matching(stored[SECONDS_ALARM], form.decode(stored[SECONDS_ALARM]), 60)
    if not (hours and minutes and seconds):
        return None
    day, second = divmod(after, DAY_SECONDS)
    now = (second // 3600, second // 60 % 60, second % 60)
    for hour in (hour for hour in hours if hour >= now[0]):
        for minute in (minute for minute in minutes if (hour, minute) >= now[:2]):
            for at in seconds:
                if (hour, minute, at) > now:
                    return day * DAY_SECONDS + hour * 3600 + minute * 60 + at
    return (day + 1) * DAY_SECONDS + hours[0] * 3600 + minutes[0] * 60 + seconds[0]


def _matching(byte: int, value: int, count: int) -> range:
    if byte >= DO_NOT_CARE:
        return range(count)
    return range(value, value + 1) if value < count else range(0)
