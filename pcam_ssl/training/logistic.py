"""Logistic regression to the optimum, many at once: problems share the features and differ in weights, targets and penalty.

So all values of C on all inner folds cost hardly more than one: each step is one matrix product for all of them.
"""

from dataclasses import dataclass

import torch

MEMORY = 10
"""Steps that L-BFGS remembers."""
EXACT = 5_000_000
"""Logits, losses and steps are float64 up to this many logits, float32 beyond. Products with the features are float32."""
SAMPLE, RANK = 8192, 128
"""Rows from which the curvature is estimated, and directions in which it is."""
HALVINGS = 25
ARMIJO = 1e-4


@dataclass(frozen=True)
class Problems:
    """`weights` and `targets` `[N, J]` of J sets of labels (a weight of 0 leaves a row out), and for each of P problems its set and its C."""

    weights: torch.Tensor
    targets: torch.Tensor
    sets: list[int]
    cs: list[float]


def fit_logistic(
    features: torch.Tensor, problems: Problems, *, offset: float = 0.0, max_steps: int = 200, tolerance: float = 1e-9
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Weights `[D, P]`, biases `[P]` and the number of steps: minimisers of sum_i s_i logloss_i + |w|^2 / (2 C) for each problem.

    `features` `[N, D]` are centred or standardised. The logit in the loss is x w + b + `offset`; targets lie in 0..1. L-BFGS (Liu and Nocedal
    1989) with backtracking, preconditioned by the curvature at logit 0 in its steepest directions. A problem is solved where the next
    step would lower its mean loss by less than `tolerance` (nats). The bias is not penalised, as in scikit-learn.
    """
    features = features.float()
    kind = torch.float64 if len(features) * len(problems.sets) <= EXACT and features.device.type != "mps" else torch.float32
    weights = problems.weights[:, problems.sets].to(features.device, kind)
    targets = problems.targets[:, problems.sets].to(features.device, kind)
    total = weights.sum(0, dtype=torch.float64).clamp(min=1e-12).to(kind)
    weights = weights / total
    ridge = 1 / (torch.tensor(problems.cs, dtype=kind, device=features.device) * total)
    curvature = _Curvature(features, ridge)

    n_features, n_problems = features.shape[1], len(problems.sets)
    solution = torch.zeros(n_features + 1, n_problems, dtype=kind, device=features.device)
    logits = torch.full((len(features), n_problems), offset, dtype=kind, device=features.device)
    active = torch.arange(n_problems, device=features.device)
    state = _State(solution.clone(), logits, weights, targets, ridge)
    loss, gradient = state.loss(), state.gradient(features)
    history: list[tuple[torch.Tensor, torch.Tensor]] = []
    step = 0
    while step < max_steps and len(active):
        direction = -_two_loop(gradient, history, curvature, active)
        slope = (gradient * direction).sum(0)
        # Rounding can turn a direction uphill near the optimum; the preconditioned gradient never is.
        uphill = slope >= 0
        if uphill.any():
            direction[:, uphill] = -curvature.solve(gradient, active)[:, uphill]
            slope = (gradient * direction).sum(0)
        change = (features @ direction[:-1].float()).to(kind) + direction[-1]
        size, fresh = state.search(direction, change, loss, slope)
        moved = size > 0
        state.move(size, direction, change)
        new_gradient = state.gradient(features)
        history = [*history, (size * direction, new_gradient - gradient)][-MEMORY:]
        gradient, loss = new_gradient, fresh
        step += 1
        solved = ~moved | (-slope / 2 < tolerance)
        solution[:, active[solved]] = state.solution[:, solved]
        if solved.any():
            left = ~solved
            active, gradient, loss = active[left], gradient[:, left], loss[left]
            state = state.of(left)
            history = [(moves[:, left], turns[:, left]) for moves, turns in history]
    solution[:, active] = state.solution
    return solution[:-1], solution[-1], step


@dataclass
class _State:
    """Current solutions `[D + 1, P]` (bias last) and logits `[N, P]` of the problems that are not solved yet."""

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
        penalty = (self.ridge / 2 * solution[:-1].square().sum(0)).double()
        return (self.weights * each).sum(0, dtype=torch.float64) + penalty

    def gradient(self, features: torch.Tensor) -> torch.Tensor:
        """Gradient `[D + 1, P]` of `loss`."""
        residual = self.weights * (self.logits.sigmoid() - self.targets)
        product = (features.T @ residual.float()).to(residual.dtype)
        return torch.cat([product + self.ridge * self.solution[:-1], residual.sum(0, keepdim=True)])

    def search(
        self, direction: torch.Tensor, change: torch.Tensor, loss: torch.Tensor, slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step lengths `[P]` by halving until the loss falls enough (Armijo), 0 where it never does; and the losses there."""
        size = torch.ones_like(slope)
        for _ in range(HALVINGS):
            fresh = self.loss(self.solution + size * direction, self.logits + size * change)
            short = ~(fresh <= loss + ARMIJO * size * slope)
            if not short.any():
                return size, fresh
            size = torch.where(short, size / 2, size)
        size = torch.where(short, 0.0, size)
        return size, torch.where(short, loss, fresh)

    def move(self, size: torch.Tensor, direction: torch.Tensor, change: torch.Tensor) -> None:
        self.solution += size * direction
        self.logits += size * change

    def of(self, kept: torch.Tensor) -> "_State":
        parts = (self.solution, self.logits, self.weights, self.targets)
        return _State(*(part[:, kept] for part in parts), self.ridge[kept])


class _Curvature:
    """The Hessian at logit 0 plus the penalty, in its `RANK` steepest directions; in all others as steep as in the last of these."""

    def __init__(self, features: torch.Tensor, ridge: torch.Tensor):
        rows = features[:: max(1, len(features) // SAMPLE)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, values, self.basis = torch.svd_lowrank(rows, q=min(RANK, *rows.shape), niter=2)
        self.basis = self.basis.to(ridge)
        self.values = (values.square() / (4 * len(rows))).to(ridge)[:, None]
        self.ridge = ridge

    def solve(self, gradient: torch.Tensor, problems: torch.Tensor) -> torch.Tensor:
        """The gradient `[D + 1, P]` of these problems, divided by the curvature."""
        ridge = self.ridge[problems]
        flat = 1 / (self.values[-1] + ridge)
        inside = self.basis.T @ gradient[:-1]
        step = flat * gradient[:-1] + self.basis @ ((1 / (self.values + ridge) - flat) * inside)
        return torch.cat([step, 4 * gradient[-1:]])


def _two_loop(
    gradient: torch.Tensor, history: list[tuple[torch.Tensor, torch.Tensor]], curvature: _Curvature, problems: torch.Tensor
) -> torch.Tensor:
    """The L-BFGS direction (Nocedal and Wright 2006, algorithm 7.4), with the curvature in place of a multiple of the identity."""
    direction, alphas = gradient.clone(), []
    for moves, turns in reversed(history):
        product = (moves * turns).sum(0)
        rho = torch.where(product > 0, 1 / product, 0.0)
        alphas.append(rho * (moves * direction).sum(0))
        direction -= alphas[-1] * turns
    direction = curvature.solve(direction, problems)
    for (moves, turns), alpha in zip(history, reversed(alphas), strict=True):
        product = (moves * turns).sum(0)
        rho = torch.where(product > 0, 1 / product, 0.0)
        direction += (alpha - rho * (turns * direction).sum(0)) * moves
    return direction
