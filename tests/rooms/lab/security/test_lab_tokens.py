import datetime

import aiohttp
import pytest
from cryptography import x509

from fakes.lab_cluster import encoded, pod
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import tokens

_ISTIO = ("istio-ca",)


def _secret(account="default"):
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "kept",
            "namespace": "default",
            "annotations": {"kubernetes.io/service-account.name": account},
        },
    }


def _reference(found, **more):
    metadata = found["metadata"]
    return {"kind": "Pod", "name": metadata["name"], "uid": metadata["uid"], **more}


async def test_a_token_counts_only_for_its_audiences(cluster):
    token = await cluster.token(audiences=["istio-ca", "other"])

    user, audiences = await cluster.security.accounts.user_of(token, audiences=_ISTIO)

    assert user.name == "system:serviceaccount:default:default"
    assert "system:serviceaccounts:default" in user.groups
    assert audiences == _ISTIO
    with pytest.raises(tokens.UnacceptableError, match="audiences"):
        await cluster.security.accounts.user_of(token)


async def test_a_token_names_the_pod_that_it_is_bound_to(cluster):
    made = await cluster.api.create("pods", pod())
    token = await cluster.token(boundObjectRef=_reference(made))

    user, _ = await cluster.security.accounts.user_of(token)

    prefix = "authentication.kubernetes.io"
    assert user.extra[f"{prefix}/pod-name"] == ("one",)
    assert user.extra[f"{prefix}/pod-uid"] == (made["metadata"]["uid"],)
    assert user.extra[f"{prefix}/credential-id"][0].startswith("JTI=")


async def test_a_bound_token_ends_with_its_pod_even_if_another_has_its_name(cluster):
    made = await cluster.api.create("pods", pod())
    token = await cluster.token(boundObjectRef=_reference(made))
    await cluster.api.delete("pods", "one", "default", grace_s=0)
    with pytest.raises(tokens.UnacceptableError, match="has been deleted"):
        await cluster.security.accounts.user_of(token)

    await cluster.api.create("pods", pod())

    with pytest.raises(tokens.UnacceptableError, match="UID"):
        await cluster.security.accounts.user_of(token)


async def test_a_token_is_not_bound_to_another_pods_uid(cluster):
    made = await cluster.api.create("pods", pod())

    with pytest.raises(apis.ApiError) as caught:
        await cluster.token(boundObjectRef=_reference(made, uid="else"))

    assert caught.value.code == 409


async def test_a_short_life_is_refused(cluster):
    with pytest.raises(apis.ApiError, match="less than 10 minutes"):
        await cluster.token(expirationSeconds=60)


async def test_an_ended_forged_or_foreign_token_is_refused(cluster):
    signer = cluster.security.signer
    token = signer.sign({"iss": tokens.ISSUER, "exp": 100, "nbf": 0})
    with pytest.raises(tokens.UnacceptableError, match="expired"):
        signer.claims_of(token, now_s=101)
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload[:-4]}AAAA.{signature}"
    for wrong in (forged, "", "a.b.c", "....", f"{head}.{payload}.", token + "é"):
        with pytest.raises(tokens.UnacceptableError):
            signer.claims_of(wrong, now_s=50)


async def test_a_secret_is_filled_with_its_accounts_token(cluster):
    await cluster.api.create("secrets", _secret())

    found = await cluster.until("secrets", lambda s: s.get("data", {}).get("token"))

    assert found["data"]["namespace"] == encoded("default")
    assert found["data"]["ca.crt"] == encoded(cluster.authority.ca_pem)
    token = tokens.decoded_field(found, "token")
    user, _ = await cluster.security.accounts.user_of(token)
    assert user.name == "system:serviceaccount:default:default"


async def test_a_kept_token_ends_with_its_secret(cluster):
    await cluster.api.create("secrets", _secret())
    found = await cluster.until("secrets", lambda s: s.get("data", {}).get("token"))

    await cluster.api.delete("secrets", "kept", "default")

    with pytest.raises(tokens.UnacceptableError, match="deleted"):
        await cluster.security.accounts.user_of(tokens.decoded_field(found, "token"))


async def test_the_secret_goes_with_its_account(cluster):
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "reader", "namespace": "default"},
    }
    await cluster.api.create("serviceaccounts", account)
    await cluster.api.create("secrets", _secret("reader"))
    await cluster.until("secrets", lambda s: s.get("data", {}).get("token"))

    await cluster.api.delete("serviceaccounts", "reader", "default")

    await cluster.until_gone("secrets", "kept")


async def test_every_namespace_gets_an_account_and_the_root_certificate(cluster):
    await cluster.namespace("fresh")

    root = await cluster.until(
        "configmaps", lambda c: c["metadata"]["name"] == "kube-root-ca.crt", "fresh"
    )

    assert root["data"] == {"ca.crt": cluster.authority.ca_pem}
    assert await cluster.exists("serviceaccounts", "default", "fresh")


async def _post(front, path, body, **more):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{front.url}{path}", json=body, **more) as answer,
    ):
        return answer.status, await answer.json()


async def test_a_client_certificate_names_user_and_groups(front):
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

    status, answer = await _post(
        front,
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        body,
        ssl=front.tls(front.authority.admin),
    )

    assert status == 201
    assert answer["status"]["userInfo"] == {
        "username": "kubernetes-admin",
        "groups": ["system:masters", "system:authenticated"],
    }


async def test_nobody_and_bad_tokens_get_401(front):
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            url = f"{front.url}/api/v1/pods"
            async with session.get(url, ssl=front.tls(), headers=headers) as answer:
                assert answer.status == 401
                assert (await answer.json())["reason"] == "Unauthorized"


async def test_a_token_review_says_for_whom_the_token_is(front):
    token = await front.token(audiences=["istio-ca"])
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["istio-ca", "more"]},
    }
    path, tls = "/apis/authentication.k8s.io/v1/tokenreviews", front.tls(front.authority.admin)

    _, good = await _post(front, path, body, ssl=tls)
    _, bad = await _post(front, path, body | {"spec": {"token": token}}, ssl=tls)

    assert good["status"]["authenticated"] is True
    assert good["status"]["audiences"] == ["istio-ca"]
    assert good["status"]["user"]["username"] == "system:serviceaccount:default:default"
    assert bad["status"]["authenticated"] is False
    assert "audiences" in bad["status"]["error"]


async def test_certificates_hold_for_a_year_and_name_the_server(cluster):
    found = x509.load_pem_x509_certificate(cluster.authority.serving.certificate_pem.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert "kubernetes.default.svc.cluster.local" in names.get_values_for_type(x509.DNSName)
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    assert {"127.0.0.1", "10.96.0.1"} <= set(addresses)
    life = found.not_valid_after_utc - found.not_valid_before_utc
    assert life > datetime.timedelta(days=364)
