"""What the lab's DNS answers."""

import struct

from isthmus.lab.machine import dns, names


class Catalog:
    """A few Services."""

    def __init__(self, **services):
        self._services = services

    def service(self, namespace, name):
        return self._services.get(name) if namespace == "shop" else None

    def slices(self, namespace, name):
        return self._services[name].get("slices", ())


def endpoint(ip, *, ready=True, hostname=None):
    return {"addresses": [ip], "conditions": {"ready": ready}, "hostname": hostname}


CATALOG = Catalog(
    web={"spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}},
    db={
        "spec": {"clusterIP": "None"},
        "slices": [
            {
                "endpoints": [
                    endpoint("10.0.0.1", hostname="db-0"),
                    endpoint("10.0.0.2", ready=False, hostname="db-1"),
                ]
            }
        ],
    },
    alias={"spec": {"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}},
    away={"spec": {"type": "ExternalName", "externalName": "example.com"}},
)


def addresses(name, kind=names.A):
    found = names.answer(name, kind, CATALOG)
    return [each.content for each in found.records] if found.exists else None


def test_a_service_stands_for_its_cluster_address():
    assert addresses("web.shop.svc.cluster.local") == ["10.96.0.7"]


def test_names_ignore_case():
    assert addresses("Web.Shop.SVC.Cluster.Local") == ["10.96.0.7"]


def test_a_headless_service_stands_for_its_ready_pods():
    assert addresses("db.shop.svc.cluster.local") == ["10.0.0.1"]


def test_a_pod_with_a_hostname_has_a_name_of_its_own_while_ready():
    assert addresses("db-0.db.shop.svc.cluster.local") == ["10.0.0.1"]
    assert addresses("db-1.db.shop.svc.cluster.local") is None


def test_an_external_name_is_followed_inside_the_cluster():
    assert addresses("alias.shop.svc.cluster.local") == ["web.shop.svc.cluster.local", "10.96.0.7"]


def test_an_external_name_outside_is_only_named():
    assert addresses("away.shop.svc.cluster.local") == ["example.com"]


def test_a_known_name_without_an_address_of_that_kind_exists():
    assert addresses("web.shop.svc.cluster.local", names.AAAA) == []


def test_unknown_names_do_not_exist():
    assert addresses("nobody.shop.svc.cluster.local") is None
    assert addresses("example.com") is None
    assert addresses("web.shop.svc.cluster.local.shop.svc.cluster.local") is None


def test_a_named_port_has_a_service_record():
    found = addresses("_http._tcp.web.shop.svc.cluster.local", names.SRV)

    assert found == ["0 100 80 web.shop.svc.cluster.local"]


def question(name, kind=names.A):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)


def test_a_reply_carries_the_question_and_its_answer():
    reply = dns.reply(question("web.shop.svc.cluster.local"), CATALOG)

    number, flags, questions, answers, *_ = struct.unpack_from(">HHHHHH", reply)
    assert (number, flags & 0x8F, questions, answers) == (7, 0x80, 1, 1)
    assert reply.endswith(bytes([10, 96, 0, 7]))


def test_an_unknown_name_is_refused_as_such():
    reply = dns.reply(question("example.com"), CATALOG)

    assert struct.unpack_from(">H", reply, 2)[0] & 0xF == 3


def test_what_does_not_fit_into_a_datagram_is_marked_so():
    reply = dns.reply(question("web.shop.svc.cluster.local"), CATALOG, longest=50)

    assert struct.unpack_from(">H", reply, 2)[0] & 0x0200


def test_garbage_is_answered_with_a_refusal_or_silence():
    assert dns.reply(b"x", CATALOG) == b""
    assert struct.unpack_from(">H", dns.reply(b"\0\1" + b"\0" * 10, CATALOG), 2)[0] & 0xF == 1
    assert struct.unpack_from(">H", dns.reply(question("web")[:14], CATALOG), 2)[0] & 0xF == 1
