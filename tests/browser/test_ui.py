"""What a person sees and clicks: the pipeline as a graph, and the approval of a waiting release."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from playwright.sync_api import Page, expect, sync_playwright
from tenacity import retry, retry_if_exception_message, stop_after_attempt
from tests.integration.services import TestService
from tests.support.requirements import require

pytestmark = [pytest.mark.scheduler, pytest.mark.browser]

ROOT = Path(__file__).parents[2]
TASKS = (
    "build",
    "test",
    "package",
    "staging.deploy",
    "staging.health",
    "production.approve",
    "production.deploy",
    "production.health",
    "production.rollback",
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Generous: the machine may be busy with other tests.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """An empty browser window with a profile of its own."""
    require(CHROMIUM, "chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": 1500, "height": 760},
            device_scale_factor=1.5,
        )
        context.set_default_timeout(PATIENCE_MS)
        try:
            yield context.pages[0]
        finally:
            context.close()


@pytest.fixture
def parked(airflow: RunningAirflow, tmp_path: Path) -> Iterator[Run]:
    """A run of ``hello_delivery`` that waits for bob's decision."""
    hello = TestService(airflow, "hello", "delivery", tmp_path / "hello", approval={"approvers": ["bob"]})
    run = hello.run()
    run.wait_for_task("production.approve", "awaiting_input", timeout=120)
    airflow.wait_until_noted(run.run_id, "production.approve")
    yield run
    hello.remove()


# The page that says that it gave up may come late, and interrupt the next one.
@retry(
    retry=retry_if_exception_message(match="(?s).*(ERR_NETWORK_CHANGED|chrome-error://)"),
    stop=stop_after_attempt(6),
    reraise=True,
)
def open_page(page: Page, url: str) -> None:
    """Go there. The browser gives up when a network comes or goes, such as one of another test."""
    page.goto(url)


def log_in(page: Page, airflow: RunningAirflow, user: str) -> None:
    open_page(page, airflow.url)
    page.get_by_label("Username").fill(user)
    page.locator("input[type=password]").fill(airflow.password(user))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="User")).to_be_visible()


def show_graph(page: Page, run: Run) -> None:
    open_page(page, run.url)
    page.get_by_role("button", name=re.compile("Show Graph")).click()
    page.get_by_role("button", name="Expand all task groups").click()


def keep_picture(page: Page, tmp_path: Path) -> Path:
    """Take the picture of the README when asked for a new one, else a throw-away."""
    page.get_by_role("button", name="Collapse Details Panel").click()
    page.set_viewport_size({"width": 1500, "height": 420})
    page.get_by_role("button", name=re.compile("fit view", re.IGNORECASE)).click()
    # The way to the new zoom level is animated: the picture is taken when two in a row are the same.
    now = b""
    for _ in range(30):
        before, now = now, page.screenshot(style=".react-flow__minimap {display: none}")
        if now == before:
            break
    wanted = os.environ.get("CD_UPDATE_SCREENSHOT") == "1"
    path = (ROOT / "docs" / "images" if wanted else tmp_path) / "hello_delivery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(now)
    return path


def test_the_graph_shows_the_pipeline_and_where_it_waits(
    page: Page, parked: Run, airflow: RunningAirflow, tmp_path: Path
) -> None:
    log_in(page, airflow, "bob")
    show_graph(page, parked)
    graph = page.locator(".react-flow")
    for task in TASKS:
        expect(graph.get_by_text(task.rpartition(".")[2], exact=True).first).to_be_visible()
    for label in ("staging", "production", "approved", "unhealthy"):
        expect(graph.get_by_text(label, exact=True).first).to_be_visible()
    expect(page.get_by_text("Awaiting Input").first).to_be_visible()
    assert keep_picture(page, tmp_path).stat().st_size > 10_000


def test_clicking_approve_lets_the_release_into_production(
    page: Page, parked: Run, airflow: RunningAirflow
) -> None:
    log_in(page, airflow, "bob")
    link = parked.links("production.approve")["Approval"]
    assert link is not None
    open_page(page, link)
    expect(page.get_by_text("unit: 1 passed of 1")).to_be_visible()
    page.locator("form input, input[name*=reason], textarea").last.fill("seen on staging")
    page.get_by_role("button", name="Approve", exact=True).click()

    parked.wait_for_task("production.deploy", ("running", "success"), timeout=60)
    open_page(page, f"{parked.url}/tasks/production.deploy")
    expect(page.get_by_test_id("header-card").get_by_text("DeployOperator")).to_be_visible()
    parked.wait_for("success")
    decision = parked.xcom("production.approve")
    assert isinstance(decision, dict)
    assert (decision["by"], decision["reason"]) == ("bob", "seen on staging")
