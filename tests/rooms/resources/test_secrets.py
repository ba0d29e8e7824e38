"""Secrets go to gateways whole, and to nobody else with their keys."""

import json

from isthmus.resources import snapshot
from isthmus.resources.envoy import secrets, shown
from isthmus.runtime import dumps

KEY = "-----BEGIN PRIVATE KEY-----"
FOUND = secrets.certificate("kubernetes://shop", chain_pem="chain", key_pem=KEY)


def test_what_is_shown_has_no_key_in_it():
    told = snapshot.Snapshot({snapshot.SECRETS: {FOUND.name: FOUND}})
    dump = dumps.config_dump(told)

    assert KEY.encode() in FOUND.body
    assert "W3JlZGFjdGVkXQ==" in json.dumps(dump)
    assert KEY not in json.dumps(dump)
    assert "LS0tLS1CRUdJTi" not in json.dumps(dump)
    assert "private_key" in json.dumps(shown.as_document(FOUND))


def test_a_version_says_nothing_of_the_key():
    other = secrets.certificate("kubernetes://shop", chain_pem="chain", key_pem="another")

    assert other.version == FOUND.version
    assert other.body != FOUND.body
