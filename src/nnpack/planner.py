"""Planning: applicable -> estimate -> choose; and the explanation of a choice."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

from nnpack import wisdom
from nnpack.admission import Demand, possible_algorithms
from nnpack.algorithms.base import (
    FLOAT_BYTES,
    VARIANT_MARK,
    Algorithm,
    Estimate,
    TransposedAlgorithm,
    list_variants,
)
from nnpack.algorithms.fill import fill_stage
from nnpack.algorithms.following import (
    CompleteAlgorithm,
    bare,
    following_passes,
    with_following_passes,
)
from nnpack.algorithms.interleaving import dense_phases, interleave_in_slices, interleaves
from nnpack.algorithms.output_gradient import input_block_bytes, plan_masked
from nnpack.algorithms.table import (
    algorithm_names,
    find_algorithms,
    find_transposed_algorithms,
)
from nnpack.codegen.target import Target
from nnpack.errors import AlgorithmError
from nnpack.explanation import AnyProblem, Candidate, Explanation
from nnpack.frozen import dataclass, replace
from nnpack.output_gradient_problem import OutputGradientProblem
from nnpack.plan import Plan, combine_plans
from nnpack.problem import Problem, TransposedProblem
from nnpack.transposed import has_gaps, is_one_phase, transposed_phases
from nnpack.verbose import is_verbose, report

__all__ = [
    "AnyProblem",
    "Candidate",
    "Choice",
    "Explanation",
    "check_algorithm",
    "check_applicable",
    "explain",
    "list_choices",
    "make_masked_plan",
    "make_plan",
    "plan_choice",
    "writes_early",
]

# What packing reaches of the rate of a copy in memory: from 3.3 GB/s for the 100 MB of a Fourier
# transform, through 4 for 2 MB of plain panels, to 7 for the 9 to 16 MB of Winograd's, where 14 is
# the rate.
_PACKING_SHARE = 0.35


def check_algorithm(name: object, others: Sequence[str] = ()) -> str:
    """``name`` if an algorithm, or one of ``others``, is called so. Raises AlgorithmError."""
    if isinstance(name, str) and (name in others or find_algorithms(name)):
        return name
    names = ", ".join(dict.fromkeys((*algorithm_names(), *others)))
    raise AlgorithmError(f"algorithm={name!r} is unknown; choose one of {names}")


@dataclass(frozen=True)
class Choice:
    """An algorithm for each part of a problem, and the time predicted for all on one thread.

    Or ``whole``, for a transposed convolution that need not be parted.
    """

    algorithms: tuple[Algorithm, ...]
    seconds: float
    whole: TransposedAlgorithm | None = None

    @property
    def name(self) -> str:
        """The names of all that is used."""
        return "+".join(dict.fromkeys(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each part's algorithm."""
        if self.whole is not None:
            return (self.whole.name,)
        return tuple(algorithm.name for algorithm in self.algorithms)

    def is_variant_of(self, other: Choice) -> bool:
        """Whether this is ``other`` with a decision taken otherwise."""
        return self.name.startswith(other.name + VARIANT_MARK)


def check_applicable(problem: AnyProblem, algorithm: str, target: Target) -> None:
    """Raise AlgorithmError when ``algorithm`` cannot do ``problem``."""
    _predicted(problem, algorithm, target)


def make_plan(
    problem: AnyProblem, algorithm: str, target: Target, threads: int, *, packs: bool = False
) -> Plan:
    """The plan of the fastest algorithm that ``algorithm`` allows and ``problem`` admits.

    Fastest as measured, if wisdom has it, else as predicted; ``packs``: as predicted for runs that
    pack the weights each time, of which wisdom knows nothing. A transposed convolution is
    planned phase by phase.
    Raises AlgorithmError when the named algorithm cannot do the problem.
    """
    return _make_plan(problem, algorithm, target, threads, packs, wisdom.generation())


@functools.lru_cache(maxsize=1024)
def _make_plan(
    problem: AnyProblem,
    algorithm: str,
    target: Target,
    threads: int,
    packs: bool,
    _generation: int,
) -> Plan:
    chosen, measured = _choose(problem, algorithm, target, threads, packs)
    plan = plan_choice(problem, chosen, target, threads)
    if is_verbose():
        _report(problem, algorithm, target, plan, chosen, measured)
    return plan


def make_masked_plan(
    problem: AnyProblem,
    masking: OutputGradientProblem,
    algorithm: str,
    target: Target,
    threads: int,
) -> Plan:
    """The plan of ``problem`` where x, dense, is what ``masking`` gives; the weights are packed.

    The algorithm is that of all images, which are computed some at a time.
    """
    chosen, _ = _choose(problem, algorithm, target, threads, packs=True)

    def plan_of(_: int, images: int) -> Plan:
        return plan_choice(replace(problem, batch=images), chosen, target, threads)

    y_bytes = FLOAT_BYTES * problem.y_strides[0]
    return plan_masked(
        masking, plan_of, "x", {"y": y_bytes, "residual": y_bytes}, input_block_bytes(target)
    )


def plan_choice(problem: AnyProblem, choice: Choice, target: Target, threads: int) -> Plan:
    """The plan of ``choice``, one of `list_choices`."""
    if isinstance(problem, Problem) or is_one_phase(problem):
        ((part, _),) = _parts(problem)
        return choice.algorithms[0].build(part, target, threads)

    def build(plain: TransposedProblem) -> Plan:
        if choice.whole is not None:
            return choice.whole.build(plain, target, threads)
        if interleaves(plain):
            return interleave_in_slices(build_parts, plain, target)
        return build_parts(plain)

    def build_parts(plain: TransposedProblem) -> Plan:
        parts = zip(_parts(plain), choice.algorithms, strict=True)
        plans = ((a.build(part, target, threads), FLOAT_BYTES * y) for (part, y), a in parts)
        plan = combine_plans(tuple(plans))
        if has_gaps(plain) and not interleaves(plain):
            plan = replace(plan, stages=(fill_stage(plain), *plan.stages))
        return plan

    return with_following_passes(build, problem, target, threads)


def writes_early(problem: AnyProblem, algorithm: str, target: Target) -> bool:
    """Whether plans write some of y before they read the residual at the same place.

    Phases that leave gaps do where these are filled first.
    """
    if isinstance(problem, Problem) or not has_gaps(problem) or interleaves(bare(problem)):
        return False
    return _whole(problem, algorithm, target) is None


def _whole(problem: AnyProblem, name: str, target: Target) -> Choice | None:
    """The choice of an algorithm that takes a transposed convolution as a whole."""
    if isinstance(problem, Problem):
        return None
    plain = bare(problem)
    for algorithm in find_transposed_algorithms(name):
        if algorithm.refusal(plain, target) is None:
            return Choice((), algorithm.estimate(plain, target).seconds, algorithm)
    return None


def _parts(problem: AnyProblem) -> tuple[tuple[Problem, int], ...]:
    """The forward problems ``problem`` consists of, with their offsets in y, in elements."""
    if isinstance(problem, Problem):
        return ((problem, 0),)
    plain = problem if is_one_phase(problem) else bare(problem)
    phases = transposed_phases(plain)
    if not is_one_phase(problem) and interleaves(plain):
        return dense_phases(phases)
    return tuple((phase.problem, phase.y_offset) for phase in phases)


@functools.cache
def _menu(name: str) -> tuple[CompleteAlgorithm, ...]:
    """The algorithms that ``name`` allows, each for every epilogue."""
    return tuple(CompleteAlgorithm(algorithm) for algorithm in find_algorithms(name))


def explain(
    problem: AnyProblem, algorithm: str, target: Target, threads: int, *, packs: bool = False
) -> Explanation:
    """What every algorithm answers to ``problem``, and which one is used; ``packs`` as above.

    No images are explained as one image: nothing is planned for them.
    """
    problem = replace(problem, batch=max(1, problem.batch))
    parts = [part for part, _ in _parts(problem)]
    chosen, measured = _choose(problem, algorithm, target, threads, packs)
    outcome = None if packs else _recall(problem, algorithm, target, threads)
    times = {} if outcome is None else outcome.measured
    asked = _with_measured_variants(parts, target, times)
    candidates = (
        _ask(a, parts, target, threads, packs)
        if chosen.whole is None or a.name != chosen.name
        else _ask_whole(problem, chosen, target, threads)
        for a in asked
    )
    passes = following_passes(problem)
    if passes and not (isinstance(problem, Problem) or is_one_phase(problem)):
        candidates = (replace(c, detail=f"{c.detail}, {passes}") for c in candidates)
    return Explanation(
        problem,
        chosen.name,
        tuple(replace(c, measured=times.get(c.algorithm)) for c in candidates),
        measured is not None,
    )


def _with_measured_variants(
    parts: Sequence[Problem], target: Target, times: Mapping[str, float]
) -> list[Algorithm]:
    found: list[Algorithm] = []
    for algorithm in _menu("auto"):
        variants = list_variants(algorithm, parts[0], target)
        found += [algorithm, *(variant for variant in variants if variant.name in times)]
    return found


def _ask(
    algorithm: Algorithm, parts: Sequence[Problem], target: Target, threads: int, packs: bool
) -> Candidate:
    refusals = [algorithm.refusal(part, target) for part in parts]
    refused = next((refusal for refusal in refusals if refusal is not None), None)
    if refused is not None:
        return Candidate(algorithm.name, refused)
    estimates = [algorithm.estimate(part, target) for part in parts]
    plans = [algorithm.build(part, target, threads) for part in parts]
    reasons = (_demand(part).inaccuracy(e) for part, e in zip(parts, estimates, strict=True))
    packed_bytes = sum(plan.weight_format.nbytes for plan in plans)
    packing = packed_bytes / _packing_rate(target) if packs else 0.0
    return Candidate(
        algorithm.name,
        next((reason for reason in reasons if reason is not None), None),
        sum(estimate.seconds for estimate in estimates) + packing,
        max(estimate.error for estimate in estimates),
        max(plan.workspace_bytes for plan in plans),
        packed_bytes,
        plans[0].detail,
        packed_storage="+".join(dict.fromkeys(plan.weight_format.storage for plan in plans)),
    )


def _ask_whole(problem: AnyProblem, choice: Choice, target: Target, threads: int) -> Candidate:
    """What is said of a transposed convolution that is not parted."""
    assert choice.whole is not None
    assert not isinstance(problem, Problem)
    plan = plan_choice(bare(problem), choice, target, threads)
    return Candidate(
        choice.name,
        None,
        choice.seconds,
        choice.whole.estimate(bare(problem), target).error,
        plan.workspace_bytes,
        plan.weight_format.nbytes,
        plan.detail,
    )


def _choose(
    problem: AnyProblem, algorithm: str, target: Target, threads: int, packs: bool
) -> tuple[Choice, float | None]:
    """What is used; and the seconds a run when that was measured."""
    whole = _whole(problem, check_algorithm(algorithm), target)
    if whole is not None:
        return whole, None
    # Wisdom was measured with weights packed ahead.
    outcome = None if packs else _recall(problem, algorithm, target, threads)
    if outcome is not None:
        recalled = _recalled(problem, algorithm, target, outcome.choice)
        if recalled is not None:
            return recalled, outcome.measured.get(recalled.name)
    return _predicted(problem, algorithm, target, packs), None


def _recall(
    problem: AnyProblem, algorithm: str, target: Target, threads: int
) -> wisdom.Outcome | None:
    check_algorithm(algorithm)
    return wisdom.recall(problem, algorithm, target, threads)


def _recalled(
    problem: AnyProblem, algorithm: str, target: Target, names: Sequence[str]
) -> Choice | None:
    """The choice of these algorithms, unless one of them cannot do its part."""
    parts = [part for part, _ in _parts(problem)]
    if len(names) != len(parts):
        return None
    found: list[Algorithm] = []
    for part, name in zip(parts, names, strict=True):
        base = name.partition(VARIANT_MARK)[0]
        allowed = [a for a in _menu(algorithm) if a.name == base]
        found += [a for a in _candidates(part, allowed, target) if a.name == name]
    return _choice(parts, found, target) if len(found) == len(parts) else None


def _predicted(problem: AnyProblem, name: str, target: Target, packs: bool = False) -> Choice:
    whole = _whole(problem, name, target)
    if whole is not None:
        return whole
    parts = [part for part, _ in _parts(problem)]
    return _choice(parts, [_fastest(part, name, target, packs) for part in parts], target)


def _choice(parts: Sequence[Problem], algorithms: Sequence[Algorithm], target: Target) -> Choice:
    pairs = zip(parts, algorithms, strict=True)
    return Choice(tuple(algorithms), sum(a.estimate(part, target).seconds for part, a in pairs))


def list_choices(problem: AnyProblem, algorithm: str, target: Target) -> list[Choice]:
    """All that could be used, the predicted choice first, then by predicted time.

    One that need not part the problem is the only one.

    Raises AlgorithmError when there is none.
    """
    parts = [part for part, _ in _parts(problem)]
    predicted = _predicted(problem, check_algorithm(algorithm), target)
    if predicted.whole is not None:
        return [predicted]
    menus = [
        {candidate.name: candidate for candidate in _candidates(part, allowed, target)}
        for part, allowed in ((part, _menu(algorithm)) for part in parts)
    ]
    shared = [name for name in menus[0] if all(name in menu for menu in menus)]
    others = [_choice(parts, [menu[name] for menu in menus], target) for name in shared]
    others = [choice for choice in others if choice.names != predicted.names]
    return [predicted, *sorted(others, key=lambda choice: choice.seconds)]


def _candidates(part: Problem, allowed: Sequence[Algorithm], target: Target) -> list[Algorithm]:
    """Those of ``allowed`` that can do ``part`` as accurately, each followed by its variants."""
    found: list[Algorithm] = []
    for algorithm in allowed:
        if algorithm.refusal(part, target) is None:
            found += [algorithm, *list_variants(algorithm, part, target)]
    demand = _demand(part)
    pairs = [(algorithm, algorithm.estimate(part, target)) for algorithm in found]
    accurate = [pair for pair in pairs if demand.inaccuracy(pair[1]) is None]
    return [algorithm for algorithm, _ in demand.most_accurate(accurate)]


def _fastest(problem: Problem, name: str, target: Target, packs: bool) -> Algorithm:
    """The algorithm of the least predicted time. Raises AlgorithmError when there is none."""
    menu, demand = _menu(check_algorithm(name)), _demand(problem)
    possible = possible_algorithms(name, menu, problem, target, demand)
    accurate = sorted(demand.most_accurate(possible), key=lambda pair: pair[1].seconds)
    return _fastest_packing(problem, accurate, target) if packs else accurate[0][0]


def _fastest_packing(
    problem: Problem, by_seconds: Sequence[tuple[Algorithm, Estimate]], target: Target
) -> Algorithm:
    """The algorithm whose packing and run take least; what cannot win any more is not built."""
    best, least = by_seconds[0][0], math.inf
    for algorithm, estimate in by_seconds:
        if estimate.seconds < least:
            packed_bytes = algorithm.build(problem, target, 1).weight_format.nbytes
            seconds = estimate.seconds + packed_bytes / _packing_rate(target)
            if seconds < least:
                best, least = algorithm, seconds
    return best


def _packing_rate(target: Target) -> float:
    """Bytes of packed weights written a second, and read back from further away than usual."""
    return _PACKING_SHARE * target.rates.memory_bandwidth


def _demand(problem: Problem) -> Demand:
    return Demand(
        problem.accuracy, problem.group_in_channels * problem.kernel[0] * problem.kernel[1]
    )


def _report(
    problem: AnyProblem,
    algorithm: str,
    target: Target,
    plan: Plan,
    chosen: Choice,
    measured: float | None,
) -> None:
    """A line for every candidate that was refused, and one for the plan."""
    for candidate in _menu(algorithm):
        for part, _ in _parts(problem):
            reason = candidate.refusal(part, target)
            reason = reason or _demand(part).inaccuracy(candidate.estimate(part, target))
            if reason is not None:
                report("refused", problem, candidate.name, reason, plan.threads, None)
                break
    event, seconds = ("plan", chosen.seconds) if measured is None else ("wisdom", measured)
    report(event, problem, plan.algorithm, plan.detail, plan.threads, seconds)
