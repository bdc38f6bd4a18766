"""Objects of a real S3 server, streamed: whole, in order, ahead of the reader, within bounds."""

from __future__ import annotations

import random
import time

import pytest

from fastload.store import streaming
from fastload.store.objects import MissingObjectError
from fastload.store.remote import Access, Bucket
from fastload.store.requests import Requests
from fastload.store.streaming import Span, Stream, forward_file
from tests.faulty_proxy import FaultyProxy

pytestmark = [pytest.mark.s3, pytest.mark.slow]
pytest.importorskip("obstore", reason="needs obstore: pip install -e '.[dev]' in the checkout")

OBJECTS = {f"{n}.tar": random.Random(n).randbytes(size) for n, size in enumerate((9000, 10, 1024))}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(streaming, "PART_BYTES", 1024)


@pytest.fixture(scope="module")
def address(s3):
    for name, data in OBJECTS.items():
        s3.put("streamed", name, data)
    return "s3://tests/streamed"


@pytest.fixture
def proxy(s3):
    with FaultyProxy(s3.endpoint, latency=0.02).serving() as one:
        yield one


@pytest.fixture
def bucket(s3, address, proxy):
    return Bucket(address, Access(storage_options=s3.options(endpoint=proxy.endpoint)))


@pytest.fixture
def requests():
    with Requests(timeout_seconds=20) as one:
        yield one


def spans(*names: str) -> list[Span]:
    return [Span(name, 0, len(OBJECTS.get(name, b"x"))) for name in names or OBJECTS]


async def held(requests: Requests) -> int:
    return requests._held


def test_objects_come_whole_and_in_order_and_several_at_a_time(bucket, proxy, requests):
    stream = Stream(bucket, spans(), requests)
    read = [b"".join(stream.parts(number)) for number in range(3)]
    assert read == list(OBJECTS.values())
    assert proxy.most_at_once > 3
    assert len(proxy.gets()) == 9 + 1 + 1
    assert requests.run(held(requests)) == 0


def test_as_a_file_an_object_is_read_forward(bucket, requests):
    stream = Stream(bucket, spans(), requests)
    file = forward_file(stream.parts(0))
    data = OBJECTS["0.tar"]
    assert [file.read(1500), file.read(1), file.read(9000), file.read(1)] == [
        data[:1500],
        data[1500:1501],
        data[1501:],
        b"",
    ]


def test_no_more_is_under_way_or_waits_than_the_bound(bucket, proxy, requests, monkeypatch):
    monkeypatch.setattr(streaming, "IN_FLIGHT_BYTES", 3 * 1024)
    stream = Stream(bucket, spans(), requests)
    parts = stream.parts(0)
    next(parts)
    time.sleep(0.5)
    assert len(proxy.gets()) <= 3
    assert 1 <= requests.run(held(requests)) <= 3 * 1024
    assert b"".join(parts) == OBJECTS["0.tar"][1024:]


def test_what_nobody_takes_of_an_object_is_passed_over(bucket, proxy, requests, monkeypatch):
    monkeypatch.setattr(streaming, "IN_FLIGHT_BYTES", 3 * 1024)
    stream = Stream(bucket, spans(), requests)
    first = stream.parts(0)
    next(first)
    assert b"".join(stream.parts(1)) == OBJECTS["1.tar"]
    assert b"".join(stream.parts(2)) == OBJECTS["2.tar"]
    assert len(proxy.gets("0.tar")) <= 4
    del first
    assert requests.run(held(requests)) == 0


def test_an_object_that_is_missing_is_named_and_those_behind_it_are_read(bucket, requests):
    stream = Stream(bucket, spans("0.tar", "gone.tar", "2.tar"), requests)
    assert b"".join(stream.parts(0)) == OBJECTS["0.tar"]
    with pytest.raises(MissingObjectError, match=r"streamed/gone\.tar.*: there is no such"):
        list(stream.parts(1))
    assert b"".join(stream.parts(2)) == OBJECTS["2.tar"]
