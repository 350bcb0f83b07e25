"""Logistic regression to the optimum, many at once: problems share the features and differ in weights, targets and penalty.

So several values of C on all inner folds cost hardly more than one: each step is one matrix product for all of them. Arrays have a row
a problem, since products of few columns with the features are several times slower in BLAS than products of few rows.
"""

from dataclasses import dataclass

import torch

MEMORY = 10
"""Steps that L-BFGS remembers."""
EXACT = 5_000_000
"""Logits, losses and steps are float64 up to this many logits, float32 beyond. Products with the features are float32."""
SAMPLE, RANK = 2048, 128
"""Rows from which the curvature is estimated, and directions in which it is."""
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
        mean loss by less than `tolerance` (nats). The bias is not penalised, as in scikit-learn. A problem depends on the others by rounding
        alone: solved ones leave the products, and products of fewer rows may round otherwise.
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
        logits = self._product(solution) + offset
        active = torch.arange(n_problems, device=device)
        state = _State(solution.clone(), logits, weights, targets, ridge)
        loss, gradient = state.loss(), state.gradient(features)
        history: list[tuple[torch.Tensor, torch.Tensor]] = []
        step = 0
        while step < max_steps and len(active):
            curvature = _Curvature(self.steepest.to(kind), self.curvatures.to(kind), ridge[active, None])
            direction = -_two_loop(gradient, history, curvature)
            slope = (gradient * direction).sum(1)
            # Rounding can turn a direction uphill near the optimum; the preconditioned gradient never is.
            uphill = slope >= 0
            if uphill.any():
                direction[uphill] = -curvature.solve(gradient)[uphill]
                slope = (gradient * direction).sum(1)
            change = self._product(direction)
            size, fresh = state.search(direction, change, loss, slope)
            moved = size > 0
            state.move(size, direction, change)
            new_gradient = state.gradient(features)
            history = [*history, (size[:, None] * direction, new_gradient - gradient)][-MEMORY:]
            gradient, loss = new_gradient, fresh
            step += 1
            solved = ~moved | (-slope / 2 < tolerance)
            solution[active[solved]] = state.solution[solved]
            if solved.any():
                left = ~solved
                active, gradient, loss = active[left], gradient[left], loss[left]
                state = state.of(left)
                history = [(moves[left], turns[left]) for moves, turns in history]
        solution[active] = state.solution
        return Solution(solution[:, :-1], solution[:, -1], step)

    def _product(self, solution: torch.Tensor) -> torch.Tensor:
        """Logits `[P, N]` of solutions `[P, D + 1]`."""
        return (solution[:, :-1].float() @ self.features.T).to(solution.dtype) + solution[:, -1:]


@dataclass
class _State:
    """Current solutions `[P, D + 1]` (bias last) and logits `[P, N]` of the problems that are not solved yet."""

    solution: torch.Tensor
    logits: torch.Tensor
    weights: torch.Tensor
    targets: torch.Tensor
    ridge: torch.Tensor

    def loss(self, solution: torch.Tensor | None = None, logits: torch.Tensor | None = None) -> torch.Tensor:
        """Mean loss and penalty of each problem, float64 `[P]`."""
        solution = self.solution if solution is None else solution
        logits = self.logits if logits is None else logits
        each = torch.nn.functional.softplus(logits) - self.targets * logits
        penalty = (self.ridge / 2 * solution[:, :-1].square().sum(1)).double()
        return (self.weights * each).sum(1, dtype=torch.float64) + penalty

    def gradient(self, features: torch.Tensor) -> torch.Tensor:
        """Gradient `[P, D + 1]` of `loss`."""
        residual = self.weights * (self.logits.sigmoid() - self.targets)
        product = (residual.float() @ features).to(residual.dtype)
        return torch.cat([product + self.ridge[:, None] * self.solution[:, :-1], residual.sum(1, keepdim=True)], 1)

    def search(
        self, direction: torch.Tensor, change: torch.Tensor, loss: torch.Tensor, slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step lengths `[P]` by halving until the loss falls enough (Armijo), 0 where it never does; and the losses there."""
        size = torch.ones_like(slope)
        for _ in range(HALVINGS):
            fresh = self.loss(self.solution + size[:, None] * direction, self.logits + size[:, None] * change)
            short = ~(fresh <= loss + ARMIJO * size * slope)
            if not short.any():
                return size, fresh
            size = torch.where(short, size / 2, size)
        size = torch.where(short, 0.0, size)
        return size, torch.where(short, loss, fresh)

    def move(self, size: torch.Tensor, direction: torch.Tensor, change: torch.Tensor) -> None:
        self.solution += size[:, None] * direction
        self.logits += size[:, None] * change

    def of(self, kept: torch.Tensor) -> "_State":
        parts = (self.solution, self.logits, self.weights, self.targets, self.ridge)
        return _State(*(part[kept] for part in parts))


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
