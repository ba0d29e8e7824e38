import asyncio
import contextlib

import aiohttp
import node_shapes as shapes
from node_world import Agent, ControlPlane, free_ports

from isthmus.resources.envoy import tls
from isthmus.testing import envoys, pace
from isthmus.views import view

CLIENT = "spiffe://cluster.local/ns/sample/sa/client"

ROTATING = {"SECRET_TTL": "30s", "SECRET_GRACE_PERIOD_RATIO": "0.97"}
"""A new certificate about every second, each good for half a minute."""


@contextlib.asynccontextmanager
async def two_proxies(control, *, folder, application, callee="server", **environment):
    """Yield the port on which the client's proxy takes requests for the application."""
    outbound, inbound = free_ports(2)
    control.configurations = {
        "client": shapes.client_side(outbound, server=inbound, callee=callee),
        "server": shapes.server_side(inbound, application=application, caller="client"),
    }
    agents = [
        Agent(name, control=control, folder=folder, **environment)
        for name in control.configurations
    ]
    async with contextlib.AsyncExitStack() as stack:
        for agent in agents:
            await stack.enter_async_context(agent.running())
        for agent in agents:
            await agent.ready()
        yield outbound, agents


async def test_certificates_rotate_under_load_without_losing_a_request(
    control, folder, application
):
    async with (
        two_proxies(control, folder=folder, application=application, **ROTATING) as (port, _),
        aiohttp.ClientSession() as session,
    ):
        seen, statuses = set(), []
        async with asyncio.timeout(pace.patience(30)):
            while len(seen) < 4 or len(statuses) <= 100:
                async with session.get(f"http://127.0.0.1:{port}/") as answer:
                    statuses.append(answer.status)
                    facts = dict(part.split("=", 1) for part in (await answer.text()).split(";"))
                    seen.add(facts["Hash"])
                    assert facts["URI"] == CLIENT

    assert set(statuses) == {200}


async def test_a_server_with_another_identity_is_refused(control, folder, application):
    proxies = two_proxies(control, folder=folder, application=application, callee="other")
    async with proxies as (port, (client, _)):
        assert await client.get(f"http://127.0.0.1:{port}/") == 503

        statistics = f"http://127.0.0.1:{client.admin}/stats?filter=fail_verify_san"
        async with aiohttp.request("GET", statistics) as answer:
            assert "cluster.server.ssl.fail_verify_san: 0" not in await answer.text()
            assert "cluster.server.ssl.fail_verify_san: " in await answer.text()
    # What an agent has made to work in goes with it.
    assert list(folder.rglob("isthmus-node-*")) == []


async def test_an_agent_is_not_ready_without_a_certificate_and_recovers(folder):
    plane = ControlPlane()
    (port,) = free_ports(1)
    plane.port = port
    plane.configurations = {"client": {"clusters": [shapes.cluster("x", 1)], "listeners": []}}
    agent = Agent("client", control=plane, folder=folder)
    async with agent.running():
        await agent.logged("no certificate; will ask again")
        assert await agent.get(f"http://127.0.0.1:{agent.status}/healthz/ready") == 503
        async with plane.listening(port):
            await agent.ready()


async def test_an_agent_proves_itself_with_token_and_cluster(control, folder):
    control.configurations = {"client": {"listeners": [], "clusters": [shapes.cluster("x", 1)]}}
    agent = Agent("client", control=control, folder=folder)

    async with agent.running():
        await agent.ready()

    assert control.tokens.seen[0].token == "token-client"
    assert control.tokens.seen[0].claimed_cluster == "cluster1"
    assert "token-client" not in agent.log.read_text()


async def test_an_agent_hands_over_files_that_its_proxy_asks_for(control, folder):
    agent = Agent("client", control=control, folder=folder)
    trusted = view.ForeignTls(authorities=str(agent.folder / "roots.pem"))
    socket = tls.foreign_socket(trusted, server_name="api", names=("api",))
    asking = {**shapes.cluster("x", 1), "transport_socket": as_json(socket)}
    control.configurations = {"client": {"listeners": [], "clusters": [asking]}}
    secrets = f"http://127.0.0.1:{agent.admin}/config_dump?resource=dynamic_active_secrets"

    async with agent.running():
        await agent.ready()
        async with aiohttp.request("GET", secrets) as answer:
            held = {one["name"] for one in (await answer.json())["configs"]}

    assert f"file-root:{agent.folder}/roots.pem" in held


def as_json(socket):
    """Return a transport socket as a file of Envoy's says it."""
    config = envoys.as_json(envoys.unpacked(socket["typed_config"]))
    return {
        "name": socket["name"],
        "typed_config": {"@type": socket["typed_config"].type_url, **config},
    }


async def test_statistics_show_envoy_and_the_end_of_the_certificate(control, folder):
    control.configurations = {"client": {"listeners": [], "clusters": [shapes.cluster("x", 1)]}}
    agent = Agent("client", control=control, folder=folder)

    async with agent.running():
        await agent.ready()
        async with aiohttp.request(
            "GET", f"http://127.0.0.1:{agent.status}/stats/prometheus"
        ) as answer:
            text = await answer.text()

    assert 'istio_agent_cert_expiry_timestamp{resource_name="default"}' in text
    assert "envoy_server_live" in text


async def test_probes_of_the_application_are_asked_for_it(control, folder, application):
    control.configurations = {"client": {"listeners": [], "clusters": [shapes.cluster("x", 1)]}}
    probers = (
        f'{{"/app-health/hello/readyz": {{"httpGet": {{"path": "/", "port": {application}}}}},'
        f' "/app-health/hello/livez": {{"tcpSocket": {{"port": {free_ports(1)[0]}}}}}}}'
    )
    agent = Agent("client", control=control, folder=folder, ISTIO_KUBE_APP_PROBERS=probers)

    async with agent.running():
        await agent.ready()
        base = f"http://127.0.0.1:{agent.status}/app-health/hello"
        found = [await agent.get(f"{base}/{name}") for name in ("readyz", "livez", "startupz")]

    assert found == [200, 503, 404]


async def test_a_killed_envoy_is_started_again(control, folder):
    control.configurations = {"client": {"listeners": [], "clusters": [shapes.cluster("x", 1)]}}
    agent = Agent("client", control=control, folder=folder)

    async with agent.running():
        await agent.ready()
        async with aiohttp.request("POST", f"http://127.0.0.1:{agent.admin}/quitquitquit"):
            pass
        await agent.logged("will start again")
        await agent.ready()
