"""Asks an API server what others may do there."""

from isthmus.kube import answers, client


async def may_read_secret(
    server: client.Client, namespace: str, name: str, *, service_account: str
) -> bool:
    """Tell whether an account of a namespace may read one Secret there."""
    attributes = {"namespace": namespace, "verb": "get", "resource": "secrets", "name": name}
    groups = ("serviceaccounts", f"serviceaccounts:{namespace}", "authenticated")
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": namespace},
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{service_account}",
            "groups": [f"system:{group}" for group in groups],
            "resourceAttributes": attributes,
        },
    }
    path = f"/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"
    review = answers.document(await server.raw("POST", path, body=body))
    return (review.get("status") or {}).get("allowed") is True
