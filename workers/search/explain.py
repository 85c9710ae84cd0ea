"""What a search would do and cost, in words, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from workers.search.cost import gflop
from workers.search.parameters import Bundle, Choice, Integer, Parameter, Point, Real, Weights
from workers.search.plan import SearchPlan


def explain(plan: SearchPlan, trials: int) -> list[str]:
    """Return the space, what is tried first, and what the trials may cost at most.

    Raises
    ------
    UsageError
        As `SearchPlan.check`.
    """
    plan.check()
    return list(_lines(plan, trials))


def _lines(plan: SearchPlan, trials: int) -> Iterator[str]:
    space, base, start = plan.space, plan.base, plan.start
    yield f"{space.title}"
    yield f"recipe {plan.ref} ({base.label}), order {space.order}, objective {base.stop.metric} on Val"
    yield ""
    for parameter in space.parameters:
        own = ", ".join(str(start[name]) for name in parameter.names if name in start)
        yield f"{', '.join(parameter.names):<40} {described(parameter)}; recipe: {own or 'not in the space'}"
    first, count = plan.first, plan.count(trials)
    yield ""
    yield f"{count} trials; set: the first {min(count, len(first))}, drawn: the others"
    cost, epochs = gflop(base), base.stop.epochs
    yield f"recipe: {cost:.2f} GFLOP an image, {epochs} epochs; a trial costs {plan.budget:g} times that"
    yield f"all trials cost at most {count * plan.budget:g} trainings of the recipe; those that are pruned cost less"
    for name, point in _ends(plan, start):
        there = plan.at(point)
        yield f"  at {name}: {gflop(there):.2f} GFLOP an image, {there.stop.epochs} epochs"


def described(parameter: Parameter) -> str:
    """Say what a parameter may be."""
    match parameter:
        case Integer():
            words = f"{parameter.low} to {parameter.high} in steps of {parameter.step}"
        case Real():
            words = f"{parameter.low:g} to {parameter.high:g}, {parameter.kind}"
        case Choice():
            words = "one of " + ", ".join(map(str, parameter.choices))
        case Bundle():
            words = "one of " + ", ".join(
                f"{name} ({', '.join(settings) or 'as it is'})" for name, settings in parameter.options.items()
            )
        case Weights():
            words = (
                f"weights against each other, {parameter.low:g} to {parameter.high:g}, log, scaled to the recipe's sum"
            )
    conditions = [f"{name} in {list(wanted)}" for name, wanted in parameter.when.items()]
    return words + (f", where {' and '.join(conditions)}" if conditions else "")


def _ends(plan: SearchPlan, start: Point) -> Iterator[tuple[str, Point]]:
    """Yield the recipe with one size or encoder changed, where that changes what an image costs."""
    for parameter in plan.space.parameters:
        if any(name.startswith(("input.", "network.")) for name in parameter.names) and not parameter.when:
            values = parameter.values()
            for value in values if isinstance(parameter, Choice) else (values[0], values[-1]):
                yield ", ".join(f"{name}={one}" for name, one in value.items()), start | value
