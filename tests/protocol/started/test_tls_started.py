"""TLS that proxies start to servers outside of the mesh: whom they trust and what they show.

A real Envoy, the agent's own secrets, and servers of Python's TLS. Nothing is ever sent in plain text.
"""

import contextlib
import pathlib

import pytest
import started

HOST = started.HOST
NOT_TRUSTED = 503


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return one Envoy with all cases."""
    files = started.Files(tmp_path_factory.mktemp("files"))
    with contextlib.ExitStack() as stack:

        def server(**more):
            found = started.Server(files, **more)
            stack.callback(found.close)
            return found

        roots = {"caCertificates": files.roots()}
        usual, strange = server(), server(of="strangers")
        other, demanding = server(name="other.example.com"), server(clients="clients")
        chain, key = files.pair("ann", of="clients")
        shown = {"mode": "MUTUAL", "clientCertificate": chain, "privateKey": key}
        of_stranger = files.pair("bob", of="strangers")
        refused = {"clientCertificate": of_stranger[0], "privateKey": of_stranger[1]}
        late = str(tmp_path_factory.mktemp("late") / "ca.crt")
        cases = {
            "right": started.Case(usual, **roots),
            "tcp": started.Case(usual, protocol="TCP", **roots),
            "other name asked for": started.Case(other, sni="other.example.com", **roots),
            "other name": started.Case(other, **roots),
            "other name over tcp": started.Case(other, protocol="TCP", **roots),
            "other name allowed": started.Case(
                other, subjectAltNames=["other.example.com"], **roots
            ),
            "strange authority": started.Case(strange, **roots),
            "system's authorities": started.Case(usual),
            "late": started.Case(usual, caCertificates=late),
            "not verified": started.Case(strange, insecureSkipVerify=True),
            "star": started.Case(usual, host="*.example.com", **roots),
            "star over tcp": started.Case(usual, host="*.example.com", protocol="TCP", **roots),
            "star of others": started.Case(other, host="*.example.org", protocol="TCP", **roots),
            "mutual": started.Case(demanding, **shown, **roots),
            "nothing shown": started.Case(demanding, **roots),
            "wrong one shown": started.Case(demanding, **{**shown, **refused}, **roots),
        }
        found = started.Started(tmp_path_factory.mktemp("envoy"), cases)
        stack.callback(found.close)
        found.late, found.files = late, files
        yield found
        # Whatever was refused: nobody fell back to plain text.
        assert [case.server.plain for case in cases.values()] == [[]] * len(cases)


@pytest.mark.parametrize("case", ["right", "tcp", "star", "star over tcp", "not verified"])
def test_a_server_with_the_right_certificate_answers(world, case):
    name = "" if case == "star over tcp" else HOST

    assert world.ask(case) == {"sni": name, "client": ""}


@pytest.mark.parametrize(
    "case",
    ["other name", "other name over tcp", "strange authority", "system's authorities"],
)
def test_a_server_that_cannot_prove_its_name_gets_no_request(world, case):
    assert world.ask(case) in (NOT_TRUSTED, "ConnectionResetError", "RemoteDisconnected")


def test_a_server_of_another_domain_is_not_one_of_a_star(world):
    assert world.ask("star of others") in ("ConnectionResetError", "RemoteDisconnected")


def test_requests_for_a_star_are_held_to_the_host_that_they_name(world):
    assert world.ask("star", "other.example.com") == NOT_TRUSTED


def test_a_rule_may_name_the_server(world):
    assert world.ask("other name asked for")["sni"] == "other.example.com"
    assert world.ask("other name allowed")["sni"] == HOST


def test_a_client_shows_the_certificate_that_its_rule_names(world):
    assert world.ask("mutual")["client"] == "ann"


@pytest.mark.parametrize("case", ["nothing shown", "wrong one shown"])
def test_a_server_that_demands_certificates_turns_others_away(world, case):
    assert world.ask(case) == NOT_TRUSTED


def test_no_connection_is_made_before_the_files_are_there_and_then_at_once(world):
    assert world.ask("late") == NOT_TRUSTED
    pathlib.Path(world.late).write_text(started.certificate("ca"))

    def answers():
        world.refresh()
        return world.ask("late") == {"sni": HOST, "client": ""}

    world.until(answers)
