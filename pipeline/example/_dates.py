"""How people write dates and times."""

from __future__ import annotations

import datetime
import random

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FORMS = ("long", "long", "short", "numbers", "numbers", "day", "plain", "plain", "week", "iso")
"""Ways to write a date, the common ones more than once; `day` and `plain` leave out the year."""


def written(day: datetime.date, home: str, form: str) -> str:
    """A date as it is written at `home`, in one of the forms."""
    american, month = home == "en_US", MONTHS[day.month - 1]
    if form == "iso":
        return day.isoformat()
    if form == "numbers":
        first, second = (day.month, day.day) if american else (day.day, day.month)
        return f"{first:02d}.{second:02d}.{day.year}" if home == "de_DE" else f"{first:02d}/{second:02d}/{day.year}"
    month = month[:3] if form == "short" else month
    text = f"{month} {day.day}" if american else f"{day.day} {month}"
    if form == "week":
        return f"{DAYS[day.weekday()]}{',' if american else ''} {text}"
    comma = "," if american else ""
    return f"{text}{comma} {day.year}" if form in ("long", "short") else text


def long_ago(draw: random.Random) -> str:
    """A year, or a month of it."""
    year = draw.randint(2012, 2021)
    return draw.choice([str(year), f"{draw.choice(MONTHS)} {year}"])


def clock(draw: random.Random) -> str:
    """A time of day."""
    hour, minute = draw.randint(7, 20), draw.choice([0, 5, 10, 15, 20, 30, 40, 45, 50])
    half = "am" if hour < 12 else "pm"
    short = (hour - 1) % 12 + 1
    return draw.choice(
        [
            f"{hour:02d}:{minute:02d}",
            f"{hour}:{minute:02d}",
            f"{short}:{minute:02d} {half}",
            f"{short}.{minute:02d}{half}",
            f"{short} {half}",
        ]
    )
