"""AMC's environment: one group a step, each action clipped to what the budget allows."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from graphpruning.network.widths import SearchSpace
from graphpruning.search.history import Evaluate
from graphpruning.search.states import Observation, State


class WalledEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """An episode decides the width of every group to decide, in forward order.

    Action: the kept ratio [1], within [0, 1] as AMC's agent draws it; taken is the nearest level
    with which the budget can still be met, so never less than the group's smallest, AMC's lower
    bound. What is left for a group depends on those before it: the same actions give late groups
    other ratios than early ones. Observation: `state.observe`, float32 [state.size] within [0, 1].
    Reward: 0, and after the last group the accuracy of the candidate within [0, 1].

    `info` has `widths` (undecided groups at their largest; after the last step the candidate that
    was judged), their `macs`, and `action`, the kept ratio taken.

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
        self.action_space = Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = Box(0.0, 1.0, (state.size,), np.float32)
        self.decided: dict[str, int] = {}

    @property
    def steps(self) -> int:
        """Steps of an episode."""
        return len(self.space.choices)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; nothing in it is random."""
        super().reset(seed=seed)
        self.decided = {}
        return self.state.observe(0, self.decided, 1.0), self._info(self.space.largest, 1.0)

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the next group.

        Returns observation, reward, terminated, truncated (never) and info; see the class.
        """
        group = self.space.choices[len(self.decided)]
        allowed = self.space.allowed(self.decided, group, self.budget)
        width = self.space.nearest(group, float(np.clip(action[0], 0, 1)), allowed)
        self.decided[group] = width
        ratio = width / self.space.full[group]
        widths = {**self.space.largest, **self.decided}
        terminated = len(self.decided) == self.steps
        reward = 0.0
        if terminated:
            widths = self.space.fill(widths, self.budget)
            reward = self.evaluate(widths) / 100
        # No group follows the last one: it is observed once more, and nothing is learnt from it.
        step = min(len(self.decided), self.steps - 1)
        observation = self.state.observe(step, self.decided, ratio)
        return observation, reward, terminated, False, self._info(widths, ratio)

    def _info(self, widths: dict[str, int], ratio: float) -> dict[str, Any]:
        return {"widths": dict(widths), "macs": self.space.macs(widths), "action": ratio}
