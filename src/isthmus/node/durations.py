"""Durations as Kubernetes and Istio write them: `24h`, `1m30s`, `100ms`."""

from isthmus.base import errors

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001, "ns": 0.000000001}


class SettingRefused(errors.IsthmusError):
    """A setting of the agent cannot be read."""

    code = "ISM-NODE-002"


def seconds(text: str, *, name: str) -> float:
    """Read a duration.

    Raises:
        SettingRefused: `text` is none (ISM-NODE-002).
    """
    rest, total = text.strip(), 0.0
    while rest:
        number = _leading(rest, "0123456789.")
        unit = _leading(rest[len(number) :], "hmsun")
        # `1m30s` and `5ms` both hold an `m`: the longest known unit wins.
        if unit not in _SECONDS or number.count(".") > 1 or number in ("", "."):
            raise SettingRefused(
                f"`{name}` is no duration: `{text[:60]}`",
                hint="write it as `30s`, `12h` or `1h30m`",
            )
        total += float(number) * _SECONDS[unit]
        rest = rest[len(number) + len(unit) :]
    return total


def _leading(text: str, letters: str) -> str:
    return text[: len(text) - len(text.lstrip(letters))]
