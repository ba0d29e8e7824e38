"""Files on the proxy's disk as secrets: by which names, and when they change."""

import pytest

from isthmus.wire import sds, sdsfiles


def written(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def test_roots_and_pairs_are_read_by_the_names_of_istios_agents(tmp_path):
    chain, key = written(tmp_path, "c", "chain"), written(tmp_path, "k", "key")

    assert b"chain" in sdsfiles.read(f"file-root:{chain}").body
    pair = sdsfiles.read(f"file-cert:{chain}~{key}")
    assert b"chain" in pair.body
    assert b"key" in pair.body


@pytest.mark.parametrize(
    "name", ["default", "file-cert:{}", "file-cert:{}~/none", "file-root:/none"]
)
def test_what_is_not_there_is_no_secret(tmp_path, name):
    assert sdsfiles.read(name.format(written(tmp_path, "c", "chain"))) is None


def test_a_file_that_comes_later_or_changes_is_told_and_one_that_goes_is_kept(tmp_path):
    name, told = f"file-root:{tmp_path}/late", []
    shelf = sds.Shelf(sdsfiles.read)
    shelf.follow(lambda: told.append(shelf.secrets.get(name)))
    shelf.ask([name])
    assert shelf.secrets == {}

    for text in ("one", "two", "two"):
        written(tmp_path, "late", text)
        shelf.refresh()
    (tmp_path / "late").unlink()
    shelf.refresh()

    assert [text in one.body for text, one in zip((b"one", b"two"), told, strict=True)] == [
        True
    ] * 2
    assert b"two" in shelf.secrets[name].body


def test_what_is_put_stands_beside_what_is_read(tmp_path):
    shelf = sds.Shelf(sdsfiles.read)
    name = f"file-root:{written(tmp_path, 'c', 'chain')}"
    shelf.ask([name])
    shelf.put({"default": sds.certificate("default", chain_pem="a", key_pem="b", version="1")})

    assert set(shelf.secrets) == {"default", name}
