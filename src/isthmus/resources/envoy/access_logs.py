"""What a proxy writes of each request and connection: one line, with the caller's identity.

The line is the one that users of Istio parse, with the peer's identity added at its end.

Source: spec section 4.9; docs/reference/access-log.md.
"""

from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2

from isthmus.resources.envoy import messages

FIELDS: Final = (
    "[%START_TIME%]",
    '"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%"',
    "%RESPONSE_CODE%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_CODE_DETAILS%",
    "%CONNECTION_TERMINATION_DETAILS%",
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%"',
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%DURATION%",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    '"%REQ(X-FORWARDED-FOR)%"',
    '"%REQ(USER-AGENT)%"',
    '"%REQ(X-REQUEST-ID)%"',
    '"%REQ(:AUTHORITY)%"',
    '"%UPSTREAM_HOST%"',
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%REQUESTED_SERVER_NAME%",
    "%ROUTE_NAME%",
    '"%DOWNSTREAM_PEER_URI_SAN%"',
)

CERTIFICATE: Final = "%DOWNSTREAM_PEER_URI_SAN%"
LINE: Final = " ".join(FIELDS) + "\n"

VERIFY_HEADER: Final = "x-isthmus-verify"
"""A request with this header is logged at each proxy on its way, whatever else is logged."""

VERIFIED: Final = {
    "isthmus_verify": "%REQ(X-ISTHMUS-VERIFY)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "upstream_host": "%UPSTREAM_HOST%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "tls_version": "%DOWNSTREAM_TLS_VERSION%",
}

NO_ROUTE: Final = "NR"
"""The flag of a connection for which there is no filter chain."""


def of_traffic(path: str, *, peer: str = CERTIFICATE) -> list[messages.Fields]:
    """Return the loggers of what a proxy passes on; none without a path.

    Args:
        path: Of the file.
        peer: Envoy's format of the caller's identity.
    """
    return [_logger(path, peer=peer)] if path else []


def of_verified(reporter: str, *, peer: str = CERTIFICATE) -> messages.Fields:
    """Return the logger of requests that verification has sent.

    Args:
        reporter: `source` at the client's proxy, `destination` at the server's.
        peer: Envoy's format of the caller's identity.
    """
    line = substitution_format_string_pb2.SubstitutionFormatString(
        json_format=messages.struct({"reporter": reporter, **VERIFIED, "peer": peer})
    )
    logger = messages.extension(
        "envoy.access_loggers.file",
        file_pb2.FileAccessLog(path="/dev/stdout", log_format=line),
    )
    sent = accesslog_pb2.HeaderFilter(header={"name": VERIFY_HEADER, "present_match": True})
    return logger | {"filter": {"header_filter": sent}}


def of_refused(path: str) -> list[messages.Fields]:
    """Return the loggers of connections that a listener knows no use for."""
    only = {"response_flag_filter": accesslog_pb2.ResponseFlagFilter(flags=[NO_ROUTE])}
    return [_logger(path) | {"filter": only}] if path else []


def _logger(path: str, *, peer: str = CERTIFICATE) -> messages.Fields:
    line = LINE.replace(CERTIFICATE, peer)
    text = substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source={"inline_string": line}
    )
    return messages.extension(
        "envoy.access_loggers.file", file_pb2.FileAccessLog(path=path, log_format=text)
    )
