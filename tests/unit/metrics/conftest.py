"""What is judged in these tests, and servers to measure at."""

from tests.support.measuring import no_proxy, server, subject  # noqa: F401
