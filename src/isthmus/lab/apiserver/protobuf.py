"""Protobuf bodies of the few requests that clients send that way, turned into JSON.

Some commands of kubectl (`create secret`, `auth can-i`, ...) speak protobuf and do not fall back.
Each message is a row: its name, then `number:field:type` per field. `*` marks a repeated field,
`!` one whose zero means something; zeros of the others are left out, as JSON would. A field that
the table does not know is refused rather than lost.
"""

import base64
import datetime
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Json, Obj

MAGIC = b"k8s\x00"
_DEEPEST = 40
# Messages whose fields are those of the object around them in JSON.
_INLINE = ("ingressRuleValue",)

_TABLE = """
ObjectMeta 1:name:s 2:generateName:s 3:namespace:s 4:selfLink:s 5:uid:s 6:resourceVersion:s 7:generation:i 8:creationTimestamp:Time 9:deletionTimestamp:Time 10:deletionGracePeriodSeconds:i! 11:labels:ss 12:annotations:ss 13:ownerReferences:*OwnerReference 14:finalizers:*s 17:managedFields:skip
OwnerReference 1:kind:s 3:name:s 4:uid:s 5:apiVersion:s 6:controller:b! 7:blockOwnerDeletion:b!
LabelSelector 1:matchLabels:ss 2:matchExpressions:*Requirement
Requirement 1:key:s 2:operator:s 3:values:*s
ObjectReference 1:kind:s 2:namespace:s 3:name:s 4:uid:s 5:apiVersion:s 6:resourceVersion:s 7:fieldPath:s
LocalObjectReference 1:name:s
DeleteOptions 1:gracePeriodSeconds:i! 2:preconditions:Preconditions 3:orphanDependents:b! 4:propagationPolicy:s 5:dryRun:*s
Preconditions 1:uid:s 2:resourceVersion:s
ServiceAccount 1:metadata:ObjectMeta 2:secrets:*ObjectReference 3:imagePullSecrets:*LocalObjectReference 4:automountServiceAccountToken:b!
Secret 1:metadata:ObjectMeta 2:data:sy 3:type:s 4:stringData:ss 5:immutable:b!
ConfigMap 1:metadata:ObjectMeta 2:data:ss 3:binaryData:sy 4:immutable:b!
Namespace 1:metadata:ObjectMeta 2:spec:NamespaceSpec 3:status:skip
NamespaceSpec 1:finalizers:*s
Binding 1:metadata:ObjectMeta 2:target:ObjectReference
Service 1:metadata:ObjectMeta 2:spec:ServiceSpec 3:status:skip
ServiceSpec 1:ports:*ServicePort 2:selector:ss 3:clusterIP:s 4:type:s 5:externalIPs:*s 7:sessionAffinity:s 8:loadBalancerIP:s 9:loadBalancerSourceRanges:*s 10:externalName:s 11:externalTrafficPolicy:s 12:healthCheckNodePort:i 13:publishNotReadyAddresses:b 17:ipFamilyPolicy:s 18:clusterIPs:*s 19:ipFamilies:*s 20:allocateLoadBalancerNodePorts:b! 21:loadBalancerClass:s 22:internalTrafficPolicy:s 23:trafficDistribution:s
ServicePort 1:name:s 2:protocol:s 3:port:i 4:targetPort:IntOrString 5:nodePort:i 6:appProtocol:s
PodTemplateSpec 1:metadata:ObjectMeta 2:spec:PodSpec
PodSpec 2:containers:*Container 3:restartPolicy:s 4:terminationGracePeriodSeconds:i! 5:activeDeadlineSeconds:i! 6:dnsPolicy:s 7:nodeSelector:ss 8:serviceAccountName:s 9:serviceAccount:s 10:nodeName:s 11:hostNetwork:b 12:hostPID:b 13:hostIPC:b 15:imagePullSecrets:*LocalObjectReference 16:hostname:s 17:subdomain:s 19:schedulerName:s 20:initContainers:*Container 21:automountServiceAccountToken:b! 24:priorityClassName:s 27:shareProcessNamespace:b! 30:enableServiceLinks:b!
Container 1:name:s 2:image:s 3:command:*s 4:args:*s 5:workingDir:s 6:ports:*ContainerPort 7:env:*EnvVar 8:resources:Resources 13:terminationMessagePath:s 14:imagePullPolicy:s 16:stdin:b 17:stdinOnce:b 18:tty:b 20:terminationMessagePolicy:s 24:restartPolicy:s
ContainerPort 1:name:s 2:hostPort:i 3:containerPort:i 4:protocol:s 5:hostIP:s
EnvVar 1:name:s 2:value:s
Resources 1:limits:sq 2:requests:sq
Deployment 1:metadata:ObjectMeta 2:spec:DeploymentSpec 3:status:skip
DeploymentSpec 1:replicas:i! 2:selector:LabelSelector 3:template:PodTemplateSpec 4:strategy:Strategy 5:minReadySeconds:i 6:revisionHistoryLimit:i! 7:paused:b 9:progressDeadlineSeconds:i!
Strategy 1:type:s 2:rollingUpdate:Rolling
Rolling 1:maxUnavailable:IntOrString 2:maxSurge:IntOrString
Job 1:metadata:ObjectMeta 2:spec:JobSpec 3:status:skip
JobSpec 1:parallelism:i! 2:completions:i! 3:activeDeadlineSeconds:i! 4:selector:LabelSelector 5:manualSelector:b! 6:template:PodTemplateSpec 7:backoffLimit:i! 8:ttlSecondsAfterFinished:i! 9:completionMode:s 10:suspend:b! 14:podReplacementPolicy:s 15:managedBy:s
JobTemplateSpec 1:metadata:ObjectMeta 2:spec:JobSpec
CronJob 1:metadata:ObjectMeta 2:spec:CronJobSpec 3:status:skip
CronJobSpec 1:schedule:s 2:startingDeadlineSeconds:i! 3:concurrencyPolicy:s 4:suspend:b! 5:jobTemplate:JobTemplateSpec 6:successfulJobsHistoryLimit:i! 7:failedJobsHistoryLimit:i! 8:timeZone:s
Role 1:metadata:ObjectMeta 2:rules:*PolicyRule
ClusterRole 1:metadata:ObjectMeta 2:rules:*PolicyRule 3:aggregationRule:AggregationRule
AggregationRule 1:clusterRoleSelectors:*LabelSelector
PolicyRule 1:verbs:*s 2:apiGroups:*s 3:resources:*s 4:resourceNames:*s 5:nonResourceURLs:*s
RoleBinding 1:metadata:ObjectMeta 2:subjects:*Subject 3:roleRef:RoleRef
ClusterRoleBinding 1:metadata:ObjectMeta 2:subjects:*Subject 3:roleRef:RoleRef
Subject 1:kind:s 2:apiGroup:s 3:name:s 4:namespace:s
RoleRef 1:apiGroup:s 2:kind:s 3:name:s
TokenRequest 1:metadata:ObjectMeta 2:spec:TokenRequestSpec 3:status:skip
TokenRequestSpec 1:audiences:*s 3:boundObjectRef:BoundObjectReference 4:expirationSeconds:i!
BoundObjectReference 1:kind:s 2:apiVersion:s 3:name:s 4:uid:s
TokenReview 1:metadata:ObjectMeta 2:spec:TokenReviewSpec 3:status:skip
TokenReviewSpec 1:token:s 2:audiences:*s
SelfSubjectReview 1:metadata:ObjectMeta 2:status:skip
SelfSubjectAccessReview 1:metadata:ObjectMeta 2:spec:AccessReviewSpec 3:status:skip
SubjectAccessReview 1:metadata:ObjectMeta 2:spec:AccessReviewSpec 3:status:skip
LocalSubjectAccessReview 1:metadata:ObjectMeta 2:spec:AccessReviewSpec 3:status:skip
AccessReviewSpec 1:resourceAttributes:ResourceAttributes 2:nonResourceAttributes:NonResourceAttributes 3:user:s 4:groups:*s 6:uid:s
ResourceAttributes 1:namespace:s 2:verb:s 3:group:s 4:version:s 5:resource:s 6:subresource:s 7:name:s
NonResourceAttributes 1:path:s 2:verb:s
SelfSubjectRulesReview 1:metadata:ObjectMeta 2:spec:RulesReviewSpec 3:status:skip
RulesReviewSpec 1:namespace:s
Eviction 1:metadata:ObjectMeta 2:deleteOptions:DeleteOptions
PodDisruptionBudget 1:metadata:ObjectMeta 2:spec:BudgetSpec 3:status:skip
BudgetSpec 1:minAvailable:IntOrString 2:selector:LabelSelector 3:maxUnavailable:IntOrString 4:unhealthyPodEvictionPolicy:s
Lease 1:metadata:ObjectMeta 2:spec:LeaseSpec
LeaseSpec 1:holderIdentity:s 2:leaseDurationSeconds:i! 3:acquireTime:MicroTime 4:renewTime:MicroTime 5:leaseTransitions:i!
PriorityClass 1:metadata:ObjectMeta 2:value:i 3:globalDefault:b 4:description:s 5:preemptionPolicy:s
ResourceQuota 1:metadata:ObjectMeta 2:spec:QuotaSpec 3:status:skip
QuotaSpec 1:hard:sq 2:scopes:*s
Scale 1:metadata:ObjectMeta 2:spec:ScaleSpec 3:status:skip
ScaleSpec 1:replicas:i!
Event 1:metadata:ObjectMeta 2:involvedObject:ObjectReference 3:reason:s 4:message:s 5:source:EventSource 6:firstTimestamp:Time 7:lastTimestamp:Time 8:count:i 9:type:s 10:eventTime:MicroTime 12:action:s 14:reportingComponent:s 15:reportingInstance:s
EventSource 1:component:s 2:host:s
HorizontalPodAutoscaler 1:metadata:ObjectMeta 2:spec:AutoscalerSpec 3:status:skip
AutoscalerSpec 1:scaleTargetRef:ScaleTarget 2:minReplicas:i! 3:maxReplicas:i 4:metrics:*Metric
ScaleTarget 1:kind:s 2:name:s 3:apiVersion:s
Metric 1:type:s 4:resource:ResourceMetric
ResourceMetric 1:name:s 2:target:MetricTarget
MetricTarget 1:type:s 2:value:Quantity 3:averageValue:Quantity 4:averageUtilization:i!
Ingress 1:metadata:ObjectMeta 2:spec:IngressSpec 3:status:skip
IngressSpec 1:defaultBackend:IngressBackend 2:tls:*IngressTLS 3:rules:*IngressRule 4:ingressClassName:s
IngressTLS 1:hosts:*s 2:secretName:s
IngressRule 1:host:s 2:ingressRuleValue:IngressRuleValue
IngressRuleValue 1:http:IngressPaths
IngressPaths 1:paths:*IngressPath
IngressPath 1:path:s 2:backend:IngressBackend 3:pathType:s
IngressBackend 4:service:IngressService
IngressService 1:name:s 2:port:IngressPort
IngressPort 1:name:s 2:number:i
Unknown 1:typeMeta:TypeMeta 2:raw:y 3:contentEncoding:s 4:contentType:s
TypeMeta 1:apiVersion:s 2:kind:s
"""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    type: str
    repeated: bool
    keeps_zero: bool


@functools.cache
def _messages() -> Mapping[str, Mapping[int, _Field]]:
    return {line.split(" ", 1)[0]: _row(line) for line in _TABLE.strip().splitlines()}


def _row(line: str) -> Mapping[int, _Field]:
    found = {}
    for column in line.split(" ")[1:]:
        number, name, kind = column.split(":")
        found[int(number)] = _Field(
            name, kind.strip("*!"), repeated=kind.startswith("*"), keeps_zero=kind.endswith("!")
        )
    return found


def decoded(body: bytes) -> Obj:
    """Return the object in a protobuf body; raises 400 or 415."""
    if not body.startswith(MAGIC):
        raise errors.bad_request("the protobuf body does not begin as Kubernetes' do")
    try:
        envelope = _message("Unknown", memoryview(body)[len(MAGIC) :], 0)
        meta = envelope.get("typeMeta") or {}
        kind = meta.get("kind", "")
        if kind not in _messages():
            raise errors.unsupported(
                f"application/vnd.kubernetes.protobuf of kind {kind}", known=["application/json"]
            )
        raw = base64.b64decode(envelope.get("raw") or "")
        found = _message(kind, memoryview(raw), 0)
    except (IndexError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise errors.bad_request(f"the protobuf body is damaged: {error}") from error
    return {"apiVersion": meta.get("apiVersion", ""), "kind": kind, **found}


def _message(kind: str, raw: memoryview, depth: int) -> Obj:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    rows = _messages()[kind]
    out: Obj = {}
    for number, value in _wire(raw):
        row = rows.get(number)
        if row is None:
            if value in (0, b""):
                continue
            raise errors.unsupported(
                f"application/vnd.kubernetes.protobuf with field {number} of {kind}",
                known=["application/json"],
            )
        if row.type != "skip":
            _take(out, row, value, depth)
    return out


def _take(out: Obj, row: _Field, value: int | memoryview, depth: int) -> None:
    reader = _READERS.get(row.type)
    if row.type in _PAIRS:
        key, item = _pair(row.type, _bytes(value))
        out.setdefault(row.name, {})[key] = item
        return
    read = reader(value) if reader else _message(row.type, _bytes(value), depth + 1)
    if row.name in _INLINE:
        out.update(read)
        return
    if row.repeated:
        out.setdefault(row.name, []).append(read)
    elif row.keeps_zero or read not in ("", 0, False, None, {}):
        out[row.name] = read


def _wire(raw: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        match tag & 7:
            case 0:
                value, at = _varint(raw, at)
                yield tag >> 3, value
            case 2:
                size, at = _varint(raw, at)
                if at + size > len(raw):
                    raise ValueError("cut off")
                yield tag >> 3, raw[at : at + size]
                at += size
            case 1 | 5 as width:
                at += 8 if width == 1 else 4
            case _:
                raise ValueError("unknown wire type")


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number too long")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("wrong wire type")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("wrong wire type")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _encoded(value: int | memoryview) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _int_or_string(value: int | memoryview) -> int | str:
    parts = dict(_wire(_bytes(value)))
    if parts.get(1, 0) == 1:
        return _text(parts.get(3, memoryview(b"")))
    return _integer(parts.get(2, 0))


def _time(value: int | memoryview, *, parts: str = "seconds") -> str | None:
    found = dict(_wire(_bytes(value)))
    if not found.get(1):
        return None
    moment = datetime.datetime.fromtimestamp(_integer(found[1]), datetime.UTC)
    if parts == "microseconds":
        moment = moment.replace(microsecond=_integer(found.get(2, 0)) // 1000)
    return moment.replace(tzinfo=None).isoformat(timespec=parts) + "Z"


def _micro_time(value: int | memoryview) -> str | None:
    return _time(value, parts="microseconds")


def _quantity(value: int | memoryview) -> str:
    return _text(dict(_wire(_bytes(value))).get(1, memoryview(b"")))


_READERS: Mapping[str, Callable[[int | memoryview], Json]] = {
    "s": _text,
    "i": _integer,
    "b": lambda value: bool(_integer(value)),
    "y": _encoded,
    "IntOrString": _int_or_string,
    "Time": _time,
    "MicroTime": _micro_time,
    "Quantity": _quantity,
}
_PAIRS: Mapping[str, Callable[[int | memoryview], str]] = {
    "ss": _text,
    "sy": _encoded,
    "sq": _quantity,
}


def _pair(kind: str, raw: memoryview) -> tuple[str, str]:
    parts = dict(_wire(raw))
    empty = memoryview(b"")
    return _text(parts.get(1, empty)), _PAIRS[kind](parts.get(2, empty))
