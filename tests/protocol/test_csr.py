"""The certificate service, spoken to as proxies do: gRPC over TLS."""

import collections
import contextlib
import datetime
import logging
import pathlib

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from isthmus.base import clock, metrics
from isthmus.ca import keys, pem, signing
from isthmus.kube import problems
from isthmus.mesh import identities
from isthmus.testing import certificates, pace
from isthmus.wire import callers, csr, csrclient, dialing, grpc_tls, listening, notary, tls
from isthmus_proto.istio.v1.auth import ca_pb2

NAME = "istiod.istio-system.svc"
ROOT = pathlib.Path(__file__).parents[2]


class Judge:
    """Takes one token as proof of one account."""

    def __init__(self):
        self.shown = None
        self.reachable = True

    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        self.shown = credentials
        if not self.reachable:
            raise problems.Unreachable("cannot reach the API server of `cluster2`")
        if credentials.token != "good":
            raise callers.CallerRefused("token is not valid", detail="cluster: cluster2")
        return callers.Caller(identities.ClusterId("cluster2"), "sample", "sleep", pod="sleep-1")


class Service:
    def __init__(self, now: datetime.datetime):
        self.judge = Judge()
        self.signer = certificates.signer(now=now)
        self.serving = tls.Serving(tls.issue(self.signer, names=(NAME,), now=now))
        self.metrics = metrics.Metrics()
        self.impersonation = csr.nobody
        self.domains = collections.defaultdict(lambda: "cluster.local")
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self, *, by_grpc=False, is_elsewhere=False, **credentials):
        signatory = csr.Signatory(
            self.judge,
            sign=notary.Notary(lambda: self.signer, clock.SystemClock()).asked,
            trust_domain=lambda cluster: identities.TrustDomain(self.domains[cluster]),
            own_domain=lambda: identities.TrustDomain("cluster.local"),
            counters=csr.Counters(self.metrics),
            impersonation=lambda *who: self.impersonation(*who),
        )

        async def ask(request, shown):
            return await csr.answered(request, shown=shown, signatory=signatory)

        handler = csr.service(signatory)
        if is_elsewhere:
            handler = csr.elsewhere(ask, counters=signatory.counters)
        if by_grpc:
            shown = grpc_tls.server_credentials(self.serving, **credentials)
            server, self.port = await listening.listen_by_grpc(
                (handler,), address="127.0.0.1:0", credentials=shown
            )
        else:
            server, self.port = listening.listen(
                (handler,), address="127.0.0.1:0", serving=self.serving
            )
        try:
            yield self
        finally:
            await server.stop(0)

    def target(self, *, token: str = "good", cluster: str = "cluster2") -> dialing.Target:
        return dialing.Target(
            address=f"127.0.0.1:{self.port}",
            server_name=NAME,
            roots_pem=self.serving.certificate.roots_pem,
            token=token,
            cluster=cluster,
        )

    async def ask(self, *, csr_pem: str | None = None, lifetime_s: int = 0, **shown):
        return await csrclient.request(
            self.target(**shown),
            csr_pem=certificates.request() if csr_pem is None else csr_pem,
            lifetime_s=lifetime_s,
            deadline_s=5,
        )

    async def send(self, body: bytes) -> grpc.aio.AioRpcError:
        """Send any bytes and return the refusal."""
        async with dialing.channel(self.target()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"/{csr.SERVICE}/{csr.METHOD}")(
                    body, metadata=self.target().metadata(), timeout=pace.patience(5)
                )
        return refused.value


NOW = clock.SystemClock().now().replace(microsecond=0) - datetime.timedelta(minutes=1)


@pytest.fixture(params=[False, True], ids=["own", "reference"])
async def service(request):
    async with Service(NOW).listening(by_grpc=request.param) as running:
        yield running


async def test_a_proven_caller_gets_leaf_chain_and_roots(service):
    leaf_pem, intermediate, root, roots = await service.ask()

    leaf = x509.load_pem_x509_certificate(leaf_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://cluster.local/ns/sample/sa/sleep"
    ]
    assert intermediate.count("BEGIN CERTIFICATE") == root.count("BEGIN CERTIFICATE") == 1
    assert roots == service.signer.roots_pem
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(intermediate.encode()))


async def test_token_and_claimed_cluster_reach_the_judge(service):
    await service.ask(cluster="cluster7")

    assert service.judge.shown.token == "good"
    assert service.judge.shown.claimed_cluster == "cluster7"
    assert "good" not in repr(service.judge.shown)


async def test_names_that_a_request_asks_for_are_ignored(service):
    wanted = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/istio-system/sa/istiod")]
    )

    leaf_pem, *_ = await service.ask(csr_pem=certificates.request(extensions=[wanted]))

    assert b"istiod" not in x509.load_pem_x509_certificate(leaf_pem.encode()).public_bytes(
        serialization.Encoding.DER
    )


async def test_an_identity_bears_the_trust_domain_of_its_cluster(service):
    service.domains["cluster2"] = "two.local"
    service.signer = certificates.signer(now=NOW, trust_domains=("cluster.local", "two.local"))

    leaf_pem, *_ = await service.ask(cluster="cluster2")

    assert b"spiffe://two.local/ns/sample/sa/sleep" in x509.load_pem_x509_certificate(
        leaf_pem.encode()
    ).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("limits", [(), ("cluster.local",)])
async def test_identities_of_another_domain_are_signed_only_by_express_permission(service, limits):
    service.domains["cluster2"] = "two.local"
    service.signer = certificates.signer(now=NOW, trust_domains=limits)

    message = ca_pb2.IstioCertificateRequest(csr=certificates.request())
    refused = await service.send(message.SerializeToString())

    assert refused.code() is grpc.StatusCode.INTERNAL
    assert "does not permit trust domain `two.local`" in refused.details()


async def test_a_lifetime_is_granted_up_to_the_limit(service):
    leaf_pem, *_ = await service.ask(lifetime_s=3600)

    leaf = x509.load_pem_x509_certificate(leaf_pem.encode())
    left = leaf.not_valid_after_utc - clock.SystemClock().now()
    assert datetime.timedelta(minutes=59) < left <= datetime.timedelta(minutes=60)


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        ({"token": "bad"}, "UNAUTHENTICATED", "request authenticate failure"),
        ({"csr_pem": "nonsense"}, "INVALID_ARGUMENT", "CSR signing error (cannot read"),
        ({"lifetime_s": 7776001}, "INVALID_ARGUMENT", "CSR signing error (requested lifetime"),
        ({"csr_pem": "x" * 17000}, "INVALID_ARGUMENT", "larger than 16384 bytes"),
        ({"csr_pem": "x" * 30000}, "INVALID_ARGUMENT", "message is larger than"),
    ],
)
async def test_refusals_carry_istios_codes(service, asked, status, text):
    with pytest.raises(csrclient.NotSigned) as refused:
        await service.ask(**asked)

    assert f"{status}: " in refused.value.detail
    assert text in refused.value.detail


async def test_a_weak_key_is_an_invalid_argument(service):
    with pytest.raises(csrclient.NotSigned, match="did not sign") as refused:
        await service.ask(csr_pem=certificates.request(certificates.rsa_key(1024)))

    assert "INVALID_ARGUMENT: CSR signing error (key is not accepted: RSA 1024" in (
        refused.value.detail
    )


async def test_bytes_that_are_no_message_are_an_invalid_argument(service):
    refused = await service.send(b"\xff\xff\xff")

    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_certificates_for_others_are_refused(service):
    message = ca_pb2.IstioCertificateRequest(csr=certificates.request())
    message.metadata["ImpersonatedIdentity"] = "spiffe://cluster.local/ns/a/sa/b"

    refused = await service.send(message.SerializeToString())

    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.details() == "request impersonation authentication failure"


def on_behalf(identity):
    message = ca_pb2.IstioCertificateRequest(csr=certificates.request())
    message.metadata["ImpersonatedIdentity"] = identity
    return message.SerializeToString()


async def test_a_node_proxy_gets_a_certificate_of_who_it_may_ask_for(service):
    asked = []
    service.impersonation = lambda *who: asked.append(who) or ""

    async with dialing.channel(service.target()) as channel:
        content = await channel.unary_unary(f"/{csr.SERVICE}/{csr.METHOD}")(
            on_behalf("spiffe://cluster.local/ns/a/sa/b"),
            metadata=service.target().metadata(),
            timeout=pace.patience(5),
        )

    chain = ca_pb2.IstioCertificateResponse.FromString(content).cert_chain
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://cluster.local/ns/a/sa/b"
    ]
    ((caller, identity),) = asked
    assert (caller.pod, identity.service_account) == ("sleep-1", "b")


@pytest.mark.parametrize(
    "identity", ["", "spiffe://elsewhere/ns/a/sa/b", "spiffe://cluster.local/ns/a", "a/b"]
)
async def test_a_node_proxy_gets_no_certificate_of_an_identity_that_is_none_here(service, identity):
    service.impersonation = lambda *_: ""

    refused = await service.send(on_behalf(identity))

    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.details() == "request impersonation authentication failure"


async def test_nothing_is_signed_before_there_is_an_authority(service):
    service.signer = None

    with pytest.raises(csrclient.NotSigned) as refused:
        await service.ask()

    assert "INTERNAL: CSR signing error (no signing certificate yet)" in refused.value.detail


async def test_an_expired_authority_is_an_internal_error(service):
    service.signer = certificates.signer(now=NOW - datetime.timedelta(days=100))

    with pytest.raises(csrclient.NotSigned) as refused:
        await service.ask()

    assert "INTERNAL: CSR signing error (the signing certificate has expired" in (
        refused.value.detail
    )


async def test_when_nobody_can_judge_the_caller_shall_come_again(service):
    service.judge.reachable = False

    with pytest.raises(csrclient.NotSigned) as refused:
        await service.ask()

    assert "UNAVAILABLE" in refused.value.detail


async def test_signing_is_written_down_first_and_tokens_never_are(service, caplog):
    caplog.set_level(logging.DEBUG)

    leaf_pem, *_ = await service.ask()
    with pytest.raises(csrclient.NotSigned):
        await service.ask(token="a-secret-token")

    serial = x509.load_pem_x509_certificate(leaf_pem.encode()).serial_number
    assert f'serial="{serial:x}"' in caplog.text
    assert 'identity="spiffe://cluster.local/ns/sample/sa/sleep"' in caplog.text
    assert "a-secret-token" not in caplog.text


async def test_what_happened_is_counted(service):
    await service.ask()
    for wrong in ({"token": "bad"}, {"csr_pem": "x"}, {"lifetime_s": 10**9}):
        with pytest.raises(csrclient.NotSigned):
            await service.ask(**wrong)

    lines = service.metrics.text().splitlines()
    assert "citadel_server_csr_count 4" in lines
    assert "citadel_server_authentication_failure_count 1" in lines
    assert 'citadel_server_csr_sign_err_count{error="CSR_ERROR"} 1' in lines
    assert 'citadel_server_csr_sign_err_count{error="TTL_ERROR"} 1' in lines
    assert "citadel_server_success_cert_issuance_count 1" in lines


async def test_a_replaced_serving_certificate_is_used_by_the_next_connection(service):
    other = certificates.signer(of="other-root", now=NOW)
    service.serving.replace(tls.issue(other, names=(NAME,), now=NOW))

    assert await service.ask()
    assert service.serving.certificate.roots_pem == other.roots_pem


async def test_a_server_of_another_root_is_not_spoken_to(service):
    stranger = certificates.signer(of="stranger", now=NOW).roots_pem

    with pytest.raises(csrclient.NotSigned) as refused:
        await csrclient.request(
            dialing.Target(f"127.0.0.1:{service.port}", NAME, stranger, "good", "cluster2"),
            csr_pem=certificates.request(),
            lifetime_s=0,
            deadline_s=5,
        )

    assert "UNAVAILABLE" in refused.value.detail


async def test_a_required_client_certificate_is_required():
    async with Service(NOW).listening(by_grpc=True, require_client_certificate=True) as strict:
        with pytest.raises(csrclient.NotSigned) as refused:
            await strict.ask()

        assert "UNAVAILABLE" in refused.value.detail


async def test_a_client_certificate_shows_its_only_identity():
    async with Service(NOW).listening(by_grpc=True, require_client_certificate=True) as strict:
        leaf = signing.workload(
            certificates.key("leaf").public_key(),
            identity=certificates.SLEEP,
            signer=strict.signer,
            stamp=tls.stamp(NOW),
            life=datetime.timedelta(days=1),
        )

        await call_with_certificate(strict, leaf)

        assert strict.judge.shown.peer_identities == (str(certificates.SLEEP),)


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_certificate_without_an_identity_is_counted_and_logged_with_the_address(
    is_elsewhere, caplog
):
    strict = {"by_grpc": True, "require_client_certificate": True}
    async with Service(NOW).listening(is_elsewhere=is_elsewhere, **strict) as service:
        nobody = signing._leaf(
            certificates.key("leaf").public_key(),
            names=x509.SubjectAlternativeName([x509.DNSName("nobody")]),
            roles=signing.BOTH_ROLES,
            signer=service.signer,
            stamp=tls.stamp(NOW),
            life=datetime.timedelta(days=1),
        )

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call_with_certificate(service, nobody)

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert 'peer="ipv4:127.0.0.1:' in caplog.text
    lines = service.metrics.text().splitlines()
    assert "citadel_server_csr_count 1" in lines
    assert "citadel_server_authentication_failure_count 1" in lines


async def test_what_is_not_worth_asking_somebody_else_is_counted_once():
    async with Service(NOW).listening(is_elsewhere=True) as service:
        refused = await service.send(b"x" * (csr.LARGEST_MESSAGE_BYTES + 1))
        await service.ask()

    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    lines = service.metrics.text().splitlines()
    assert "citadel_server_csr_count 2" in lines
    assert "citadel_server_csr_parsing_err_count 1" in lines


async def call_with_certificate(service: Service, leaf: x509.Certificate) -> None:
    credentials = grpc.ssl_channel_credentials(
        service.serving.certificate.roots_pem.encode(),
        keys.private_pem(certificates.key("leaf")).encode(),
        pem.joined((leaf, *service.signer.chain)).encode(),
    )
    options = (("grpc.ssl_target_name_override", NAME),)
    target = f"127.0.0.1:{service.port}"
    message = ca_pb2.IstioCertificateRequest(csr=certificates.request())
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        await channel.unary_unary(f"/{csr.SERVICE}/{csr.METHOD}")(
            message.SerializeToString(),
            metadata=service.target().metadata(),
            timeout=pace.patience(5),
        )


def test_generated_messages_are_current(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    make_protos = pytest.importorskip("make_protos", exc_type=ImportError)

    assert make_protos.stale() == []
