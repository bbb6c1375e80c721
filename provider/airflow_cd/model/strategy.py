"""How an environment changes from one release to the next."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from airflow_cd.model.base import Duration, Frozen, Name, format_duration

APPROVAL = "approval"
# What Kubernetes takes as the name of most of its objects.
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


def _pause(value: Any) -> Any:
    return APPROVAL if value == {} else value


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Analyses = Annotated[tuple[Name, ...], BeforeValidator(_names)]


class CanaryStep(Frozen):
    """
    One step of a canary: exactly one of these.

    :param weight: percent of the requests that go to the new release from here on
    :param pause: how long to go on like this, or ``approval``: until a person promotes it
    :param analysis: names of the service's ``analyses``, which all have to succeed
    """

    weight: int | None = Field(None, ge=0, le=100)
    pause: Annotated[Literal["approval"] | Duration | None, BeforeValidator(_pause)] = None
    analysis: Annotated[Analyses, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> CanaryStep:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a step is one of `weight`, `pause` and `analysis`; write one after another")
        return self

    @property
    def described(self) -> str:
        """Return the step as people read it."""
        if self.weight is not None:
            return f"{self.weight} %"
        if self.analysis is not None:
            return f"analysis {', '.join(self.analysis)}"
        if self.pause == APPROVAL:
            return "pause until approved"
        assert isinstance(self.pause, timedelta)
        return f"pause {format_duration(self.pause)}"


class CanarySettings(Frozen):
    """
    Some requests go to the new release, more and more of them, and back at once when it turns out bad.

    :param steps: one after the other; after the last one the new release gets all requests
    :param route: ``HTTPRoute`` of the Gateway API that shares out the requests exactly; without, they are
        shared out by the number of instances
    """

    steps: Annotated[tuple[CanaryStep, ...], Field(min_length=1)]
    route: ObjectName | None = None


class BlueGreenSettings(Frozen):
    """
    The new release starts beside the old one, at full size, and gets all requests at once.

    :param analysis: names of the service's ``analyses``, which have to succeed before it gets any request but
        those to its preview
    :param promotion: whether it gets the requests by itself, or when a person approves
    :param scale_down_delay: how long the old one goes on running, ready to be gone back to at once. The
        default is that of Argo Rollouts.
    """

    analysis: Analyses = ()
    promotion: Literal["automatic", "approval"] = "automatic"
    scale_down_delay: Duration = timedelta(seconds=30)


class StrategyChoice(Frozen):
    """
    A strategy other than ``rolling``: exactly one of these.

    :param canary: share the requests out step by step
    :param blue_green: start the new release at full size, then switch
    """

    canary: CanarySettings | None = None
    blue_green: BlueGreenSettings | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> StrategyChoice:
        if (self.canary is None) == (self.blue_green is None):
            raise ValueError("is one of rolling, canary and blue_green; write {canary: {steps: [...]}}, say")
        return self

    @property
    def route(self) -> str | None:
        """Return the name of the HTTPRoute that shares requests out, if one does."""
        return self.canary.route if self.canary is not None else None

    @property
    def steps(self) -> tuple[CanaryStep, ...]:
        """Return what is done before the new release gets all requests."""
        if self.canary is not None:
            return self.canary.steps
        assert self.blue_green is not None
        # The preview: all of it runs, and no request goes there.
        steps = [CanaryStep(weight=0)]
        if self.blue_green.analysis:
            steps.append(CanaryStep(analysis=self.blue_green.analysis))
        if self.blue_green.promotion == APPROVAL:
            steps.append(CanaryStep(pause=APPROVAL))
        return tuple(steps)

    @property
    def analyses(self) -> tuple[str, ...]:
        """Return the names of all analyses it needs."""
        return tuple(name for step in self.steps for name in step.analysis or ())


def _named(value: Any) -> Any:
    if value in ("canary", "blue_green"):
        raise ValueError(f"needs settings; write for example {{{value}: {{}}}}")
    return None if value == "rolling" else value


# ``None`` is what the target does by itself, written as ``rolling``.
Strategy = Annotated[StrategyChoice | None, BeforeValidator(_named)]
