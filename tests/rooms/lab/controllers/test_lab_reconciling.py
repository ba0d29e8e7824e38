"""A key of a controller is looked at until it is right."""

from fakes import kube_server
from isthmus.base import tasks
from isthmus.lab.apiserver import errors
from isthmus.lab.controllers import reconciling


class Hasty(reconciling.Reconciler):
    """Waits for nothing."""

    def touch_later(self, key, *, delay_s):
        assert 0 < delay_s < 60
        self.touch(key)


async def test_a_key_that_fails_a_thousand_times_is_looked_at_again():
    tried, enough = [], 1100

    async def reconcile(key):
        tried.append(key)
        if len(tried) < enough:
            raise errors.ApiError(409, "Conflict", "somebody else was faster")

    controller = Hasty("test", reconcile)
    async with tasks.Nursery() as nursery:
        controller.start(nursery)
        controller.touch("a")
        await kube_server.eventually(lambda: len(tried) == enough)
