"""Waypoints: a real Envoy judges and routes what comes through tunnels, by who began them."""

import msgspec
import tokened
import waypointed
from waypointed import CLIENT, HOST, OTHER

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api
from isthmus.registry import key_sets

TARGET = {"targetRefs": [{"kind": "Service", "group": "", "name": "web"}]}


async def test_a_service_is_reached_by_its_host_and_by_its_address(tmp_path):
    async with waypointed.running(waypointed.a_mesh(), tmp_path) as door:
        by_host, said = await door.ask("/x")
        by_address = await door.pod(authority="10.96.0.1:80")

    assert (by_host, said["pod"], said["path"]) == (200, "10.1.0.1", "/x")
    assert by_address == "10.1.0.1"
    assert said["headers"]["x-forwarded-client-cert"] == f"URI={CLIENT}"


async def test_servers_are_not_told_of_a_caller_that_a_client_only_claims(tmp_path):
    claimed = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/a/sa/boss"}
    async with waypointed.running(waypointed.a_mesh(), tmp_path) as door:
        _, said = await door.ask(**claimed)

    assert said["headers"]["x-forwarded-client-cert"] == f"URI={CLIENT}"


ASKED = {
    "a service with another waypoint, or none": "outside.elsewhere.svc.cluster.local:80",
    "another port": f"{HOST}:81",
    "no port": HOST,
    "an address of a pod": "10.1.0.1:80",
    "the waypoint itself": "waypoint.apps.svc.cluster.local:15008",
    "loopback": "127.0.0.1:15000",
    "a host outside": "example.com:443",
    "any": "*:80",
}


async def test_nothing_leads_anywhere_that_is_not_in_the_table(tmp_path):
    async with waypointed.running(waypointed.a_mesh(), tmp_path) as door:
        answers = {name: (await door.ask(authority=asked))[0] for name, asked in ASKED.items()}

    assert answers == dict.fromkeys(ASKED, 404)


def asking(account="client", namespace="apps", **operation):
    source = {"principals": [f"cluster.local/ns/{namespace}/sa/{account}"]}
    return {"from": [{"source": source}], "to": [{"operation": operation}]}


async def statuses(mesh, folder, calls):
    """Return what becomes of each call: its path, and how it is made."""
    async with waypointed.running(mesh, folder) as door:
        return [(await door.ask(path, **how))[0] for path, how in calls]


async def test_requests_are_judged_by_who_began_the_tunnel_and_what_they_ask_for(tmp_path):
    mesh = waypointed.a_mesh()
    rule = asking(methods=["GET"], paths=["/open/*"])
    mesh.authorization_policy("p", {**TARGET, "rules": [rule]}, namespace=waypointed.APPS)
    calls = [
        ("/open/x", {}),
        ("/shut", {}),
        ("/open/x", {"method": "POST"}),
        ("/open/x", {"who": OTHER}),
        ("/open/../shut", {}),
        ("/", {"authority": "next.apps.svc.cluster.local:80"}),
    ]

    assert await statuses(mesh, tmp_path, calls) == [200, 403, 403, 403, 403, 200]


async def test_a_policy_for_the_waypoint_holds_for_all_that_passes_it(tmp_path):
    mesh = waypointed.a_mesh()
    group = "gateway.networking.k8s.io"
    target = {"targetRefs": [{"kind": "Gateway", "group": group, "name": "waypoint"}]}
    denying = {**target, "action": "DENY", "rules": [asking("other", "elsewhere", ports=["80"])]}
    mesh.authorization_policy("p", denying, namespace=waypointed.APPS)
    next_ = {"authority": "next.apps.svc.cluster.local:80"}
    calls = [("/", {}), ("/", {"who": OTHER}), ("/", next_), ("/", {**next_, "who": OTHER})]

    assert await statuses(mesh, tmp_path, calls) == [200, 403, 200, 403]


OF_OTHERS = {
    "namespace": {"action": "DENY", "rules": [{}]},
    "labels": {"selector": {"matchLabels": {waypointed.NAME: "waypoint"}}},
    "another-service": {"targetRefs": [{"kind": "Service", "group": "", "name": "next"}]},
    "another-kind": {"targetRefs": [{"kind": "Gateway", "group": "x", "name": "waypoint"}]},
}


async def test_policies_that_do_not_name_it_do_not_hold_at_a_waypoint(tmp_path):
    mesh = waypointed.a_mesh()
    for name, spec in OF_OTHERS.items():
        mesh.authorization_policy(name, spec, namespace=waypointed.APPS)

    assert await statuses(mesh, tmp_path, [("/", {})]) == [200]


async def test_requests_are_judged_by_the_address_that_began_the_tunnel(tmp_path):
    mesh = waypointed.a_mesh()
    for name, ranges in (("web", ["127.0.0.0/8"]), ("next", ["192.0.2.0/24"])):
        denied = [{"from": [{"source": {"ipBlocks": ranges}}]}]
        target = {"targetRefs": [{"kind": "Service", "group": "", "name": name}]}
        spec = {**target, "action": "DENY", "rules": denied}
        mesh.authorization_policy(name, spec, namespace=waypointed.APPS)
    next_ = {"authority": "next.apps.svc.cluster.local:80"}

    tcp = {"authority": f"{HOST}:9000"}
    tcp_next = {"authority": "next.apps.svc.cluster.local:9000"}

    calls = [("/", {}), ("/", next_), ("/", tcp), ("/", tcp_next)]
    assert await statuses(mesh, tmp_path, calls) == [403, 200, 0, 200]


async def test_connections_are_judged_by_who_began_the_tunnel(tmp_path):
    mesh = waypointed.a_mesh()
    mesh.authorization_policy("p", {**TARGET, "rules": [asking(ports=["9000"])]}, namespace="apps")
    tcp = {"authority": f"{HOST}:9000"}
    calls = [("/", tcp), ("/", {**tcp, "who": OTHER}), ("/", {})]

    assert await statuses(mesh, tmp_path, calls) == [200, 0, 403]


async def test_ports_of_unknown_protocol_are_judged_as_requests_where_there_are_any(tmp_path):
    mesh = waypointed.a_mesh()
    rule = asking(methods=["GET"], paths=["/open"])
    mesh.authorization_policy("p", {**TARGET, "rules": [rule]}, namespace="apps")
    either = {"authority": f"{HOST}:7000"}

    assert await statuses(mesh, tmp_path, [("/open", either), ("/shut", either)]) == [200, 403]


async def test_routes_split_by_header_and_weight(tmp_path):
    mesh = waypointed.a_mesh()
    to_next = {"destination": {"host": "next", "port": {"number": 80}}}
    to_web = {"destination": {"host": "web", "port": {"number": 80}}}
    spec = {
        "hosts": ["web"],
        "http": [
            {"match": [{"headers": {"x-to": {"exact": "next"}}}], "route": [to_next]},
            {"route": [{**to_web, "weight": 50}, {**to_next, "weight": 50}]},
        ],
    }
    mesh.virtual_service("routes", spec, namespace="apps")
    async with waypointed.running(mesh, tmp_path) as door:
        named = {await door.pod(**{"x-to": "next"}) for _ in range(5)}
        split = {await door.pod() for _ in range(40)}

    assert named == {"10.1.0.2"}
    assert split == {"10.1.0.1", "10.1.0.2"}


PARENT = {"kind": "Service", "group": "", "name": "web"}


def route(mesh, name, *rules, parent=PARENT, namespace="apps"):
    spec = {"parentRefs": [parent], "rules": list(rules)}
    written = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
    key = ObjectKey(mesh.clusters["east"].id, namespace, name)
    mesh.put(mesh.sources.http_routes, key, msgspec.convert(written, gateway_api.HttpRoute))


def at(path, *targets, **rule):
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [{"name": one, "port": 80} for one in targets],
        **rule,
    }


async def test_http_routes_for_a_service_are_followed(tmp_path):
    """By path, weight and method; headers changed, paths rewritten, answers sent elsewhere."""
    mesh = waypointed.a_mesh()
    set_ = {"requestHeaderModifier": {"set": [{"name": "x-by", "value": "route"}]}}
    move = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}
    route(
        mesh,
        "a",
        at("/next", "next", filters=[{"type": "RequestHeaderModifier", **set_},
                                     {"type": "URLRewrite", "urlRewrite": move}]),
        at("/gone", filters=[{"type": "RequestRedirect", "requestRedirect": {"port": 8443}}]),
        at("/nobody", "absent"),
        at("/mirrored", "web", filters=[{"type": "RequestMirror",
                                         "requestMirror": {"backendRef": {"name": "next",
                                                                          "port": 80}}}],
           timeouts={"request": "5s"}, retry={"codes": [503], "attempts": 2}),
    )  # fmt: skip
    route(mesh, "b", at("/split", "web", "next"))
    async with waypointed.running(mesh, tmp_path) as door:
        _, moved = await door.ask("/next/x")
        statuses_ = [(await door.ask(path))[0] for path in ("/gone", "/nobody", "/else")]
        copied = await door.pod("/mirrored")
        split = {await door.pod("/split") for _ in range(40)}

    assert (moved["pod"], moved["path"]) == ("10.1.0.2", "/new/x")
    assert moved["headers"]["x-by"] == "route"
    assert statuses_ == [302, 500, 404]
    assert copied == "10.1.0.1"
    assert split == {"10.1.0.1", "10.1.0.2"}


async def test_routes_of_others_than_those_who_offer_the_service_do_not_hold(tmp_path):
    mesh = waypointed.a_mesh()
    parent = {**PARENT, "namespace": "apps"}
    route(mesh, "thief", at("/", "outside"), parent=parent, namespace="elsewhere")
    spec = {"hosts": [HOST], "http": [{"route": [{"destination": {"host": "outside"}}]}]}
    mesh.virtual_service("thief", spec, namespace="elsewhere")
    async with waypointed.running(mesh, tmp_path) as door:
        assert await door.pod() == "10.1.0.1"


ISSUER = "https://issuer.example"


def authentication(**rule):
    return {**TARGET, "jwtRules": [{"issuer": ISSUER, "jwks": tokened.KEYS, **rule}]}


def needing(**when):
    return {**TARGET, "rules": [{"from": [{"source": {"requestPrincipals": [f"{ISSUER}/*"]}}],
                                 **when}]}  # fmt: skip


async def test_requests_are_let_in_by_what_their_tokens_say(tmp_path):
    """Valid, missing, forged, expired, of another issuer; and by a claim."""
    mesh = waypointed.a_mesh()
    mesh.request_authentication("tokens", authentication(), namespace="apps")
    claim = {"when": [{"key": "request.auth.claims[groups]", "values": ["staff"]}]}
    mesh.authorization_policy("p", needing(**claim), namespace="apps")
    said = {"iss": ISSUER, "sub": "ann", "groups": ["x", "staff"]}
    tokens = {
        "valid": tokened.token(**said),
        "missing": None,
        "forged": tokened.token(**said, key="another"),
        "changed": tokened.token(**said)[:-6] + "AAAAAA",
        "expired": tokened.token(**said, exp=1),
        "another issuer": tokened.token(**said | {"iss": "https://other.example"}),
        "without the claim": tokened.token(iss=ISSUER, sub="ann", groups=["x"]),
        "without a subject": tokened.token(iss=ISSUER, groups=["staff"]),
    }
    calls = [("/", {"authorization": f"Bearer {one}"} if one else {}) for one in tokens.values()]

    answers = await statuses(mesh, tmp_path, calls)

    assert dict(zip(tokens, answers, strict=True)) == {
        "valid": 200,
        "missing": 403,
        "forged": 401,
        "changed": 401,
        "expired": 401,
        "another issuer": 401,
        "without the claim": 403,
        "without a subject": 403,
    }


async def test_no_token_is_believed_whose_keys_are_not_known(tmp_path):
    mesh = waypointed.a_mesh()
    uri = "https://issuer.example/keys"
    mesh.request_authentication("tokens", authentication(jwks=None, jwksUri=uri), namespace="apps")
    odd = {"issuer": "https://odd.example", "jwks": '{"keys": [{"kty": "RSA", "n": 1}]}'}
    mesh.request_authentication("odd", {**TARGET, "jwtRules": [odd]}, namespace="apps")
    shown = {"authorization": f"Bearer {tokened.token(iss=ISSUER, sub='ann')}"}
    odd = {"authorization": f"Bearer {tokened.token(iss=odd['issuer'], sub='ann')}"}

    assert await statuses(mesh, tmp_path, [("/", shown), ("/", odd), ("/", {})]) == [401, 401, 200]


async def test_tokens_are_believed_by_keys_that_were_fetched(tmp_path):
    mesh = waypointed.a_mesh()
    uri = "https://issuer.example/keys"
    mesh.request_authentication("tokens", authentication(jwks=None, jwksUri=uri), namespace="apps")
    (source,) = mesh.graph.value(mesh.model.key_sets.wanted)
    mesh.put(mesh.model.key_sets.fetched, source, key_sets.known(tokened.KEYS))
    shown = {"authorization": f"Bearer {tokened.token(iss=ISSUER, sub='ann')}"}
    forged = {"authorization": f"Bearer {tokened.token(iss=ISSUER, sub='ann', key='another')}"}

    assert await statuses(mesh, tmp_path, [("/", shown), ("/", forged), ("/", {})]) == [
        200, 401, 200,
    ]  # fmt: skip


async def test_claims_are_not_what_a_client_only_says(tmp_path):
    mesh = waypointed.a_mesh()
    told = {"outputClaimToHeaders": [{"header": "x-who", "claim": "sub"}]}
    mesh.request_authentication("tokens", authentication(**told), namespace="apps")
    shown = {"authorization": f"Bearer {tokened.token(iss=ISSUER, sub='ann')}"}
    async with waypointed.running(mesh, tmp_path) as door:
        _, by_token = await door.ask(**shown, **{"x-who": "boss"})
        _, without = await door.ask(**{"x-who": "boss"})

    assert by_token["headers"]["x-who"] == "ann"
    assert "authorization" not in by_token["headers"]
    assert "x-who" not in without["headers"]
