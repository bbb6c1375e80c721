"""
Releases that follow one another in every way there is, in a namespace whose controllers act in any order:
at every moment there is something ready where requests go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as st
from tests.support.kubernetes_objects import http_route, objects, side
from tests.support.pretended_namespace import VERSION, Namespace

from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.rollout import Observation, Phase, Plan, Progress
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.desired_state import DesiredState, desired_state, steady_state
from airflow_cd.targets.kubernetes.variants import ReleaseVariant, place_of

SETTINGS = KubernetesTargetSettings(namespace="shop", manifests="k8s")
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def strategy_of(random: Random) -> StrategyChoice | None:
    weights = [random.choice([0, 1, 20, 50, 80, 99, 100]) for _ in range(random.randint(1, 4))]
    steps = [{"weight": weight} for weight in weights]
    choices = [
        {"blue_green": {}},
        {"canary": {"steps": steps, "route": "web"}},
        *[{"canary": {"steps": steps}}] * 3,
    ]
    chosen = random.choice([None, *choices])
    return None if chosen is None else StrategyChoice.model_validate(chosen)


@dataclass
class Environment:
    """An environment as its target keeps it: what runs, how it was brought, and what ran before."""

    random: Random
    namespace: Namespace = field(default_factory=Namespace)
    current: ReleaseVariant | None = None
    strategy: StrategyChoice | None = None
    previous: tuple[ReleaseVariant, StrategyChoice | None] | None = None
    enough: int = 0
    now: datetime = NOW

    def bring(
        self,
        new: ReleaseVariant,
        strategy: StrategyChoice | None,
        *,
        fast: bool = False,
        abort_after: int | None = None,
        replaced_after: int | None = None,
    ) -> bool:
        """Roll a release out, or leave it there after so many looks; return whether it made it."""
        plan = Plan(() if fast or strategy is None else strategy.steps)
        progress = plan.begin(self.now)
        looks = 0
        while not progress.over:
            if looks == replaced_after:
                return False
            if looks == abort_after:
                progress = progress.aborting("enough", self.now)
            progress = self.look(plan, progress, new, strategy, fast)
            looks += 1
        if progress.phase is Phase.PROMOTED:
            if self.current is not None:
                self.previous = self.current, self.strategy
            self.current, self.strategy = new, strategy
        self.settle(scaled_down=self.random.random() < 0.5)
        return progress.phase is Phase.PROMOTED

    def look(
        self, plan: Plan, progress: Progress, new: ReleaseVariant, strategy: StrategyChoice | None, fast: bool
    ) -> Progress:
        self.now += timedelta(seconds=1)
        what = self.wanted(progress, new, strategy, fast)
        stage = what.reached(self.namespace.is_ready)
        if not progress.applied or self.random.random() < 0.1:  # a person comes after a killed process
            self.apply(stage, progress)
        done = stage.then is None
        progress = progress.model_copy(update={"applied": done})
        for _ in range(self.random.randrange(5)):
            self.namespace.tick(self.random)
            self.check(progress)
        seen = Observation(
            ready=done and all(self.namespace.is_done(name) for _, name in stage.candidate),
            restored=done and all(self.namespace.is_done(name) for _, name in stage.stable),
        )
        return plan.advance(progress, seen, self.now)

    def wanted(
        self, progress: Progress, new: ReleaseVariant, strategy: StrategyChoice | None, fast: bool
    ) -> DesiredState:
        live = self.namespace.objects.get(("Deployment", "web-canary"))
        release = live and live["spec"]["template"]["metadata"]["annotations"][VERSION]
        serving = None
        if self.current is not None:
            name = "web" if self.current.place == "stable" else f"web-{self.current.place}"
            serving = sum(pod.ready for pod in self.namespace.of(name))
        arguments = (SETTINGS, strategy, progress, new, self.current)
        told: Any = {"fast": fast, "occupied": release not in (None, new.version), "serving": serving}
        return desired_state(*arguments, **told)

    def apply(self, what: DesiredState, progress: Progress | None) -> None:
        for obj in what.objects:
            self.namespace.apply(obj)
            self.check(progress)
        for _, kind, name in what.delete:
            self.namespace.delete(kind, name)
            self.check(progress)

    def settle(self, scaled_down: bool) -> None:
        if self.current is None:
            return
        previous = self.previous[0] if self.previous else None
        what = steady_state(SETTINGS, self.strategy, self.current, previous, scaled_down=scaled_down)
        self.apply(what, None)
        kept = {(obj["kind"], obj["metadata"]["name"]) for obj in what.objects}
        for kind, name in set(self.namespace.objects) - kept:  # as pruning does
            self.namespace.delete(kind, name)
        while self.namespace.tick(self.random):
            self.check(None)
        assert all(self.namespace.is_ready(obj) for obj in what.objects if obj["kind"] == "Deployment")
        assert {pod.version for pod in self.namespace.reached("web")} == {self.current.version}

    def check(self, progress: Progress | None) -> None:
        if self.current is None:
            return
        for service, weight in self.backends():
            reached = self.namespace.reached(service)
            assert reached or not weight, f"{service} gets {weight} and has nothing ready"
        going_back = progress is not None and progress.phase is Phase.ABORTING
        ready = sum(pod.ready for pod in self.namespace.pods)
        assert going_back or ready >= self.enough, f"{ready} of {self.enough} ready"

    def backends(self) -> list[tuple[str, int]]:
        refs = self.namespace.objects["HTTPRoute", "web"]["spec"]["rules"][0]["backendRefs"]
        return [("web", 1), *((ref["name"], ref.get("weight", 1)) for ref in refs)]


# Drawn by the generator alone: hypothesis prefers what is small, and most of this is about what is not.
@settings(
    max_examples=120,
    suppress_health_check=list(HealthCheck),
    phases=[HypothesisPhase.generate],
)
@given(st.integers(0, 2**32))
def test_there_is_always_something_ready_where_requests_go(seed: int) -> None:
    random = Random(seed)
    environment = Environment(random)
    for number in range(1, random.randint(3, 6)):
        bring_next(environment, number, random)
        if environment.previous is not None and random.random() < 0.3:
            back, how = environment.previous
            environment.enough = min(size_of(environment.current), size_of(back))  # type: ignore[arg-type]
            environment.bring(back, how, fast=True, abort_after=random.choice([None, 0, 1, 5, 9]))


def bring_next(environment: Environment, number: int, random: Random) -> None:
    current = environment.current
    strategy = strategy_of(random)
    place = place_of(strategy, current and current.place)  # type: ignore[arg-type]
    new = side(number, place, objects(number, random.randint(1, 5), http_route()))
    if current is None:
        environment.bring(new, strategy, fast=True)
        return
    environment.enough = min(size_of(current), size_of(new))
    end = random.choice(["promoted", "aborted", "broken", "replaced"])
    looks = random.randint(0, 30)
    if end == "broken":
        environment.namespace.broken.add(new.version)
    elif end == "replaced":
        environment.bring(new, strategy, replaced_after=looks)
        # The next one of the same strategy takes its place.
        new = side(100 + number, new.place, objects(100 + number, size_of(new), http_route()))
        end = random.choice(["promoted", "aborted"])
        looks = random.randint(0, 9)
    made_it = environment.bring(new, strategy, abort_after=looks if end in ("aborted", "broken") else None)
    assert not (made_it and end == "broken")


def size_of(release: ReleaseVariant) -> int:
    return release.objects[1]["spec"]["replicas"]  # type: ignore[no-any-return]
