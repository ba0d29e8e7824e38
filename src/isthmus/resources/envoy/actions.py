"""What routes do with requests, as parts of Envoy's Route.

Source: spec section 4.8; Istio's API for VirtualService.
"""

import functools
from typing import Final

from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import message

from isthmus.mesh import requests
from isthmus.resources.envoy import conditions, messages
from isthmus.views import view

FAULT: Final = "envoy.filters.http.fault"
CORS: Final = "envoy.filters.http.cors"
RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
ATTEMPTS: Final = 2
# Istio's 5 lets one retry in sixty go to the endpoint that just failed, where there are but two.
HOST_ATTEMPTS: Final = 16
UNAVAILABLE: Final = 503
MILLIONTHS: Final = percent_pb2.FractionalPercent.MILLION
REPLACE: Final = "OVERWRITE_IF_EXISTS_OR_ADD"
APPEND: Final = "APPEND_IF_EXISTS_OR_ADD"
REDIRECT_CODES: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def instead(treatment: requests.Treatment) -> messages.Fields:
    """Return what answers a request at once; nothing where it is routed."""
    if treatment.answer is not None:
        answer: messages.Fields = {"status": treatment.answer.status}
        if treatment.answer.body:
            answer["body"] = {"inline_string": treatment.answer.body}
        return {"direct_response": answer}
    redirect = treatment.redirect
    if redirect is None:
        return {}
    fields: messages.Fields = {"response_code": REDIRECT_CODES[redirect.status]}
    for name, value in (
        ("path_redirect", redirect.path),
        ("prefix_rewrite", redirect.prefix),
        ("host_redirect", redirect.host),
        ("scheme_redirect", redirect.scheme),
        ("port_redirect", redirect.port),
    ):
        if value:
            fields[name] = value
    return {"redirect": fields}


def targets(route: view.Route) -> messages.Fields:
    """Return the clusters that a route leads to."""
    first = route.targets[0]
    if len(route.targets) == 1 and first.headers == requests.UNCHANGED:
        return {"cluster": first.cluster_name}
    shares = [
        {"name": target.cluster_name, "weight": {"value": target.weight}}
        | changes(target.headers)
        | ({"host_rewrite_literal": target.headers.host} if target.headers.host else {})
        for target in route.targets
    ]
    return {"weighted_clusters": {"clusters": shares}}


def changes(headers: requests.Headers) -> messages.Fields:
    """Return how headers are changed on the way there and back."""
    fields: messages.Fields = {}
    for side, said in (("request", headers.request), ("response", headers.response)):
        added = [_added(pair, REPLACE) for pair in said.replaced]
        added += [_added(pair, APPEND) for pair in said.added]
        if added:
            fields[f"{side}_headers_to_add"] = added
        if said.removed:
            fields[f"{side}_headers_to_remove"] = list(said.removed)
    return fields


def rewriting(treatment: requests.Treatment) -> messages.Fields:
    """Return what becomes of path and host."""
    rewrite = treatment.rewrite
    fields: messages.Fields = {}
    if rewrite.path:
        fields["prefix_rewrite"] = rewrite.path
    elif rewrite.whole_path[0]:
        pattern, replacement = rewrite.whole_path
        fields["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": replacement}
    host = rewrite.host or treatment.headers.host
    if host:
        fields["host_rewrite_literal"] = host
    return fields


def copying(route: view.Route) -> messages.Fields:
    """Return where copies of requests go."""
    if not route.copies:
        return {}
    return {
        "request_mirror_policies": [
            {
                "cluster": copy.cluster_name,
                "runtime_fraction": {"default_value": _share(copy.weight)},
            }
            for copy in route.copies
        ]
    }


@functools.cache
def avoiding_tried() -> messages.Fields:
    """Return what keeps a retry from an endpoint that has just failed; nobody may change it."""
    return messages.extension(
        "envoy.retry_host_predicates.previous_hosts", previous_hosts_pb2.PreviousHostsPredicate()
    )


def retries(route: view.Route) -> messages.Fields:
    """Return when a request is tried again."""
    said = route.treatment.retries
    if not route.has_retries or (said is not None and not said.attempts):
        return {}
    attempts = ATTEMPTS if said is None else said.attempts
    conditions_ = ",".join(said.on) if said and said.on else RETRY_ON
    statuses = list(said.statuses) if said and said.on else [UNAVAILABLE]
    policy: messages.Fields = {
        "retry_on": conditions_,
        "num_retries": {"value": attempts},
        "retriable_status_codes": statuses,
    }
    if said is None or said.avoids_tried:
        policy["retry_host_predicate"] = [avoiding_tried()]
        policy["host_selection_retry_max_attempts"] = HOST_ATTEMPTS
    if said and said.per_try_timeout_s:
        policy["per_try_timeout"] = messages.seconds(said.per_try_timeout_s)
    if said and said.base_interval_s:
        policy["retry_back_off"] = {"base_interval": messages.seconds(said.base_interval_s)}
    return {"retry_policy": policy}


def per_filter(treatment: requests.Treatment) -> messages.Fields:
    """Return what filters before the router do with a route's requests."""
    own: dict[str, message.Message] = {}
    if treatment.fault is not None:
        own[FAULT] = messages.packed(_fault(treatment.fault))
    if treatment.cors is not None:
        own[CORS] = messages.packed(_cors(treatment.cors))
    return {"typed_per_filter_config": own} if own else {}


def filters() -> list[messages.Fields]:
    """Return the filters that act where a route says so, and nowhere else."""
    return [
        messages.extension(FAULT, fault_pb2.HTTPFault()),
        messages.extension(CORS, cors_pb2.Cors()),
    ]


def _fault(fault: requests.Fault) -> message.Message:
    fields: messages.Fields = {}
    if fault.delay_s:
        share = _share(fault.delayed)
        fields["delay"] = {"fixed_delay": messages.seconds(fault.delay_s), "percentage": share}
    if fault.status:
        fields["abort"] = {"http_status": fault.status, "percentage": _share(fault.aborted)}
    result: message.Message = fault_pb2.HTTPFault(**fields)
    return result


def _cors(cors: requests.Cors) -> message.Message:
    fields: messages.Fields = {
        "allow_origin_string_match": [conditions.string_match(one) for one in cors.origins]
    }
    for name, words in (
        ("allow_methods", cors.methods),
        ("allow_headers", cors.headers),
        ("expose_headers", cors.exposed),
    ):
        if words:
            fields[name] = ",".join(words)
    if cors.max_age_s:
        fields["max_age"] = str(int(cors.max_age_s))
    if cors.credentials is not None:
        fields["allow_credentials"] = {"value": cors.credentials}
    result: message.Message = cors_pb2.CorsPolicy(**fields)
    return result


def _added(pair: tuple[str, str], action: str) -> messages.Fields:
    name, value = pair
    return {"header": {"key": name, "value": value}, "append_action": action}


def _share(millionths: int) -> messages.Fields:
    return {"numerator": millionths, "denominator": MILLIONTHS}
