"""What is read from the logs of nodes' proxies."""

from isthmus.install import tunnel_lines

ENDED = (
    '[2026-11-21T11:28:27.488Z] "CONNECT - HTTP/2" 200 - via_upstream - "-" 105 212 2 - "-" "-" '
    '"9edc4e33" "10.11.1.6:5000" "10.11.1.6:5000" tunnelled 10.11.1.5:52452 10.11.1.6:15008 '
    '10.11.1.5:49154 - - "spiffe://cluster.local/ns/sample/sa/sleep"'
)
LEFT = (
    '[2026-11-21T11:28:29.004Z] "- - -" 0 - - - "-" 105 212 8 - "-" "-" "-" "-" "10.0.0.1:15008" '
    'tunnels 10.0.0.2:40808 10.0.0.1:5000 envoy://internal_client_address/ - - "-"'
)
DENIED = ENDED.replace('HTTP/2" 200', 'HTTP/2" 403').replace("27.488", "27.999")
OTHER = "2026-11-21 11:17:32,596 INFO isthmus.envoy proxy started pid=3"


def test_tunnels_that_ended_well_are_read_and_nothing_else():
    [found] = tunnel_lines.read([OTHER, ENDED, LEFT, DENIED])

    assert found == tunnel_lines.Ended(
        "2026-11-21T11:28:27.488Z",
        "10.11.1.6",
        "10.11.1.5",
        "spiffe://cluster.local/ns/sample/sa/sleep",
    )


def test_what_began_before_a_moment_is_left_out():
    after = tunnel_lines.last([ENDED, DENIED])

    assert after == "2026-11-21T11:28:27.488Z"
    assert list(tunnel_lines.read([ENDED], after=after)) == []
    assert tunnel_lines.last([OTHER]) == ""
