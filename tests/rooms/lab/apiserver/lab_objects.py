"""Objects that tests store, as short as they can be while still valid."""

import asyncio

from isthmus.testing import pace


def config(name="settings", *, data=None, **meta):
    return {"metadata": {"name": name, "namespace": "default", **meta}, "data": data or {}}


def pod(name="sleep", *, image="curl", **meta):
    return {
        "metadata": {"name": name, "namespace": "default", **meta},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }


def deployment(name="hello", **spec):
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "hello:1"}]},
            },
            **spec,
        },
    }


def service(name="hello", **spec):
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def definition(properties, *, name="gadgets", required=(), **version):
    kind = name[:-1].capitalize()
    spec = {"type": "object", "properties": properties, "required": list(required)}
    schema = {"type": "object", "properties": {"spec": spec}}
    return {
        "metadata": {"name": f"{name}.demo.io"},
        "spec": {
            "group": "demo.io",
            "scope": "Namespaced",
            "names": {"plural": name, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    **version,
                }
            ],
        },
    }


def gadget(name="one", **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def owner(obj, *, blocks=False):
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }


async def next_event(subscription):
    async with asyncio.timeout(pace.patience(5)):
        return await anext(subscription)
