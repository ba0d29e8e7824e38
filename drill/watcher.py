"""Runs inside a pod: says which endpoints its proxy has, whenever that changes.

One line of JSON on standard output for each change, and one in between as a sign of life. It asks
Envoy's own page, so that what it says is what the proxy would do, whatever it was sent.

    watcher.py [SECONDS-BETWEEN]
"""

import json
import sys
import time
import urllib.request
from typing import Any

PAGE = "http://127.0.0.1:15000/clusters?format=json"
EVERY_S = 0.25
SIGN_OF_LIFE_S = 2.0
PATIENCE_S = 15.0
FAILURES = ("cx_connect_fail", "rq_error", "rq_timeout")

Host = tuple[str, str]
"""A cluster's name and an address."""


class Tally:
    """Counts of failed tries that go on when a host is forgotten and known again."""

    def __init__(self) -> None:
        self.total = 0
        self._last: dict[Host, int] = {}

    def note(self, counts: dict[Host, int]) -> None:
        """Add what has happened since the last time."""
        for host, count in counts.items():
            before = self._last.get(host, 0)
            self.total += count - before if count >= before else count
        self._last = counts


def read() -> tuple[list[str], dict[Host, int]]:
    """Return the endpoints that are well, as `CLUSTER ADDRESS`, and the failures of each host."""
    with urllib.request.urlopen(PAGE, timeout=PATIENCE_S) as answer:
        statuses = json.load(answer)["cluster_statuses"]
    endpoints: list[str] = []
    failures: dict[Host, int] = {}
    for cluster in statuses:
        if not cluster["name"].startswith("outbound"):
            continue
        for host in cluster.get("host_statuses", ()):
            address = shown(host["address"])
            failures[cluster["name"], address] = failed(host)
            if host["health_status"].get("eds_health_status") == "HEALTHY":
                endpoints.append(f"{cluster['name']} {address}")
    return sorted(endpoints), failures


def shown(address: dict[str, Any]) -> str:
    """Return an address as text."""
    place = address.get("socket_address")
    return f"{place['address']}:{place['port_value']}" if place else json.dumps(address)


def failed(host: dict[str, Any]) -> int:
    """Return how many tries at a host have failed."""
    return sum(
        int(stat.get("value", 0)) for stat in host.get("stats", ()) if stat["name"] in FAILURES
    )


def say(**fields: object) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"at": time.time(), **fields}) + "\n")
    sys.stdout.flush()


def main(every_s: float) -> None:
    """Look again and again."""
    before: list[str] | None = None
    told, tally = 0.0, Tally()
    while True:
        try:
            endpoints, failures = read()
        except OSError as error:
            say(error=repr(error))
        else:
            tally.note(failures)
            if endpoints != before:
                say(endpoints=endpoints, failed=tally.total)
                before, told = endpoints, time.monotonic()
            elif time.monotonic() - told > SIGN_OF_LIFE_S:
                say(failed=tally.total)
                told = time.monotonic()
        time.sleep(every_s)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else EVERY_S)
