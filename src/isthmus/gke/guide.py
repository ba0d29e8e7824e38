"""The commands of Google's guide, for the clusters of a file.

They permit far more than a mesh needs: every protocol, from every pod, to all that listens on the
nodes. Here for whoever must follow the guide to the letter.

Source: the guide "Set up a multi-cluster mesh on GKE" of Anthos Service Mesh.
"""

import shlex
from collections.abc import Iterator, Sequence
from itertools import permutations

from isthmus.gke import clusters, plans, wishes

_JOIN = 'function join_by { local IFS="$1"; shift; echo "$*"; }'


def commands(plan: plans.Plan) -> Iterator[str]:
    """Yield the guide's commands, variables first, in the guide's order."""
    members = plan.wishes.members
    numbers = [str(index) for index, _ in enumerate(members, start=1)]
    for number, member in zip(numbers, members, strict=True):
        yield from _variables(number, member)
    yield from _ranges(numbers)
    yield from _rules(plan, numbers)
    yield from _secrets(plan, numbers)
    yield from _networks(plan, numbers)
    yield from _access(plan, numbers)


def commented(plan: plans.Plan) -> Iterator[str]:
    """Yield the same commands as a shell's comments, for whoever compares."""
    yield "\n# Google's guide has these instead, which permit far more (plan --as-in-guide):"
    for command in commands(plan):
        yield from (f"#   {line}" for line in command.splitlines())


def _variables(number: str, member: wishes.Member) -> Iterator[str]:
    place = member.place
    yield f"export PROJECT_{number}={shlex.quote(place.project)}"
    yield f"export LOCATION_{number}={shlex.quote(place.location)}"
    yield f"export CLUSTER_{number}={shlex.quote(place.name)}"
    yield f'export CTX_{number}="gke_${{PROJECT_{number}}}_${{LOCATION_{number}}}_${{CLUSTER_{number}}}"'


def _ranges(numbers: Sequence[str]) -> Iterator[str]:
    projects = " ".join(f"$PROJECT_{number}" for number in numbers)
    names = ",".join(f"$CLUSTER_{number}" for number in numbers)
    yield _JOIN
    yield (
        f"ALL_CLUSTER_CIDRS=$(for P in {projects}; do gcloud --project $P container clusters list "
        f"--filter=\"name:({names})\" --format='value(clusterIpv4Cidr)'; done | sort | uniq)"
    )
    yield 'ALL_CLUSTER_CIDRS=$(join_by , $(echo "${ALL_CLUSTER_CIDRS}"))'
    yield (
        f"ALL_CLUSTER_NETTAGS=$(for P in {projects}; do gcloud --project $P compute instances "
        f"list --filter=\"name:({names})\" --format='value(tags.items.[0])' ; done | sort | uniq)"
    )
    yield 'ALL_CLUSTER_NETTAGS=$(join_by , $(echo "${ALL_CLUSTER_NETTAGS}"))'


def _rules(plan: plans.Plan, numbers: Sequence[str]) -> Iterator[str]:
    standard = "gcloud compute firewall-rules create istio-multicluster-pods"
    autopilot = "gcloud compute firewall-rules create asm-multicluster-pods"
    networks = sorted({cluster.network for cluster in plan.world.clusters})
    for network in networks:
        there = [each for each in plan.world.clusters if each.network == network]
        if any(each.is_autopilot for each in there):
            yield from _autopilot_tags(numbers)
            yield _rule(autopilot, network, there, tags="$TAGS")
        if not all(each.is_autopilot for each in there):
            yield _rule(standard, network, there, tags='"${ALL_CLUSTER_NETTAGS}"')


def _rule(
    begin: str, network: clusters.Network, there: Sequence[clusters.Cluster], *, tags: str
) -> str:
    elsewhere = any(each.place.project != network.project for each in there)
    return " \\\n  ".join(
        [
            begin,
            "--allow=tcp,udp,icmp,esp,ah,sctp",
            "--direction=INGRESS",
            "--priority=900",
            '--source-ranges="${ALL_CLUSTER_CIDRS}"',
            f"--target-tags={tags} --quiet",
            f"--network={network.name}" + f" --project={network.project}" * elsewhere,
        ]
    )


def _autopilot_tags(numbers: Sequence[str]) -> Iterator[str]:
    names = " ".join(f"${{CLUSTER_{number}}}" for number in numbers)
    yield 'TAGS=""'
    yield (
        f"for CLUSTER in {names}; do TAGS+=$(gcloud compute firewall-rules list "
        '--filter="Name:$CLUSTER*" --format="value(targetTags)" | uniq) && TAGS+=","; done'
    )
    yield "TAGS=${TAGS::-1}"
    yield 'echo "Network tags for pod ranges are $TAGS"'


def _secrets(plan: plans.Plan, numbers: Sequence[str]) -> Iterator[str]:
    private = dict(zip(numbers, (_is_private(each) for each in plan.world.clusters), strict=True))
    for number in (each for each in numbers if private[each]):
        yield _described(
            f'PRIV_IP=`gcloud container clusters describe "${{CLUSTER_{number}}}"',
            number,
            "privateClusterConfig.privateEndpoint",
        )
        yield f"{_secret(number)} --server=https://${{PRIV_IP}} > ${{CTX_{number}}}.secret"
    for one, two in permutations(numbers, 2):
        if private[one]:
            yield f"kubectl apply -f ${{CTX_{one}}}.secret --context=${{CTX_{two}}}"
        else:
            yield f"{_secret(one)} | \\\n  kubectl apply -f - --context=${{CTX_{two}}}"


def _secret(number: str) -> str:
    return (
        f"istioctl x create-remote-secret --context=${{CTX_{number}}} --name=${{CLUSTER_{number}}}"
    )


def _networks(plan: plans.Plan, numbers: Sequence[str]) -> Iterator[str]:
    limited = {
        number: each
        for number, each in zip(numbers, plan.world.clusters, strict=True)
        if _is_private(each) and each.authorized.enabled
    }
    if not limited:
        return
    for number in numbers:
        yield _described(
            f"POD_IP_CIDR_{number}=`gcloud container clusters describe ${{CLUSTER_{number}}}",
            number,
            "ipAllocationPolicy.clusterIpv4CidrBlock",
        )
    for number in limited:
        others = ",".join(f"${{POD_IP_CIDR_{each}}}" for each in numbers if each != number)
        yield _described(
            f"EXISTING_CIDR_{number}=`gcloud container clusters describe ${{CLUSTER_{number}}}",
            number,
            "masterAuthorizedNetworksConfig.cidrBlocks.cidrBlock",
        )
        yield " \\\n  ".join(
            [
                f"gcloud container clusters update ${{CLUSTER_{number}}} {_where(number)}",
                "--enable-master-authorized-networks",
                f"--master-authorized-networks {others},${{EXISTING_CIDR_{number}//;/,}}",
            ]
        )


def _access(plan: plans.Plan, numbers: Sequence[str]) -> Iterator[str]:
    if len({each.place.region for each in plan.world.clusters}) == 1:
        return
    for number, cluster in zip(numbers, plan.world.clusters, strict=True):
        if _is_private(cluster):
            yield (
                f"gcloud container clusters update ${{CLUSTER_{number}}} {_where(number)} \\\n"
                "  --enable-master-global-access"
            )


def _described(begin: str, number: str, field: str) -> str:
    return f'{begin} {_where(number)} \\\n  --format "value({field})"`'


def _where(number: str) -> str:
    return f"--project ${{PROJECT_{number}}} --zone ${{LOCATION_{number}}}"


def _is_private(cluster: clusters.Cluster) -> bool:
    return bool(cluster.private_endpoint) and (
        cluster.has_private_nodes or not cluster.public_endpoint
    )
