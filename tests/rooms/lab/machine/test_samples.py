"""The sample programs, spoken to over loopback."""

import contextlib
import os
import threading
from http import client

import pytest

from isthmus.lab.samples import curl, helloworld


@pytest.fixture
def address():
    with helloworld.Listener(("127.0.0.1", 0), helloworld.Greeting) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()
        thread.join()


def test_hello_tells_version_and_instance(address):
    link = client.HTTPConnection(address)
    with contextlib.closing(link):
        link.request("GET", "/hello")
        answer = link.getresponse()
        text = answer.read().decode()

        assert answer.version == 11
        assert text == f"Hello version: v1, instance: {helloworld.Greeting.instance}\n"


def test_the_log_tells_who_called_as_a_proxy_said(address, capsys):
    link = client.HTTPConnection(address)
    with contextlib.closing(link):
        link.request("GET", "/health", headers={"X-Forwarded-Client-Cert": "URI=spiffe://a"})
        assert link.getresponse().read()

    assert 'xfcc="URI=spiffe://a"' in capsys.readouterr().out


def test_curl_prints_the_body_and_what_was_asked_for(address, capfdbinary):
    code = curl.main(["-sS", "-w", "%{http_code}\\n", "-m", "2", f"http://{address}/health"])

    assert code == 0
    assert capfdbinary.readouterr().out.endswith(b"Helloworld is healthy\n200\n")


def test_curl_can_write_the_body_elsewhere(address, capfdbinary):
    assert curl.main(["-s", "-o", os.devnull, "-w", "%{http_code}", f"{address}/none"]) == 0
    assert capfdbinary.readouterr().out.endswith(b"404")


def test_curl_fails_as_curl_does(address, capfdbinary):
    assert curl.main(["-sS", "http://127.0.0.1:1/"]) == 7
    assert curl.main(["-sSf", f"http://{address}/none"]) == 22
    assert b"(7)" in capfdbinary.readouterr().err
