"""One event, one line: a constant message and its facts as fields.

Only doors log. Values of fields are escaped, so that nobody can forge a line by naming an object
with a line break in it.
"""

import json
import logging
import sys

Fact = str | int | float | bool | None


class Log:
    """Writes events of one part of the program.

    The message is a constant; everything that varies is a field. Secrets are never fields.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **facts: Fact) -> None:
        """Record what only somebody looking for a fault wants to see."""
        self._write(logging.DEBUG, message, facts)

    def info(self, message: str, **facts: Fact) -> None:
        """Record what an operator would miss if it were not there."""
        self._write(logging.INFO, message, facts)

    def warning(self, message: str, **facts: Fact) -> None:
        """Record what an operator should look at; the program goes on."""
        self._write(logging.WARNING, message, facts)

    def error(self, message: str, **facts: Fact) -> None:
        """Record what made something fail for a user."""
        self._write(logging.ERROR, message, facts)

    def _write(self, level: int, message: str, facts: dict[str, Fact]) -> None:
        if self._logger.isEnabledFor(level):
            text = message + _rendered(facts)
            # The library would look for who called it, which takes longer than all else.
            self._logger.handle(
                logging.LogRecord(self._logger.name, level, "", 0, "%s", (text,), None)
            )


def _rendered(facts: dict[str, Fact]) -> str:
    return "".join(f" {key}={json.dumps(value)}" for key, value in facts.items())


def configure(level: str = "info") -> None:
    """Send all events of at least `level` to standard error, one line each."""
    # No line says any of these.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(
        stream=sys.stderr,
        level=getattr(logging, level.upper()),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
