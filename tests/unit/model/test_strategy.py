from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from airflow_cd.model.strategy import APPROVAL, CanarySettings, CanaryStep, Strategy, StrategyChoice

pauses = st.just(APPROVAL) | st.integers(0, 900_000).map(lambda seconds: timedelta(seconds=seconds))
names = st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=3).map(tuple)
steps = st.one_of(
    st.integers(0, 100).map(lambda weight: CanaryStep(weight=weight)),
    pauses.map(lambda pause: CanaryStep(pause=pause)),
    names.map(lambda analysis: CanaryStep(analysis=analysis)),
)


class Holder(BaseModel):
    strategy: Strategy = None


@pytest.mark.parametrize(
    ("written", "described"),
    [
        ({"weight": 25}, "25 %"),
        ({"pause": "5m"}, "pause 5m"),
        ({"pause": 90}, "pause 90s"),
        ({"pause": {}}, "pause until approved"),
        ({"pause": "approval"}, "pause until approved"),
        ({"analysis": "errors"}, "analysis errors"),
        ({"analysis": ["errors", "latency"]}, "analysis errors, latency"),
    ],
)
def test_a_step_is_read_as_people_write_it(written: dict[str, Any], described: str) -> None:
    assert CanaryStep.model_validate(written).described == described


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"weight": 10, "pause": "5m"},
        {"weight": 101},
        {"weight": -1},
        {"weight": 0.5},
        {"pause": "soon"},
        {"pause": "-5m"},
        {"analysis": []},
        {"analysis": ""},
        {"sleep": "5m"},
    ],
)
def test_what_is_no_step_is_refused(written: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CanaryStep.model_validate(written)


@given(st.lists(steps, min_size=1, max_size=6), st.none() | st.just("web"))
def test_a_strategy_is_the_same_after_it_was_stored(given_steps: list[CanaryStep], route: str | None) -> None:
    choice = StrategyChoice(canary=CanarySettings(steps=tuple(given_steps), route=route))
    assert StrategyChoice.model_validate_json(choice.model_dump_json()) == choice
    assert StrategyChoice.model_validate(choice.model_dump(mode="json")) == choice


def test_rolling_is_no_choice_at_all() -> None:
    assert Holder.model_validate({"strategy": "rolling"}).strategy is None


@pytest.mark.parametrize("written", ["canary", "blue_green"])
def test_a_strategy_without_its_settings_says_what_to_write(written: str) -> None:
    with pytest.raises(ValidationError, match=f"{{{written}: {{}}}}"):
        Holder.model_validate({"strategy": written})


@pytest.mark.parametrize(
    "written", [{}, {"canary": {"steps": [{"weight": 5}]}, "blue_green": {}}, {"canary": {"steps": []}}]
)
def test_a_strategy_is_exactly_one(written: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Holder.model_validate({"strategy": written})


@pytest.mark.parametrize(
    ("written", "described"),
    [
        ({}, ["0 %"]),
        ({"analysis": "errors"}, ["0 %", "analysis errors"]),
        ({"promotion": "approval"}, ["0 %", "pause until approved"]),
        (
            {"analysis": ["errors"], "promotion": "approval"},
            ["0 %", "analysis errors", "pause until approved"],
        ),
    ],
)
def test_blue_green_starts_unseen_is_analysed_and_only_then_approved(
    written: dict[str, Any], described: list[str]
) -> None:
    choice = StrategyChoice.model_validate({"blue_green": written})
    assert [step.described for step in choice.steps] == described


def test_a_strategy_tells_which_analyses_it_needs() -> None:
    written = {"canary": {"steps": [{"analysis": "a"}, {"weight": 5}, {"analysis": ["b", "a"]}]}}
    assert StrategyChoice.model_validate(written).analyses == ("a", "b", "a")
