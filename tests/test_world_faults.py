"""The faults of the test world: each is what it says, as often as any other, and by the seed."""

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.world.faults import KINDS, PAGE, Faults
from tests.world.files import Files
from tests.world.front import Answer, Door, Request

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def door(tmp_path: Path, socket_enabled: None) -> Iterator[Door]:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with Door() as opened:
        opened.mount("/files", Files(tmp_path))
        yield opened


def _asked(door: Door, range_: str = "", timeout_s: float = 1.0) -> tuple[int, bytes, str]:
    """Return status, body and `Retry-After`; status 0: no answer in time, -1: a body cut off."""
    connection = http.client.HTTPConnection("127.0.0.1", door.server_port, timeout=timeout_s)
    try:
        connection.request("GET", "/files/a.bin", headers={"Range": range_} if range_ else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("Retry-After", "")
    except TimeoutError:
        return 0, b"", ""
    except http.client.IncompleteRead as err:
        return -1, err.partial, ""
    finally:
        connection.close()


def test_without_faults_the_door_only_logs(door: Door) -> None:
    assert _asked(door) == (200, CONTENT, "")
    assert _asked(door, "bytes=10-19") == (206, CONTENT[10:20], "")
    assert _asked(door, "bytes=-6") == (206, CONTENT[-6:], "")
    assert _asked(door, "bytes=99999-")[0] == 416
    logged = door.of("/files")
    assert [(each.status, each.sent, each.range and each.range[0]) for each in logged[:2]] == [
        (200, len(CONTENT), None),
        (206, 10, 10),
    ]
    assert all(each.path == "/files/a.bin" and each.began <= each.ended for each in logged)


def test_each_fault_is_what_it_says(door: Door) -> None:
    door.spoiler = Faults(seed=3, share=1.0, storage="/files", late_s=3.0)
    with ThreadPoolExecutor(60) as pool:
        asked = [f"bytes={number}-{number + 99}" for number in range(60)]
        found = list(pool.map(lambda range_: _asked(door, range_, timeout_s=2.0), asked))
    until = time.monotonic() + 10.0
    while len(door.log) < 60 and time.monotonic() < until:
        time.sleep(0.05)  # the late ones are logged when nobody waits any more
    kinds = {each.range[0]: each.fault for each in door.log if each.range}
    seen: dict[str, list[tuple[int, bytes, str]]] = {kind: [] for kind in KINDS}
    for number, answer in enumerate(found):
        seen[kinds[number]].append(answer)
    assert {(status, after) for status, _, after in seen["too many"]} == {(429, "0"), (429, "1")}
    assert {each[0] for each in seen["unavailable"]} == {503}
    assert {each[0] for each in seen["expired"]} == {403}
    assert {each[0] for each in seen["hidden"]} == {404}
    assert {each[0] for each in seen["late"]} == {0}
    assert {(status, len(body)) for status, body, _ in seen["cut"]} == {(-1, 50)}
    assert {status for status, _, _ in seen["wrong content"]} == {200, 206}
    for status, body, _ in seen["wrong content"]:
        assert body == PAGE if status == 200 else (len(body) == 100 and body not in CONTENT)


def test_a_share_fails_in_all_ways_alike_and_by_the_seed() -> None:
    def happened(seed: int, order: int) -> dict[int, str]:
        faults = Faults(seed, storage="store", late_s=0.0)
        found = {}
        for number in range(3000)[::order]:
            request = Request("GET", "", f"/{number}", {}, {}, b"")
            found[number] = faults.spoil("store", request, lambda: Answer(200, b"whole"))[1]
        return found

    found = happened(5, 1)
    counts = Counter(kind for kind in found.values() if kind)
    assert 500 < sum(counts.values()) < 700
    assert set(counts) == set(KINDS) and min(counts.values()) > 0.6 * max(counts.values())
    assert happened(5, -1) == found
    assert happened(6, 1) != found
    kinds = set()
    for number in range(300):
        request = Request("POST", "", "/search", {}, {}, b"%d" % number)
        faults = Faults(number, share=1.0, storage="store", late_s=0.0)
        kinds.add(faults.spoil("stac", request, lambda: Answer(200, b"{}"))[1])
    assert kinds == set(KINDS) - {"expired", "hidden"}
