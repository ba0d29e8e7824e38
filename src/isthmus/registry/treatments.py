"""What HTTP routes do with requests: rewrite, redirect, answer, retry, delay, copy, let pages in.

A part that is not understood is left out and named; of what would replace the route, the whole
route is left out, since requests would go where their author did not want them.

Source: spec sections 4.8 and 8.2; Istio's API for VirtualService.
"""

from typing import Final

from isthmus.mesh import requests
from isthmus.registry import fields, patterns, texts

REPLACING: Final = ("redirect", "directResponse")
PARTS: Final = frozenset(
    {"headers", "rewrite", "redirect", "directResponse", "retries", "fault", "corsPolicy"}
)
REDIRECTS: Final = (301, 302, 303, 307, 308)
PREFIX: Final = "%PREFIX()%"
MOST_PORT: Final = 65535
MOST_BODY: Final = 1 << 20
FIRST_STATUS, LAST_STATUS = 200, 599
LEFT_OUT: Final = "is not supported and left out"
CONDITIONS: Final = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
"""When Envoy may try again."""


def read(part: fields.Fields) -> requests.Treatment | None:
    """Return what a route does with requests; None when it must be left out."""
    redirect, answer = _redirect(part), _answer(part)
    if any(key in part for key in REPLACING) and not (redirect or answer):
        return None
    if redirect and answer:
        part.problem("directResponse", "cannot stand beside `redirect`: this route is left out")
        return None
    return requests.Treatment(
        headers=headers(part),
        rewrite=_rewrite(part),
        redirect=redirect,
        answer=answer,
        retries=_retries(part),
        fault=_fault(part),
        cors=_cors(part),
    )


# --- headers


def headers(part: fields.Fields) -> requests.Headers:
    """Return how headers are changed, by a route or on the way to one of its destinations."""
    if "headers" not in part:
        return requests.UNCHANGED
    both = part.part("headers")
    both.refuse_others({"request", "response"}, LEFT_OUT)
    asked = _changes(both.part("request"))
    host = next((value for name, value in asked.replaced if name in texts.HOST), "")
    plain = tuple(pair for pair in asked.replaced if pair[0] not in texts.HOST)
    return requests.Headers(
        request=requests.HeaderChanges(plain, asked.added, asked.removed),
        response=_changes(both.part("response"), may_name_host=False),
        host=host,
    )


def _changes(part: fields.Fields, *, may_name_host: bool = True) -> requests.HeaderChanges:
    part.refuse_others({"set", "add", "remove"}, LEFT_OUT)
    removed = []
    for number, name in enumerate(part.texts("remove")):
        if texts.is_header(name) and name.lower() not in texts.HOST:
            removed.append(name.lower())
        else:
            part.problem(f"remove[{number}]", "cannot be removed and is left out")
    return requests.HeaderChanges(
        replaced=_values(part, "set", may_name_host=may_name_host),
        added=_values(part, "add", may_name_host=False),
        removed=tuple(removed),
    )


def _values(part: fields.Fields, key: str, *, may_name_host: bool) -> requests.Pairs:
    """Return names and values; what would make Envoy refuse all routes is named and left out."""
    listed = part.part(key)
    found = {}
    for name, value in part.pairs(key):
        is_host = name.lower() in texts.HOST
        if (is_host and not may_name_host) or not (is_host or texts.is_header(name)):
            listed.problem(name, "is no header to change here, and is left out")
        elif not texts.is_literal(value):
            listed.problem(name, "has a value that cannot stand there, and is left out")
        else:
            found[name.lower()] = value
    return tuple(sorted(found.items()))


# --- where requests go


def _rewrite(part: fields.Fields) -> requests.Rewrite:
    if "rewrite" not in part:
        return requests.Rewrite()
    said = part.part("rewrite")
    said.refuse_others({"uri", "authority", "uriRegexRewrite"}, LEFT_OUT)
    whole = ("", "")
    if "uriRegexRewrite" in said:
        pattern = said.part("uriRegexRewrite")
        whole = (pattern.text("match"), pattern.text("rewrite"))
        if not whole[0] or not patterns.is_regex(whole[0]) or not texts.is_printable(whole[1]):
            said.problem("uriRegexRewrite", "is no pattern of RE2 and is left out")
            whole = ("", "")
    path, host = _plain(said, "uri"), _plain(said, "authority")
    if path and whole[0]:
        said.problem("uriRegexRewrite", "cannot stand beside `uri` and is left out")
        whole = ("", "")
    return requests.Rewrite(path, host, whole)


def _redirect(part: fields.Fields) -> requests.Redirect | None:
    if "redirect" not in part:
        return None
    said = part.part("redirect")
    happened = "is not supported, so that this route is left out"
    if said.refuse_others({"uri", "authority", "scheme", "port", "redirectCode"}, happened):
        return None
    status = said.number("redirectCode", default=301, least=301, most=308)
    uri, host, scheme = said.text("uri"), said.text("authority"), said.text("scheme")
    port = said.number("port", default=0, least=1, most=MOST_PORT)
    is_known = (
        status in REDIRECTS
        and scheme in {"", "http", "https"}
        and texts.is_literal(host)
        and texts.is_literal(uri.removeprefix(PREFIX))
    )
    if not is_known or ("port" in said and not port):
        part.problem("redirect", "is not understood, so that this route is left out")
        return None
    is_prefix = uri.startswith(PREFIX)
    return requests.Redirect(
        status=status,
        path="" if is_prefix else uri,
        prefix=uri.removeprefix(PREFIX) if is_prefix else "",
        host=host,
        scheme=scheme,
        port=port,
    )


def _answer(part: fields.Fields) -> requests.Answer | None:
    if "directResponse" not in part:
        return None
    said = part.part("directResponse")
    body = said.part("body")
    happened = "is not supported, so that this route is left out"
    if said.refuse_others({"status", "body"}, happened) or body.refuse_others({"string"}, happened):
        return None
    status = said.number("status", default=0, least=FIRST_STATUS, most=LAST_STATUS)
    if not status:
        part.problem("directResponse", "must say a `status`: this route is left out")
        return None
    return requests.Answer(status, body.text("string"))


# --- when things go wrong


def _retries(part: fields.Fields) -> requests.Retries | None:
    if "retries" not in part:
        return None
    said = part.part("retries")
    said.refuse_others(
        {"attempts", "perTryTimeout", "retryOn", "backoff", "retryIgnorePreviousHosts"}, LEFT_OUT
    )
    conditions, statuses = list[str](), list[int]()
    for word in filter(None, (one.strip() for one in said.text("retryOn").split(","))):
        if word.isdecimal() and FIRST_STATUS <= int(word) <= LAST_STATUS:
            statuses.append(int(word))
        elif word in CONDITIONS:
            conditions.append(word)
        else:
            said.problem("retryOn", f"names a condition that is unknown: `{word[:40]}`")
    if statuses and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return requests.Retries(
        attempts=said.number("attempts", default=0, least=0, most=100),
        per_try_timeout_s=said.seconds("perTryTimeout", default=0.0),
        on=tuple(conditions),
        statuses=tuple(statuses),
        base_interval_s=said.seconds("backoff", default=0.0),
        avoids_tried=said.flag("retryIgnorePreviousHosts", default=True),
    )


def _fault(part: fields.Fields) -> requests.Fault | None:
    if "fault" not in part:
        return None
    said = part.part("fault")
    said.refuse_others({"delay", "abort"}, LEFT_OUT)
    delay, abort = said.part("delay"), said.part("abort")
    delay.refuse_others({"fixedDelay", "percentage"}, LEFT_OUT)
    abort.refuse_others({"httpStatus", "percentage"}, LEFT_OUT)
    found = requests.Fault(
        delay_s=delay.seconds("fixedDelay", default=0.0),
        delayed=delay.share("percentage", default=fields.MILLION),
        status=abort.number("httpStatus", default=0, least=FIRST_STATUS, most=LAST_STATUS),
        aborted=abort.share("percentage", default=fields.MILLION),
    )
    if not found.delay_s and not found.status:
        part.problem("fault", "says neither how long to wait nor what to answer, and is left out")
        return None
    return found


# --- pages of other sites


def _cors(part: fields.Fields) -> requests.Cors | None:
    if "corsPolicy" not in part:
        return None
    said = part.part("corsPolicy")
    said.refuse_others(
        {
            "allowOrigin",
            "allowOrigins",
            "allowMethods",
            "allowHeaders",
            "exposeHeaders",
            "maxAge",
            "allowCredentials",
        },
        LEFT_OUT,
    )
    origins = [f"exact:{one}" for one in said.texts("allowOrigin")]
    for number, one in enumerate(said.parts("allowOrigins")):
        pattern = patterns.of(one)
        if pattern:
            origins.append(pattern)
        else:
            said.problem(f"allowOrigins[{number}]", "is not understood and left out")
    lists = {key: _words(said, key) for key in ("allowMethods", "allowHeaders", "exposeHeaders")}
    return requests.Cors(
        origins=tuple(origins),
        methods=lists["allowMethods"],
        headers=lists["allowHeaders"],
        exposed=lists["exposeHeaders"],
        max_age_s=said.seconds("maxAge", default=0.0),
        credentials=said.flag("allowCredentials", default=False)
        if "allowCredentials" in said
        else None,
    )


def _words(part: fields.Fields, key: str) -> tuple[str, ...]:
    return tuple(word for word in part.texts(key) if texts.is_printable(word))


def _plain(part: fields.Fields, key: str) -> str:
    """Return a text that Envoy takes as it is; nothing, named, for another one."""
    value = part.text(key)
    if not texts.is_literal(value):
        part.problem(key, "holds characters that cannot stand there, and is left out")
        return ""
    return value
