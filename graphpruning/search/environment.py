"""The search as an environment: one group of channels a step, the budget always exact."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate
from graphpruning.search.scaling import scaled
from graphpruning.search.states import Observation, State


class PruningEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """An episode asks for a ratio of every group to decide, in forward order, and scales them.

    Action: the ratio [1] wanted for the group, within [smallest, 1], where `smallest` is the least
    kept ratio that any of them may have. Nothing is clipped by what is left of the budget, so an
    action means the same wherever its group stands. After the last step one multiplier for all
    groups makes the candidate as wide as the budget allows (`scaled`), and it is filled.

    Observation: `state.observe`, float32 [state.size] within [0, 1]; until the end a decided group
    has the level nearest to its ratio. Reward: 0, and after the last group the accuracy of the
    candidate within [0, 1]. A candidate that was judged before has the reward that it had and is
    not judged again, unless `reset` was given the option "again". After the last step `info` has
    the candidate's `widths` and `macs`, and `new`, False if it was judged before; until then
    nothing.

    Args:
        space: the levels of each group.
        budget: the most that a candidate may use of the space's resource.
        state: what the agent sees.
        evaluate: answers with the accuracy of widths in percent; asked once an episode.

    Raises:
        UserError: when the space cannot meet the budget.
    """

    def __init__(self, space: SearchSpace, budget: int, state: State, evaluate: Evaluate) -> None:
        space.require(budget)
        self.space = space
        self.budget = budget
        self.state = state
        self.evaluate = evaluate
        self.smallest = space.smallest_ratio
        self.action_space = Box(self.smallest, 1.0, (1,), np.float32)
        self.observation_space = Box(0.0, 1.0, (state.size,), np.float32)
        self.ratios: dict[str, float] = {}
        self.decided: dict[str, int] = {}
        self.judged: dict[tuple[int, ...], float] = {}
        self.again = False

    @property
    def steps(self) -> int:
        """Steps of an episode."""
        return len(self.space.choices)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; nothing in it is random.

        With `options` {"again": True} its candidate is judged in any case.
        """
        super().reset(seed=seed)
        self.again = bool((options or {}).get("again"))
        self.ratios, self.decided = {}, {}
        return self.state.observe(0, self.decided, 1.0), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the next group.

        Returns observation, reward, terminated, truncated (never) and info; see the class.
        """
        group = self.space.choices[len(self.decided)]
        ratio = min(max(float(action[0]), self.smallest), 1.0)
        self.ratios[group] = ratio
        self.decided[group] = self.space.nearest(group, ratio)
        terminated = len(self.decided) == self.steps
        reward, info = self._judged() if terminated else (0.0, {})
        # No group follows the last one: it is observed once more, and nothing is learnt from it.
        step = min(len(self.decided), self.steps - 1)
        observation = self.state.observe(step, self.decided, ratio)
        return observation, reward, terminated, False, info

    def _judged(self) -> tuple[float, dict[str, Any]]:
        """The reward and the `info` of an episode whose groups are all decided."""
        widths = self.space.fill(scaled(self.space, self.ratios, self.budget), self.budget)
        candidate = self.space.vector(widths)
        is_new = candidate not in self.judged
        if is_new or self.again:
            self.judged[candidate] = self.evaluate(widths) / 100
        info = {"widths": widths, "macs": self.space.macs(widths), "new": is_new}
        return self.judged[candidate], info
