"""The signing authority as it is on disk, followed while it changes.

What cannot be used never replaces what can: the last good authority keeps signing, and the reason
is reported. Without any, the control plane is not ready; it never makes a root of its own.

Source: spec section 1.1; promise P11; security rule CA-10.
"""

from collections.abc import Callable
from pathlib import Path

from isthmus.base import clock, errors, logs
from isthmus.ca import authority as authorities

_LOG = logs.Log("isthmus.trust")

LOOK_EVERY_S = 0.5
BIGGEST_FILE_BYTES = 1 << 20


class AuthorityMissing(errors.IsthmusError):
    """No certificate authority was given to the control plane."""

    code = "ISM-RUN-002"


class Trust:
    """The authority in force, if any, and what is wrong with the files, if anything."""

    def __init__(self, directory: str, *, system_clock: clock.Clock) -> None:
        self._directory = Path(directory)
        self._clock = system_clock
        self._authority: authorities.Authority | None = None
        self._fault: errors.IsthmusError | None = None
        self._seen: dict[str, str] | None = None
        self._listeners: list[Callable[[authorities.Authority], None]] = []

    @property
    def authority(self) -> authorities.Authority | None:
        """The authority in force; None when there was never a usable one."""
        return self._authority

    @property
    def fault(self) -> errors.IsthmusError | None:
        """Why the files as they are now cannot be used; None when they can."""
        return self._fault

    def listen(self, listener: Callable[[authorities.Authority], None]) -> None:
        """Be told of each new authority, and at once of the one in force."""
        self._listeners.append(listener)
        if self._authority is not None:
            listener(self._authority)

    def look(self) -> None:
        """Read the files; take them over when they have changed and can be used."""
        files = self._read()
        if files == self._seen:
            return
        self._seen = files
        try:
            if not files:
                raise self._missing()
            fresh = authorities.load(files, now=self._clock.now())
        except errors.IsthmusError as error:
            self._fault = error
            _LOG.error(
                "certificate authority cannot be used",
                code=error.code,
                reason=error.happened,
                keeps_last=self._authority is not None,
                hint=error.hint,
            )
            return
        self._fault = None
        self._authority = fresh
        _LOG.info("certificate authority in force", ends=fresh.ends.isoformat())
        for listener in self._listeners:
            listener(fresh)

    async def follow(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    def _read(self) -> dict[str, str]:
        known = (*authorities.FILES, *authorities.TLS_FILES)
        found = {}
        for name in known:
            path = self._directory / name
            try:
                if path.stat().st_size <= BIGGEST_FILE_BYTES:
                    found[name] = path.read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
        return found

    def _missing(self) -> AuthorityMissing:
        return AuthorityMissing(
            "Secret `cacerts` is missing: there is no certificate authority",
            still_working="proxies keep the certificates that they have until those end",
            hint=(
                "isthmus ca root && isthmus ca intermediate CLUSTER && "
                "isthmus ca push --context CONTEXT CLUSTER"
            ),
        )
