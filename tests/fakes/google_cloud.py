"""A stand-in for Google's cloud: the public REST shapes of the container and compute APIs.

Clusters and rules are the JSON documents that the APIs speak. What the real ones refuse is
refused here, too: fields that do not exist, two changes in one update, an old etag, a second
operation on a busy cluster, a rule that exists. A change happens when its operation is done.
"""

import copy
import http.server
import ipaddress
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field

ROUTES = []
PAGE = 2


class RefusalError(Exception):
    """What the server answers instead, in Google's form of an error."""

    def __init__(self, status, name, message, *, reason="", metadata=None):
        super().__init__(message)
        self.status = status
        details = (
            [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reason,
                    "domain": "googleapis.com",
                    "metadata": metadata or {},
                }
            ]
            if reason
            else []
        )
        errors = [{"message": message, "domain": "global", "reason": reason or name.lower()}]
        self.document = {
            "error": {
                "code": status,
                "message": message,
                "errors": errors,
                "status": name,
                "details": details,
            }
        }


def permission_missing(permission, project):
    return RefusalError(
        403, "PERMISSION_DENIED", f"Required '{permission}' permission for 'projects/{project}'"
    )


def api_disabled(service, project):
    return RefusalError(
        403,
        "PERMISSION_DENIED",
        f"API has not been used in project {project} before or it is disabled.",
        reason="SERVICE_DISABLED",
        metadata={"service": service, "consumer": f"projects/{project}"},
    )


def not_found(what):
    return RefusalError(404, "NOT_FOUND", f"Not found: {what}.")


def route(method, pattern):
    def remember(function):
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return remember


@dataclass
class Operation:
    """Something that takes its time: `polls` answers long, then `effect`."""

    effect: object
    polls: int
    error: str = ""

    def advance(self):
        self.polls -= 1
        if self.polls == 0 and not self.error:
            self.effect()
        return "DONE" if self.polls <= 0 else "RUNNING"


@dataclass
class State:
    """All that there is, by the names that the APIs give it."""

    clusters: dict = field(default_factory=dict)
    firewalls: dict = field(default_factory=dict)
    instances: dict = field(default_factory=dict)
    subnetworks: dict = field(default_factory=dict)
    hosts: dict = field(default_factory=dict)
    quotas: dict = field(default_factory=dict)
    policies: dict = field(default_factory=dict)
    operations: dict = field(default_factory=dict)


class GoogleCloud:
    """The server; `url` is where it listens on loopback."""

    def __init__(self, *, token):
        self.state = State()
        self.requests = []
        self.token = token
        self.operation_errors = []
        self.polls = 1
        self._before = []
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def _serve(self):
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size) or b"{}")
                status, document = outer.answer(self.command, self.path, body, self.headers)
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self):
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER": f"{self.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.url}/compute/v1/",
        }

    @property
    def writes(self):
        return [line for line in self.requests if not line.startswith(("GET", "WAIT"))]

    def before(self, method, pattern, act, *, times=1):
        """Call `act` before the next requests that match; it may raise a refusal."""
        self._before.append([method, re.compile(pattern), act, times])

    def refuse(self, pattern, refusal, *, method="GET", times=1000):
        def act():
            raise refusal

        self.before(method, pattern, act, times=times)

    def answer(self, method, target, body, headers):
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query))
        with self._lock:
            self.requests.append(
                f"{'WAIT' if parts.path.endswith('/wait') else method} {parts.path}"
            )
            try:
                if not headers.get("Authorization", "").startswith(f"Bearer {self.token}"):
                    raise RefusalError(401, "UNAUTHENTICATED", "Request had invalid credentials.")
                self._disturb(method, parts.path)
                for wanted, pattern, function in ROUTES:
                    matched = pattern.fullmatch(parts.path)
                    if wanted == method and matched:
                        return 200, function(self, query, body, **matched.groupdict())
                raise not_found(parts.path)
            except RefusalError as refusal:
                return refusal.status, refusal.document

    def _disturb(self, method, path):
        for each in self._before:
            if each[0] == method and each[1].search(path) and each[3] > 0:
                each[3] -= 1
                each[2]()

    def start(self, effect):
        name = f"operation-{len(self.state.operations) + 1}"
        error = self.operation_errors.pop(0) if self.operation_errors else ""
        self.state.operations[name] = Operation(effect, self.polls, error)
        return name


CLUSTER = r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)"
COMPUTE = r"/compute/v1/projects/(?P<project>[^/]+)"
DESIRED = {"etag", "desiredControlPlaneEndpointsConfig", "desiredMasterAuthorizedNetworksConfig"}


def _cluster(cloud, project, location, name):
    try:
        return cloud.state.clusters[project, location, name]
    except KeyError:
        raise not_found(f"projects/{project}/locations/{location}/clusters/{name}") from None


@route("GET", rf"/v1/{CLUSTER}/clusters/(?P<name>[^/]+)")
def get_cluster(cloud, _query, _body, project, location, name):
    return _cluster(cloud, project, location, name)


@route("PUT", rf"/v1/{CLUSTER}/clusters/(?P<name>[^/]+)")
def update_cluster(cloud, _query, body, project, location, name):
    cluster = _cluster(cloud, project, location, name)
    update = body.get("update", {})
    unknown = set(update) - DESIRED
    if unknown:
        raise RefusalError(400, "INVALID_ARGUMENT", f"Unknown name {unknown}: cannot find field.")
    etag = update.pop("etag", None)
    if etag is not None and etag != cluster["etag"]:
        raise RefusalError(409, "ABORTED", "The etag does not match the cluster's current one.")
    if cluster["status"] != "RUNNING":
        raise RefusalError(400, "FAILED_PRECONDITION", "Cluster is running incompatible operation.")
    asked = update.get("desiredControlPlaneEndpointsConfig", {}).get("ipEndpointsConfig", {})
    if len(update) != 1 or len(asked) != 1:
        raise RefusalError(400, "INVALID_ARGUMENT", "Must specify exactly one field to update.")
    for block in asked.get("authorizedNetworksConfig", {}).get("cidrBlocks", []):
        ipaddress.ip_network(block["cidrBlock"])
    cluster["status"] = "RECONCILING"
    _touch(cluster)

    def settle():
        own = cluster.setdefault("controlPlaneEndpointsConfig", {})
        own.setdefault("ipEndpointsConfig", {}).update(copy.deepcopy(asked))
        if "authorizedNetworksConfig" in asked:
            cluster["masterAuthorizedNetworksConfig"] = copy.deepcopy(
                asked["authorizedNetworksConfig"]
            )
        if "globalAccess" in asked:
            private = cluster.setdefault("privateClusterConfig", {})
            private["masterGlobalAccessConfig"] = {"enabled": asked["globalAccess"]}

    operation = cloud.start(settle)
    cloud.state.operations[operation].cluster = cluster
    return {"name": operation, "operationType": "UPDATE_CLUSTER", "status": "PENDING"}


def _touch(cluster):
    cluster["etag"] = f"etag-{int(cluster['etag'].removeprefix('etag-')) + 1}"


@route("GET", rf"/v1/{CLUSTER}/operations/(?P<name>[^/]+)")
def get_operation(cloud, _query, _body, project, location, name):
    operation = cloud.state.operations.get(name)
    if operation is None:
        raise not_found(name)
    status = operation.advance()
    document = {"name": name, "operationType": "UPDATE_CLUSTER", "status": status}
    if status == "DONE":
        operation.cluster["status"] = "RUNNING"
        _touch(operation.cluster)
        if operation.error:
            document["error"] = {"code": 13, "message": operation.error}
            document["statusMessage"] = operation.error
    return document


@route("GET", rf"{COMPUTE}")
def get_project(cloud, _query, _body, project):
    limit, usage = cloud.state.quotas.get(project, (200, len(_firewalls(cloud, project))))
    return {
        "name": project,
        "quotas": [
            {"metric": "NETWORKS", "limit": 5.0, "usage": 1.0},
            {"metric": "FIREWALLS", "limit": float(limit), "usage": float(usage)},
        ],
    }


@route("GET", rf"{COMPUTE}/getXpnHost")
def get_xpn_host(cloud, _query, _body, project):
    host = cloud.state.hosts.get(project, "")
    return {"kind": "compute#project", "name": host} if host else {}


def _firewalls(cloud, project):
    return cloud.state.firewalls.setdefault(project, {})


@route("GET", rf"{COMPUTE}/global/firewalls")
def list_firewalls(cloud, query, _body, project):
    names = sorted(_firewalls(cloud, project))
    start = int(query.get("pageToken", 0))
    size = min(PAGE, int(query.get("maxResults", PAGE)))
    page = {"items": [_firewalls(cloud, project)[name] for name in names[start : start + size]]}
    if start + size < len(names):
        page["nextPageToken"] = str(start + size)
    return page


@route("GET", rf"{COMPUTE}/global/firewalls/(?P<name>[^/]+)")
def get_firewall(cloud, _query, _body, project, name):
    try:
        return _firewalls(cloud, project)[name]
    except KeyError:
        raise not_found(f"projects/{project}/global/firewalls/{name}") from None


FIREWALL = {
    "name",
    "description",
    "network",
    "priority",
    "direction",
    "allowed",
    "sourceRanges",
    "destinationRanges",
    "targetTags",
    "logConfig",
}


def _checked(body):
    unknown = set(body) - FIREWALL
    if unknown:
        raise RefusalError(400, "INVALID_ARGUMENT", f"Unknown name {unknown}: cannot find field.")
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", body["name"]):
        raise RefusalError(
            400, "INVALID_ARGUMENT", f"Invalid value for field 'name': {body['name']}"
        )
    for text in (*body["sourceRanges"], *body["destinationRanges"]):
        ipaddress.ip_network(text)
    assert body["targetTags"], "a rule for every machine of the network"
    assert all(each["IPProtocol"] and each["ports"] for each in body["allowed"])
    return body


@route("POST", rf"{COMPUTE}/global/firewalls")
def insert_firewall(cloud, _query, body, project):
    name = _checked(body)["name"]
    if name in _firewalls(cloud, project):
        raise RefusalError(
            409, "ALREADY_EXISTS", f"The resource '{name}' already exists", reason="alreadyExists"
        )
    operation = cloud.start(lambda: _firewalls(cloud, project).update({name: body}))
    return {"name": operation, "operationType": "insert", "status": "RUNNING"}


@route("PUT", rf"{COMPUTE}/global/firewalls/(?P<name>[^/]+)")
def update_firewall(cloud, query, body, project, name):
    rule = get_firewall(cloud, query, {}, project=project, name=name)
    _checked(body)
    if "denied" in rule or rule["direction"] != body["direction"]:
        raise RefusalError(400, "INVALID_ARGUMENT", "Action and direction cannot be changed.")

    def settle():
        rule.clear()
        rule.update(body)

    operation = cloud.start(settle)
    return {"name": operation, "operationType": "update", "status": "RUNNING"}


@route("POST", rf"{COMPUTE}/global/operations/(?P<name>[^/]+)/wait")
def wait_operation(cloud, _query, _body, project, name):
    operation = cloud.state.operations[name]
    document = {"name": name, "status": operation.advance()}
    if document["status"] == "DONE" and operation.error:
        document["error"] = {"errors": [{"code": "RESOURCE_ERROR", "message": operation.error}]}
        document["httpErrorStatusCode"] = 400
        document["httpErrorMessage"] = "BAD REQUEST"
    return document


@route("GET", rf"{COMPUTE}/aggregated/instances")
def list_instances(cloud, query, _body, project):
    wanted = re.fullmatch(r'labels\.goog-k8s-cluster-name="([^"]+)"', query["filter"])
    items = {"zones/us-east1-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
    for machine in cloud.state.instances.get(project, []):
        if machine["labels"].get("goog-k8s-cluster-name") == wanted[1]:
            items.setdefault(machine["zone"], {}).setdefault("instances", []).append(machine)
    return {"items": items}


@route("GET", rf"{COMPUTE}/regions/(?P<region>[^/]+)/subnetworks/(?P<name>[^/]+)")
def get_subnetwork(cloud, _query, _body, project, region, name):
    try:
        return cloud.state.subnetworks[project, region, name]
    except KeyError:
        raise not_found(name) from None


@route("GET", rf"{COMPUTE}/global/networks/(?P<name>[^/]+)/getEffectiveFirewalls")
def get_effective_firewalls(cloud, _query, _body, project, name):
    return {"firewallPolicys": cloud.state.policies.get((project, name), [])}
