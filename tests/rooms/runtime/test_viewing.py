"""How many views there are, and what happens when there are too many."""

import pytest

from isthmus.base import metrics
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.runtime import settings, viewing
from isthmus.views import view


def outbound(number):
    return view.OutboundScope(ClusterId("c1"), NetworkId("n1"), f"ns-{number}")


def counted(number, most=8):
    views = viewing.Views(metrics.Metrics(), most=most)
    for each in range(number):
        views.come(outbound(each))
    return views


def test_views_of_every_service_are_counted_and_nothing_else():
    registered = metrics.Metrics()
    views = viewing.Views(registered)
    for scope in (outbound(1), outbound(2), view.TrustScope(), view.InboundScope("a", (), ())):
        views.come(scope)
    views.come(outbound(1), -1)

    assert 'isthmus_views{kind="outbound"} 1' in registered.text()
    assert "inbound" not in registered.text()


def test_many_are_a_finding_from_a_quarter_of_what_is_allowed():
    assert counted(2).findings() == []
    [found] = counted(3).findings()
    assert (found.code, found.happened) == ("ISM-XDS-003", "there are 3, of at most 8: 3 outbound")


def test_at_the_most_only_who_needs_another_one_is_refused():
    views = counted(8)

    assert "8 views" in views.objection([outbound(9), view.TrustScope()])
    assert views.objection([view.TrustScope()]) == ""
    assert counted(7).objection([outbound(9)]) == ""


def test_the_most_is_a_setting():
    assert settings.read({"ISTHMUS_MOST_VIEWS": "7"}, []).most_views == 7
    for wrong in ("0", "-1", "many"):
        with pytest.raises(settings.SettingRefused):
            settings.read({"ISTHMUS_MOST_VIEWS": wrong}, [])
