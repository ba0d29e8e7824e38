"""Brings an installation into a cluster, in phases, and waits until it works.

First the kinds, roles and the control plane, then the gateways: their pods are filled in by the
control plane's webhook, so they come after it.

Source: spec sections 6.1 and 10.5.

"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from isthmus.install import crds, gateway_crds, labels, manifests, older, options, reader, webhook
from isthmus.install.control_plane import Manifest
from isthmus.kube import apply, kinds, problems, waiting
from isthmus.kube import client as kube_client

ADDRESS_S = 5.0
SELECTOR = f"{labels.OWNER}=installed-state"
REMOVED_KINDS = (
    kinds.MUTATING_WEBHOOK,
    kinds.VIRTUAL_SERVICE,
    kinds.GATEWAY,
    kinds.PEER_AUTHENTICATION,
    kinds.DAEMON_SET,
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.ENDPOINT_SLICE,
    kinds.CONFIG_MAP,
    kinds.SERVICE_ACCOUNT,
    kinds.HORIZONTAL_POD_AUTOSCALER,
    kinds.POD_DISRUPTION_BUDGET,
    kinds.ROLE,
    kinds.ROLE_BINDING,
    kinds.CLUSTER_ROLE,
    kinds.CLUSTER_ROLE_BINDING,
)
CONTROL_PLANE, NODES, GATEWAYS = "Control plane", "Nodes", "Gateways"
PHASES = {"IngressGateways": GATEWAYS, "Cni": NODES, "Ztunnel": NODES}
"""The phases of components that need a control plane to be there."""

ROLLED_OUT: Mapping[str, tuple[kinds.Kind, waiting.Missing]] = {
    "DaemonSet": (kinds.DAEMON_SET, waiting.daemon_set),
    "Deployment": (kinds.DEPLOYMENT, waiting.deployment),
}
"""Kinds whose pods are waited for, and what says which are missing."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Phase:
    """Objects that are applied together before the next phase begins."""

    title: str
    objects: tuple[Manifest, ...]


def phases(chosen: options.Options) -> list[Phase]:
    """Return the phases of an installation; none is empty."""
    by_phase: dict[str, list[Manifest]] = {CONTROL_PLANE: [], NODES: [], GATEWAYS: []}
    for manifest in manifests.of_options(chosen):
        component = _labels(manifest).get(labels.COMPONENT, "")
        by_phase[PHASES.get(component, CONTROL_PLANE)].append(manifest)
    if first := by_phase[CONTROL_PLANE] or by_phase[NODES]:
        first.insert(0, _namespace(chosen))
    listed = [Phase(title, tuple(found)) for title, found in by_phase.items()]
    return [phase for phase in listed if phase.objects]


def _namespace(chosen: options.Options) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": chosen.namespace},
    }


def _labels(manifest: Mapping[str, object]) -> Mapping[str, str]:
    metadata = manifest["metadata"]
    assert isinstance(metadata, Mapping)
    found = metadata.get("labels") or {}
    assert isinstance(found, Mapping)
    return found


async def without_others(client: kube_client.Client, planned: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return the phases without the kinds of the Gateway API that the cluster has from others."""
    found = await apply.labelled(client, [kinds.CUSTOM_RESOURCE_DEFINITION], labels="")
    taken = {
        manifests.identity(one)
        for one in found
        if one["spec"]["group"] == gateway_crds.GROUP
        and gateway_crds.BROUGHT not in (one["metadata"].get("annotations") or {})
    }
    return tuple(
        Phase(
            one.title, tuple(each for each in one.objects if manifests.identity(each) not in taken)
        )
        for one in planned
    )


async def changes(
    client: kube_client.Client,
    chosen: options.Options,
    planned: Sequence[Phase],
    *,
    force: bool,
) -> list[apply.Change]:
    """Return what an installation would change; nothing is changed."""
    everything = [manifest for phase in planned for manifest in phase.objects]
    found = await apply.plan(client, everything, field_manager=labels.FIELD_MANAGER, force=force)
    gone = [manifests.identity(one) for one in await leftovers(client, chosen, planned)]
    return found + [apply.Change("delete", kind, name, namespace) for kind, namespace, name in gone]


async def leftovers(
    client: kube_client.Client, chosen: options.Options, planned: Sequence[Phase]
) -> list[kube_client.Obj]:
    """Return what an earlier installation of this control plane brought and this one does not.

    Gateways are never among them: each may have come from a file of its own.
    """
    if not chosen.pilot:
        return []
    kept = {manifests.identity(manifest) for phase in planned for manifest in phase.objects}
    found = await installed(
        client, revision=chosen.revision, component="Pilot", namespace=chosen.namespace
    )
    return [manifest for manifest in found if manifests.identity(manifest) not in kept]


async def carry_out(
    client: kube_client.Client,
    chosen: options.Options,
    planned: Sequence[Phase],
    *,
    force: bool,
    timeout_s: float,
    tell: Tell,
) -> None:
    """Apply each phase and wait until what it brought is ready.

    Raises:
        kube.problems.WaitEnded: Something did not become ready in time; what was applied stays
            (ISM-KUBE-008).
    """
    for phase in planned:
        tell(f"{phase.title}: applying {len(phase.objects)} objects")
        await apply.apply(
            client, list(phase.objects), field_manager=labels.FIELD_MANAGER, force=force
        )
        if phase.title == GATEWAYS and await _is_unattached(client, chosen):
            tell(
                "Gateways: applied; their pods are ready when this cluster is attached to its "
                "control plane\n  next: isthmus create-remote-secret --context THIS --name NAME "
                "| kubectl apply --context PRIMARY -f -"
            )
            continue
        await _wait(client, phase, timeout_s, tell)
        if phase.title == CONTROL_PLANE and _has_own_webhook(chosen):
            await _wait_for_webhook(client, chosen, timeout_s, tell)
        if phase.title == CONTROL_PLANE:
            await apply.delete(client, await leftovers(client, chosen, planned))
        tell(f"{phase.title}: ready")


def _has_own_webhook(chosen: options.Options) -> bool:
    return chosen.pilot and not chosen.remote and chosen.brings_webhook


async def _wait(client: kube_client.Client, phase: Phase, timeout_s: float, tell: Tell) -> None:
    for manifest in phase.objects:
        kind, namespace, name = manifests.identity(manifest)
        if kind in ROLLED_OUT:
            which, missing = ROLLED_OUT[kind]
            await waiting.until(
                client,
                which,
                name,
                namespace=namespace,
                missing=missing,
                timeout_s=timeout_s,
                on_progress=_teller(tell, name),
            )
        if kind == "Service" and waiting.is_balanced(manifest):
            await _look_for_address(client, name, namespace, tell)


async def _look_for_address(
    client: kube_client.Client, name: str, namespace: str, tell: Tell
) -> None:
    """Wait a moment for an external address; without one, say what does not work until it comes.

    Whoever gives addresses may take minutes or need a person, so an installation does not fail
    for want of one.
    """
    try:
        await waiting.until(
            client,
            kinds.SERVICE,
            name,
            namespace=namespace,
            missing=waiting.address,
            timeout_s=ADDRESS_S,
            on_progress=_teller(tell, name),
        )
    except problems.WaitEnded:
        tell(
            f"  {name}: still no external address; until it has one nobody outside reaches it\n"
            f"  hint: kubectl -n {namespace} describe svc {name} says who should give it one"
        )


def _teller(tell: Tell, subject: str) -> Tell:
    """Return what tells of each thing that `subject` lacks, and is silent when it lacks none."""

    def told(lacks: str) -> None:
        if lacks:
            tell(f"  {subject}: {lacks}")

    return told


async def _wait_for_webhook(
    client: kube_client.Client, chosen: options.Options, timeout_s: float, tell: Tell
) -> None:
    """Wait until the control plane has written its certificate into the injection webhook."""
    await waiting.until(
        client,
        kinds.MUTATING_WEBHOOK,
        webhook.name(chosen),
        missing=_lacks_bundle,
        timeout_s=timeout_s,
        on_progress=_teller(tell, "injection webhook"),
    )


def _lacks_bundle(injector: kube_client.Obj | None) -> str:
    hooks = (injector or {}).get("webhooks") or []
    if hooks and all((hook.get("clientConfig") or {}).get("caBundle") for hook in hooks):
        return ""
    return "the control plane's certificate is not in it yet"


async def _is_unattached(client: kube_client.Client, chosen: options.Options) -> bool:
    """Say whether another cluster configures or injects here that may not know of this one yet.

    The walkthroughs install the gateway of a remote cluster before they attach the cluster, so
    its pods cannot start yet, and waiting for them would never end.
    """
    if older.has_own_discovery(chosen):
        return True
    injector = await client.find(kinds.MUTATING_WEBHOOK, webhook.name(chosen))
    account = await client.find(kinds.DEPLOYMENT, f"istiod{chosen.suffix}",
                                namespace=chosen.namespace)  # fmt: skip
    return injector is not None and account is None and bool(_lacks_bundle(injector))


async def installed(
    client: kube_client.Client, *, revision: str, component: str = "", namespace: str = ""
) -> list[kube_client.Obj]:
    """Return the objects that an installation brought, but for the definitions of kinds.

    The account whose tokens remote secrets hold belongs to no revision: only who removes the
    default one removes it. What others made of our objects, labels and all, is theirs.

    Args:
        client: The cluster.
        revision: Of the control plane.
        component: Only objects of this component; empty for all.
        namespace: Only what was brought by the control plane there; empty for all.
    """
    selector = SELECTOR + (f"-{revision}" if revision not in {"", "default"} else "")
    selector += f",{labels.COMPONENT}={component}" if component else ""
    selector += f",{labels.OWNER_NAMESPACE}={namespace}" if namespace else ""
    found = await apply.labelled(client, REMOVED_KINDS, labels=selector)
    own = [one for one in found if not one["metadata"].get("ownerReferences")]
    return [one for one in own if not revision or not _is_shared(one)]


def _is_shared(manifest: kube_client.Obj) -> bool:
    return (manifest["kind"], manifest["metadata"]["name"]) == (
        kinds.SERVICE_ACCOUNT.kind,
        reader.SERVICE_ACCOUNT,
    )


async def definitions(client: kube_client.Client) -> list[kube_client.Obj]:
    """Return the definitions of kinds that an installation brought."""
    ours = {f"{resource.plural}.{resource.group}" for resource in crds.RESOURCES}
    ours |= {gateway_crds.name_of(resource) for resource in gateway_crds.RESOURCES}
    found = await apply.labelled(
        client, [kinds.CUSTOM_RESOURCE_DEFINITION], labels=f"{labels.MANAGED}=Reconcile"
    )
    return [manifest for manifest in found if manifest["metadata"]["name"] in ours]
