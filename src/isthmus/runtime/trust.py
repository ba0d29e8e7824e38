"""The signing authority as it is on disk, followed while it changes.

What cannot be used never replaces what can: the last good authority keeps signing, and the reason
is reported. Roots may be added or taken away, never exchanged at once: certificates that are in
use would then be worthless. Without any authority, the control plane is not ready; it never makes
a root of its own.

Source: spec section 1.1; promise P11; security rules CA-10 and CA-11.

    IsthmusError
    ├── AuthorityMissing
    └── RootsExchanged
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


class RootsExchanged(errors.IsthmusError):
    """The new authority's roots have nothing to do with those in force."""

    code = "ISM-RUN-004"


class Trust:
    """The authority in force, if any, and what is wrong with the files, if anything."""

    def __init__(self, directory: str, *, system_clock: clock.Clock) -> None:
        self._directory = Path(directory)
        self._clock = system_clock
        self._authority: authorities.Authority | None = None
        self._fault: errors.IsthmusError | None = None
        self._seen: dict[str, str] | None = None
        self._files: dict[str, str] = {}
        self._listeners: list[Callable[[authorities.Authority], None]] = []

    @property
    def authority(self) -> authorities.Authority | None:
        """The authority in force; None when there was never a usable one."""
        return self._authority

    @property
    def files(self) -> dict[str, str]:
        """The files of the authority in force, by name, with its key; empty when there is none."""
        return self._files

    @property
    def fault(self) -> errors.IsthmusError | None:
        """Why the files as they are now cannot be used; None when they can."""
        return self._fault

    def findings(self, namespace: str) -> list[errors.Finding]:
        """Say what is wrong with the Secret that the files are of, in a namespace, if anything."""
        fault = self._fault
        if fault is None:
            return []
        working = "certificates are signed with the last good one" if self._authority else ""
        return [
            errors.Finding(
                fault.code,
                f"Secret {namespace}/cacerts",
                "; ".join([fault.happened, *fault.detail.splitlines()]),
                still_working=working or fault.still_working,
                hint=fault.hint,
            )
        ]

    def listen(self, listener: Callable[[authorities.Authority], None]) -> None:
        """Be told of each new authority, and at once of the one in force."""
        self._listeners.append(listener)
        if self._authority is not None:
            listener(self._authority)

    def look(self) -> None:
        """Read the files; take them over when they have changed and can be used."""
        files = self._read()
        if files == self._seen and self._fault is None:
            return
        self._seen = files
        try:
            if not files:
                raise self._missing()
            # Also what was refused before: it may only have been too early for it.
            fresh = authorities.load(files, now=self._clock.now())
            self._check_roots(fresh)
        except errors.IsthmusError as error:
            self._note(error)
            return
        self._fault = None
        self._authority, self._files = fresh, files
        _LOG.info("certificate authority in force", ends=fresh.ends.isoformat())
        for listener in self._listeners:
            listener(fresh)

    def _note(self, error: errors.IsthmusError) -> None:
        if self._fault is None or self._fault.happened != error.happened:
            _LOG.error(
                "certificate authority cannot be used",
                code=error.code,
                reason=error.happened,
                keeps_last=self._authority is not None,
                hint=error.hint,
            )
        self._fault = error

    def _check_roots(self, fresh: authorities.Authority) -> None:
        if self._authority is None:
            return
        now, then = set(self._authority.roots), set(fresh.roots)
        if not (now <= then or then <= now):
            raise RootsExchanged(
                "the roots in Secret `cacerts` are others than those that the mesh trusts now",
                still_working="the authority of before keeps signing",
                hint="first put both roots into `root-cert.pem`, then sign with the new one, and "
                "take the old one away when no certificate of it is in use",
            )

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
