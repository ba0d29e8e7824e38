"""`isthmus gen-eastwest-gateway`: the options of a gateway between networks.

Prints what the script of the walkthroughs prints, to be piped into `isthmus install -y -f -`.

Source: spec section 6.4.
"""

import click
import yaml

PORTS = (("status-port", 15021), ("tls", 15443), ("tls-istiod", 15012), ("tls-webhook", 15017))


def document(*, network: str, revision: str) -> dict[str, object]:
    """Return the IstioOperator of an east-west gateway of `network`."""
    gateway = {
        "name": "istio-eastwestgateway",
        "label": {
            "istio": "eastwestgateway",
            "app": "istio-eastwestgateway",
            "topology.istio.io/network": network,
        },
        "enabled": True,
        "k8s": {
            # It passes on what is for its own network only, so that no request goes in circles.
            "env": [{"name": "ISTIO_META_REQUESTED_NETWORK_VIEW", "value": network}],
            "service": {
                "ports": [{"name": name, "port": port, "targetPort": port} for name, port in PORTS]
            },
        },
    }
    return {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "metadata": {"name": "eastwest"},
        "spec": {
            "revision": revision,
            "profile": "empty",
            "components": {"ingressGateways": [gateway]},
            "values": {
                "gateways": {"istio-ingressgateway": {"injectionTemplate": "gateway"}},
                "global": {"network": network},
            },
        },
    }


@click.command()
@click.option("--network", required=True, help="The network that the gateway stands in.")
@click.option("--cluster", default="", help="Accepted as in the walkthroughs; not needed.")
@click.option("--mesh", default="", help="Accepted as in the walkthroughs; not needed.")
@click.option("--revision", default="", help="The revision that injects the gateway.")
@click.option("--single-cluster", is_flag=True, help="Accepted as in the walkthroughs.")
def command(network: str, cluster: str, mesh: str, revision: str, *, single_cluster: bool) -> None:
    """Print the options of an east-west gateway.

    Example: isthmus gen-eastwest-gateway --mesh mesh1 --cluster cluster1 --network network1 |
    isthmus install --context cluster1 -y -f -
    """
    del cluster, mesh, single_cluster
    click.echo(
        yaml.safe_dump(document(network=network, revision=revision), sort_keys=False), nl=False
    )
