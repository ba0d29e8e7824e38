"""Bodies that rest are folded, and read as they were."""

import copy
import dataclasses
import sys

from isthmus.resources import building, folding, snapshot, versions
from isthmus.views import view
from isthmus.xds import warming

BODY = b"".join(b"\x12\x0410.1.%d.%d:8080 and all else" % (n // 250, n % 250) for n in range(300))


def held(resource):
    return snapshot._HELD.__get__(resource)


def resource(body=BODY):
    return versions.encoded(snapshot.ENDPOINTS, body, name="web")


def test_what_rests_is_small_and_reads_as_it_was():
    one = resource()

    assert one.rest() == len(BODY)
    assert sys.getsizeof(held(one)) < len(BODY) / 3
    assert one.body == BODY
    assert type(one.body) is bytes


def test_what_was_asked_for_rests_again_and_what_rests_is_left_alone():
    one = resource()
    one.rest()
    assert one.rest() == 0

    assert len(one.body) == one.rest()
    assert one.rest() == 0


def test_what_rests_is_equal_to_what_does_not():
    one, other = resource(), resource()
    one.rest()

    assert one == other
    assert hash(one) == hash(other)
    assert one != resource(BODY + b"more")


def test_what_is_made_of_a_resource_that_rests_has_its_body():
    one = resource()
    one.rest()

    assert dataclasses.replace(one, version="other").body == BODY
    one.rest()
    assert copy.copy(one).body == BODY


def test_of_equal_versions_different_bodies_are_different_resources():
    one = resource()
    one.rest()

    assert one != dataclasses.replace(one, body=BODY[:-1])


def test_short_bodies_and_those_that_do_not_repeat_themselves_stay():
    noise = bytes(hash((n, "x")) & 0xFF for n in range(folding.LEAST * 2))

    assert folding.folded(BODY[: folding.LEAST - 1]) == BODY[: folding.LEAST - 1]
    assert folding.folded(noise) is noise
    assert resource(noise).rest() == 0


def test_all_that_proxies_are_told_can_rest():
    hosts = tuple(view.VirtualHost(f"host-{n}", (f"host-{n}.shop",), ()) for n in range(50))
    told = building.build(view.RouteSlice("80", hosts))
    wanted = bytes(told.body)

    assert len(wanted) in set(snapshot.resting())
    assert isinstance(held(told), folding.Folded)
    assert building.build(view.RouteSlice("80", hosts)) is told
    assert told.body == wanted


def test_assignments_as_they_are_told_for_a_cluster_rest_as_well():
    assignments = {"web": resource()}
    told = warming.Told(assignments, {"web": "cluster-1"})["web"]

    assert sum(snapshot.resting()) >= len(BODY)
    assert isinstance(held(told), folding.Folded)
    assert told.version == f"cluster-1.{assignments['web'].version}"
    assert warming.Told(assignments, {"web": "cluster-1"})["web"] is told
    assert told.body == BODY
