"""Logistic regression to the optimum, many at once: problems share the features and differ in weights, targets and penalty.

So several values of C on all inner folds cost hardly more than one: each step is one matrix product for all of them. Arrays have a row
a problem, since products of few columns with the features are several times slower in BLAS than products of few rows.
"""

from dataclasses import dataclass, replace

import torch

MEMORY = 10
"""Steps that L-BFGS remembers."""
EXACT = 5_000_000
"""Logits, losses and steps are float64 up to this many logits, float32 beyond. Products with the features are float32."""
SAMPLE, RANK = 2048, 128
"""Rows from which the curvature is estimated, and directions in which it is."""
ROWS = 512
"""Rows whose logits and part of the gradient are computed together on a CPU: their features stay in its cache."""
HALVINGS = 25
ARMIJO = 1e-4


@dataclass(frozen=True)
class Problems:
    """`weights` and `targets` `[J, N]` of J sets of labels (a weight of 0 leaves a patch out), and for each of P problems its set and its C."""

    weights: torch.Tensor
    targets: torch.Tensor
    sets: list[int]
    cs: list[float]


@dataclass(frozen=True)
class Solution:
    """Weights `[P, D]` and biases `[P]` of P problems, and the number of steps they took together."""

    weight: torch.Tensor
    bias: torch.Tensor
    steps: int


class LogisticRegressions:
    """Logistic regressions on `features` `[N, D]`, which are centred or standardised."""

    def __init__(self, features: torch.Tensor):
        self.features = features.float()
        rows = self.features[:: max(1, len(features) // SAMPLE)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, values, basis = torch.svd_lowrank(rows, q=min(RANK, *rows.shape), niter=2)
        # The Hessian at logit 0 in its steepest directions.
        self.steepest, self.curvatures = basis.T.contiguous(), values.square() / (4 * len(rows))

    def fit(
        self,
        problems: Problems,
        *,
        start: Solution | None = None,
        offset: float = 0.0,
        max_steps: int = 200,
        tolerance: float = 1e-9,
    ) -> Solution:
        """Minimisers of sum_i s_i logloss_i + |w|^2 / (2 C) for each problem, `start` being what the steps begin from (0 where None).

        The logit in the loss is x w + b + `offset`; targets lie in 0..1. L-BFGS (Liu and Nocedal 1989) with backtracking,
        preconditioned by the curvature at logit 0 in its steepest directions. A problem is solved where the next step would lower its
        mean loss by less than `tolerance` (nats), or by so little that float32 logits do not show it, about 1e-9. The bias is not penalised,
        as in scikit-learn. A problem depends on the others by rounding alone: solved ones leave the products, and products of fewer rows may
        round otherwise.
        """
        features, device = self.features, self.features.device
        n_problems = len(problems.sets)
        exact = len(features) * n_problems <= EXACT and device.type != "mps"
        kind = torch.float64 if exact else torch.float32
        weights = problems.weights[problems.sets].to(device, kind)
        targets = problems.targets[problems.sets].to(device, kind)
        total = weights.sum(1, dtype=torch.float64).clamp(min=1e-12).to(kind)
        weights = weights / total[:, None]
        ridge = 1 / (torch.tensor(problems.cs, dtype=kind, device=device) * total)

        solution = torch.zeros(n_problems, features.shape[1] + 1, dtype=kind, device=device)
        if start is not None:
            solution[:, :-1], solution[:, -1] = start.weight, start.bias
        objective = _Objective(features, weights, targets, ridge, offset)
        active = torch.arange(n_problems, device=device)
        at = objective.at(solution.clone())
        history: list[tuple[torch.Tensor, torch.Tensor]] = []
        step = 0
        while step < max_steps and len(active):
            curvature = _Curvature(self.steepest.to(kind), self.curvatures.to(kind), objective.ridge[:, None])
            direction = -_two_loop(at.gradient, history, curvature)
            slope = (at.gradient * direction).sum(1)
            # Rounding can turn a direction uphill near the optimum; the preconditioned gradient never is.
            uphill = slope >= 0
            if uphill.any():
                direction[uphill] = -curvature.solve(at.gradient)[uphill]
                slope = (at.gradient * direction).sum(1)
            # The whole step is nearly always short enough, so its gradient is computed before that is known.
            new = objective.at(at.solution + direction)
            size = objective.search(at, new, direction, slope)
            if not (size == 1).all():
                new = objective.at(at.solution + size[:, None] * direction)
            history = [*history, (size[:, None] * direction, new.gradient - at.gradient)][-MEMORY:]
            step += 1
            solved = (size == 0) | (-slope / 2 < tolerance)
            solution[active[solved]] = new.solution[solved]
            at = new
            if solved.any():
                left = ~solved
                active, at, objective = active[left], at.of(left), objective.of(left)
                history = [(moves[left], turns[left]) for moves, turns in history]
        solution[active] = at.solution
        return Solution(solution[:, :-1], solution[:, -1], step)


@dataclass
class _Point:
    """Solutions `[P, D + 1]` (bias last) with their logits `[P, N]`, mean loss and penalty float64 `[P]`, and its gradient `[P, D + 1]`."""

    solution: torch.Tensor
    logits: torch.Tensor
    loss: torch.Tensor
    gradient: torch.Tensor

    def of(self, kept: torch.Tensor) -> "_Point":
        return _Point(self.solution[kept], self.logits[kept], self.loss[kept], self.gradient[kept])


@dataclass
class _Objective:
    """The problems that are not solved yet: weights and targets `[P, N]`, penalties `[P]`."""

    features: torch.Tensor
    weights: torch.Tensor
    targets: torch.Tensor
    ridge: torch.Tensor
    offset: float

    def at(self, solution: torch.Tensor) -> _Point:
        """Logits, loss and gradient at `solution`, in one reading of the features."""
        weight, bias, kind = solution[:, :-1], solution[:, -1:], solution.dtype
        rows = ROWS if self.features.device.type == "cpu" else len(self.features)
        parts, loss, slopes, gradient = [], 0, 0, torch.zeros_like(weight, dtype=torch.float32)
        for features, weights, targets in zip(
            self.features.split(rows), self.weights.split(rows, 1), self.targets.split(rows, 1), strict=True
        ):
            logits = (weight.float() @ features.T).to(kind) + bias + self.offset
            residual = weights * (logits.sigmoid() - targets)
            gradient.addmm_(residual.float(), features)
            slopes = slopes + residual.sum(1, keepdim=True)
            loss = loss + _losses(weights, targets, logits)
            parts.append(logits)
        gradient = torch.cat([gradient.to(kind) + self.ridge[:, None] * weight, slopes], 1)
        return _Point(solution, torch.cat(parts, 1), loss + self._penalty(solution), gradient)

    def search(self, at: _Point, new: _Point, direction: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """Lengths `[P]` of steps along `direction`, which leads from `at` to `new`: halved until the loss falls enough (Armijo), 0 where it never does."""
        size, loss = torch.ones_like(slope), new.loss
        for _ in range(HALVINGS):
            short = ~(loss <= at.loss + ARMIJO * size * slope)
            if not short.any():
                return size
            size = torch.where(short, size / 2, size)
            logits = at.logits + size[:, None] * (new.logits - at.logits)
            loss = _losses(self.weights, self.targets, logits) + self._penalty(at.solution + size[:, None] * direction)
        return torch.where(short, 0.0, size)

    def of(self, kept: torch.Tensor) -> "_Objective":
        return replace(self, weights=self.weights[kept], targets=self.targets[kept], ridge=self.ridge[kept])

    def _penalty(self, solution: torch.Tensor) -> torch.Tensor:
        return (self.ridge / 2 * solution[:, :-1].square().sum(1)).double()


def _losses(weights: torch.Tensor, targets: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Weighted sums `[P]` of log losses, float64."""
    each = torch.nn.functional.softplus(logits) - targets * logits
    return (weights * each).sum(1, dtype=torch.float64)


@dataclass(frozen=True)
class _Curvature:
    """The Hessian at logit 0 plus the penalty in its R steepest directions; in all others as steep as in the last of these.

    `steepest` `[R, D]` and `values` `[R]` are those of `LogisticRegressions`, `ridge` `[P, 1]`.
    """

    steepest: torch.Tensor
    values: torch.Tensor
    ridge: torch.Tensor

    def solve(self, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient `[P, D + 1]` divided by the curvature."""
        flat = 1 / (self.values[-1] + self.ridge)
        inside = gradient[:, :-1] @ self.steepest.T
        step = flat * gradient[:, :-1] + ((1 / (self.values + self.ridge) - flat) * inside) @ self.steepest
        return torch.cat([step, 4 * gradient[:, -1:]], 1)


def _two_loop(gradient: torch.Tensor, history: list[tuple[torch.Tensor, torch.Tensor]], curvature: _Curvature) -> torch.Tensor:
    """The L-BFGS direction (Nocedal and Wright 2006, algorithm 7.4), with the curvature in place of a multiple of the identity."""
    direction, alphas = gradient.clone(), []
    for moves, turns in reversed(history):
        product = (moves * turns).sum(1, keepdim=True)
        rho = torch.where(product > 0, 1 / product, 0.0)
        alphas.append(rho * (moves * direction).sum(1, keepdim=True))
        direction -= alphas[-1] * turns
    direction = curvature.solve(direction)
    for (moves, turns), alpha in zip(history, reversed(alphas), strict=True):
        product = (moves * turns).sum(1, keepdim=True)
        rho = torch.where(product > 0, 1 / product, 0.0)
        direction += (alpha - rho * (turns * direction).sum(1, keepdim=True)) * moves
    return direction
