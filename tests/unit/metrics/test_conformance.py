"""What every metric does."""

from __future__ import annotations

import base64
import gzip
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.answering import AnsweringServer, answering_server
from tests.support.certificates import certificate

from airflow_cd.exceptions import MetricError
from airflow_cd.metrics.base import Metric, MetricLogin
from airflow_cd.metrics.registry import METRICS, open_metric
from airflow_cd.model.analysis import Analysis
from airflow_cd.model.subject import Subject

# How each of them is given a value, and asks for it.
QUERIES: dict[str, dict[str, Any]] = {"http": {"json": "$.rate"}, "prometheus": {"query": "rate"}}


def written(kind: str, *values: Any) -> Any:
    """Return what a server answers that has these values."""
    if kind == "http":
        return {"rate": values[0]} if values else {}
    found = [{"metric": {"pod": str(n)}, "value": [0, value]} for n, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": found}}


@pytest.fixture(params=sorted(METRICS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Make = Callable[..., Metric]


@pytest.fixture
def make(kind: str) -> Make:
    def make(url: str, login: MetricLogin | None = None, **settings: Any) -> Metric:
        async def logins(conn_id: str) -> MetricLogin:
            assert login is not None and conn_id == login.conn_id
            return login

        conn_id = login.conn_id if login else None
        query = {"url": url, "conn_id": conn_id, "timeout": "20s", **QUERIES[kind], **settings}
        return open_metric(Analysis.model_validate({kind: query, "success": "< 1"}).query, logins)

    return make


@pytest.mark.parametrize(("said", "value"), [(0.25, 0.25), ("0.25", 0.25), (0, 0.0), ("1e-3", 0.001)])
async def test_a_number_is_measured_as_it_is(
    kind: str, make: Make, server: AnsweringServer, subject: Subject, said: Any, value: float
) -> None:
    server.answer(written(kind, said))
    assert await make(server.url).measure(subject) == (value, "")


async def test_nothing_is_kept_from_one_measurement_to_the_next(
    kind: str, make: Make, server: AnsweringServer, subject: Subject
) -> None:
    metric = make(server.url)
    for value in (0.25, 0.5):
        server.answer(written(kind, value))
        assert (await metric.measure(subject)).value == value


@pytest.mark.parametrize("said", ["NaN", "+Inf", "-Inf", None])
async def test_what_is_no_finite_number_is_no_data(
    kind: str, make: Make, server: AnsweringServer, subject: Subject, said: str | None
) -> None:
    server.answer(written(kind, said) if said else written(kind))
    reading = await make(server.url).measure(subject)
    assert reading.value is None
    assert reading.detail  # says why


@pytest.mark.parametrize("said", ["much", "1_000", [1], {"a": 1}])
async def test_what_is_no_number_is_an_error(
    kind: str, make: Make, server: AnsweringServer, subject: Subject, said: Any
) -> None:
    server.answer(written(kind, said))
    with pytest.raises(MetricError, match="not a number"):
        await make(server.url).measure(subject)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 200),
        (b"<html>", 200),
        (b"[" * 100_000, 200),
        (b'{"rate": ' + b"9" * 5000 + b"}", 200),
        (b"down", 503),
    ],
)
async def test_what_is_no_answer_is_an_error_with_the_servers_address(
    make: Make, server: AnsweringServer, subject: Subject, content: bytes, status: int
) -> None:
    server.answer(content, status=status)
    with pytest.raises(MetricError, match=server.url):
        await make(server.url).measure(subject)


async def test_a_server_that_is_gone_is_an_error(make: Make, subject: Subject) -> None:
    with answering_server() as gone:
        url = gone.url
    with pytest.raises(MetricError, match=f"{url}.* cannot be asked"):
        await make(url).measure(subject)


async def test_a_server_that_says_nothing_is_not_waited_for(
    make: Make, server: AnsweringServer, subject: Subject
) -> None:
    server.answer({}, hangs=True)
    with pytest.raises(MetricError, match="did not answer within 0.1s"):
        await make(server.url, timeout="100ms").measure(subject)


async def test_redirects_are_not_followed(make: Make, server: AnsweringServer, subject: Subject) -> None:
    with answering_server() as other:
        server.answer({}, status=302, headers={"Location": f"{other.url}/private"})
        with pytest.raises(MetricError, match="redirects elsewhere, which is not followed"):
            await make(server.url).measure(subject)
        assert other.requests == []


async def test_an_answer_without_end_is_cut(make: Make, server: AnsweringServer, subject: Subject) -> None:
    def endless() -> Iterator[bytes]:
        return itertools.repeat(b" " * 65536)

    server.answer(endless)
    with pytest.raises(MetricError, match="more than 1024 KiB"):
        await make(server.url).measure(subject)


async def test_compressed_answers_are_refused(make: Make, server: AnsweringServer, subject: Subject) -> None:
    server.answer(gzip.compress(b" " * 10**7), headers={"Content-Encoding": "gzip"})
    with pytest.raises(MetricError, match="compressed"):
        await make(server.url).measure(subject)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


async def test_certificates_are_checked(kind: str, make: Make, subject: Subject, tmp_path: Path) -> None:
    with answering_server(certificate(tmp_path)) as server:
        server.answer(written(kind, 1))
        with pytest.raises(MetricError, match="(?i)certificate"):
            await make(server.url).measure(subject)
        assert server.requests == []


@pytest.mark.parametrize(
    ("user", "sent"),
    [("bob", "Basic " + base64.b64encode(b"bob:s3cret").decode()), (None, "Bearer s3cret")],
)
async def test_a_login_is_sent_to_its_server(
    kind: str, make: Make, server: AnsweringServer, subject: Subject, user: str | None, sent: str
) -> None:
    server.answer(written(kind, 1))
    login = MetricLogin("metrics", f"{server.url}/base", user, "s3cret", {"X-Key": "k"})
    await make("/api", login).measure(subject)
    asked = server.requests[0]
    assert asked.target.startswith("/base/api")
    assert (asked.headers["Authorization"], asked.headers["X-Key"]) == (sent, "k")


async def test_a_login_is_sent_to_no_other_server(
    make: Make, server: AnsweringServer, subject: Subject
) -> None:
    login = MetricLogin("metrics", "http://127.0.0.1:1", "bob", "s3cret")
    with pytest.raises(MetricError, match="is for http://127.0.0.1:1 only"):
        await make(server.url, login).measure(subject)
    assert server.requests == []


@pytest.mark.parametrize("status", [200, 302, 401, 503])
@pytest.mark.parametrize("content", [b"AccessKeyId: s3cret", b'{"rate": "s3cret"}', b'{"status": "s3cret"}'])
async def test_an_answer_is_never_repeated(
    make: Make, server: AnsweringServer, subject: Subject, content: bytes, status: int
) -> None:
    """Else a person who can name an address reads what only the workers may ask."""
    server.answer(content, status=status, headers={"Location": "/s3cret"})
    login = MetricLogin("metrics", server.url, None, "s3cret", {"X-Key": "k3y"})
    try:
        told = repr(await make(server.url).measure(subject))
    except MetricError as error:
        told = str(error)
    assert "s3cret" not in told
    assert "s3cret" not in repr(login) and "k3y" not in repr(login)


async def test_a_metadata_address_is_not_asked(make: Make, subject: Subject) -> None:
    for host in ("169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166"):
        with pytest.raises(MetricError, match="link-local or metadata address"):
            await make(f"http://{host}").measure(subject)


async def test_a_secret_that_cannot_be_sent_is_not_told(
    make: Make, server: AnsweringServer, subject: Subject
) -> None:
    for secret in ("s3cret\n", "s3crét"):
        with pytest.raises(MetricError, match="cannot be sent") as told:
            await make(server.url, MetricLogin("metrics", server.url, None, secret)).measure(subject)
        assert "s3cr" not in str(told.value)


async def test_what_is_judged_gets_into_the_address_as_one_part(
    kind: str, make: Make, server: AnsweringServer, subject: Subject
) -> None:
    server.answer(written(kind, 1))
    odd = subject.model_copy(update={"version": "1/../2?a=b#c"})
    await make(server.url + "/${service}/${version}", None).measure(odd)
    assert server.requests[0].target.startswith("/hello/1%2F..%2F2%3Fa%3Db%23c")
