"""What clusters say is computed at once, and then together with what comes next."""

import asyncio

from isthmus.fleet import pacing, sources
from isthmus.mesh.identities import ClusterId
from isthmus.testing import pace as patience

EAST, WEST = ClusterId("east"), ClusterId("west")


class World:
    """Writes changes, each of which takes a while."""

    def __init__(self, *, takes_s=0.0):
        self.takes_s = takes_s
        self.written = []
        self.ended = []
        self.grown = asyncio.Event()
        self.pace = pacing.Pace(self.write)

    def write(self, changes):
        loop = asyncio.get_running_loop()
        until = loop.time() + self.takes_s
        while loop.time() < until:
            pass
        self.written.append({f"{key.cluster}/{key.name}" for key in changes["pods"]})
        self.ended.append(loop.time())
        self.grown.set()

    def say(self, cluster, name):
        changes = {"pods": {sources.ObjectKey(cluster, "shop", name): None}}
        self.pace.soon(lambda: changes)

    async def until(self, *, written):
        async with asyncio.timeout(patience.patience(10)):
            while len(self.written) < written:
                self.grown.clear()
                await self.grown.wait()


async def test_the_first_change_is_written_at_once():
    world = World()
    world.say(EAST, "a")
    world.say(WEST, "a")
    assert world.written == []
    await asyncio.sleep(0)

    assert world.written == [{"east/a", "west/a"}]


async def test_what_all_clusters_say_while_it_rests_is_written_in_one_step():
    world = World(takes_s=0.01)
    world.say(EAST, "a")
    await world.until(written=1)
    for name in "bcd":
        world.say(EAST, name)
        world.say(WEST, name)
        await asyncio.sleep(0)
    assert len(world.written) == 1
    began = world.ended[0]
    await world.until(written=2)

    assert world.written[1] == {f"{one}/{name}" for one in (EAST, WEST) for name in "bcd"}
    assert world.ended[1] - began >= pacing.RESTS * world.takes_s


async def test_it_never_rests_for_long():
    world = World(takes_s=2 * pacing.MOST_REST_S)
    for name in "ab":
        world.say(EAST, name)
        await world.until(written=len(world.written) + 1)

    # Were it to rest in proportion, this would be ten times as long.
    passed = world.ended[1] - world.ended[0] - world.takes_s
    assert pacing.MOST_REST_S * 0.9 <= passed < pacing.RESTS * world.takes_s


async def test_a_failure_takes_nothing_but_itself_away():
    world = World()
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    world.pace.soon(lambda: {"nodes": {sources.ObjectKey(EAST, "", "n"): None}})
    await asyncio.sleep(0)
    world.say(EAST, "a")
    await world.until(written=1)

    assert [str(each["exception"]) for each in failures] == ["'pods'"]
    assert world.written == [{"east/a"}]


async def test_who_has_nothing_to_say_any_more_writes_nothing():
    world = World()
    world.pace.soon(dict)
    await asyncio.sleep(0)

    assert world.written == []


async def test_a_cluster_whose_changes_cannot_be_had_keeps_no_others_away():
    def fail():
        raise ValueError("what nobody has thought of")

    world = World()
    world.say(EAST, "a")
    world.pace.soon(fail)
    world.say(WEST, "a")
    await world.until(written=1)

    assert world.written == [{"east/a", "west/a"}]
