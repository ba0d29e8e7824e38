"""Whatever a VirtualService says, the routes that come of it are routes that Envoy takes."""

import hypothesis
from hypothesis import strategies

from isthmus.testing import builders, envoys

TEXTS = strategies.one_of(
    strategies.text(max_size=12),
    strategies.text("(){}[]|*+?\\.^$ab1,%:/ \t\r\n\0", max_size=12),
    strategies.sampled_from(
        ["", "/", "%PREFIX()%", "%REQ(a)%", "a" * 2000, "host", ":path", "5xx"]
    ),
)
NUMBERS = strategies.one_of(
    strategies.integers(-1, 1000), strategies.floats(allow_nan=False), strategies.integers()
)
PATTERNS = strategies.dictionaries(
    strategies.sampled_from(["exact", "prefix", "regex", "suffix"]), TEXTS, max_size=2
)
NAMED = strategies.dictionaries(TEXTS, PATTERNS, max_size=2)
DURATIONS = strategies.one_of(
    TEXTS, strategies.sampled_from(["0s", "1ms", "1.5s", "9999999h", "0.0000001s"])
)
SHARES = strategies.fixed_dictionaries({}, optional={"value": NUMBERS})
CHANGES = strategies.fixed_dictionaries(
    {},
    optional={
        "set": strategies.dictionaries(TEXTS, TEXTS, max_size=2),
        "add": strategies.dictionaries(TEXTS, TEXTS, max_size=2),
        "remove": strategies.lists(TEXTS, max_size=2),
    },
)


def some(**fields):
    return strategies.fixed_dictionaries({}, optional=fields)


HEADERS = some(request=CHANGES, response=CHANGES)
TARGETS = some(host=strategies.sampled_from(["web", "other", "nobody"]), subset=TEXTS)
ROUTES = some(
    match=strategies.lists(
        some(
            uri=PATTERNS,
            scheme=PATTERNS,
            method=PATTERNS,
            authority=PATTERNS,
            headers=NAMED,
            withoutHeaders=NAMED,
            queryParams=NAMED,
            ignoreUriCase=strategies.booleans(),
        ),
        max_size=2,
    ),
    route=strategies.lists(some(destination=TARGETS, weight=NUMBERS, headers=HEADERS), max_size=2),
    headers=HEADERS,
    rewrite=some(uri=TEXTS, authority=TEXTS, uriRegexRewrite=some(match=TEXTS, rewrite=TEXTS)),
    redirect=some(uri=TEXTS, authority=TEXTS, scheme=TEXTS, port=NUMBERS, redirectCode=NUMBERS),
    directResponse=some(status=NUMBERS, body=some(string=TEXTS)),
    timeout=DURATIONS,
    retries=some(attempts=NUMBERS, perTryTimeout=DURATIONS, retryOn=TEXTS, backoff=DURATIONS),
    fault=some(
        delay=some(fixedDelay=DURATIONS, percentage=SHARES),
        abort=some(httpStatus=NUMBERS, percentage=SHARES),
    ),
    mirrors=strategies.lists(some(destination=TARGETS, percentage=SHARES), max_size=2),
    corsPolicy=some(
        allowOrigins=strategies.lists(PATTERNS, max_size=2),
        allowMethods=strategies.lists(TEXTS, max_size=2),
        allowHeaders=strategies.lists(TEXTS, max_size=2),
        maxAge=DURATIONS,
    ),
)
# Half of what chance writes says nothing; a destination makes the rest of a route count.
USED = ROUTES.map(lambda one: {"route": [{"destination": {"host": "web"}}], **one})


ANSWERED = {"route", "redirect", "directResponse"}


@hypothesis.settings(
    max_examples=10,
    phases=[hypothesis.Phase.generate],  # to shrink many routes takes minutes
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(strategies.lists(USED, min_size=12, max_size=12))
def test_envoy_takes_what_comes_of_any_virtual_service(tmp_path_factory, routes):
    mesh = builders.Mesh()
    cluster = mesh.cluster("c", network="n")
    cluster.service("web", ready=["10.1.0.1"])
    cluster.service("other", ready=["10.1.0.2"])
    half = len(routes) // 2
    handed = {**routes[0], "delegate": {"name": "leaf"}}
    handed = {key: value for key, value in handed.items() if key not in ANSWERED}
    mesh.virtual_service("leaf", {"http": routes[:half]})
    mesh.virtual_service("it", {"hosts": ["web"], "http": [handed, *routes[half:]]})
    seen = mesh.snapshot_of(cluster.pod("client"))
    told = [one for kind in envoys.MESSAGES for one in seen.of(kind).values()]

    complaint = envoys.complaint_about(told, directory=tmp_path_factory.mktemp("routes"))
    assert complaint == ""
