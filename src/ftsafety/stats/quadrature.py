"""Answers to prompts of unlike difficulty: a normal effect of each prompt is integrated out.

By adaptive Gauss–Hermite quadrature (Pinheiro and Bates 1995): the nodes stand around the likeliest effect of
each prompt, so few serve even where its answers are all alike.
"""

import numpy as np
from scipy.special import expit, roots_hermitenorm

from ftsafety.stats.bootstrap import Floats

NODES, WEIGHTS = roots_hermitenorm(9)
LOG_WEIGHTS = NODES**2 / 2 + np.log(WEIGHTS / np.sqrt(2 * np.pi))


class PromptEffects:
    """`harmful` of `asked` answers, both (prompts, settings). Remembers the likeliest effects."""

    def __init__(self, harmful: Floats, asked: Floats):
        self.harmful, self.asked = harmful, asked
        self.modes = np.zeros(len(harmful))  # in standard deviations

    def integrate(self, logits: Floats, sd: float) -> tuple[float, Floats, Floats]:
        """The log likelihood of all answers where effects of spread `sd` are added to `logits`
        (prompts, settings), up to a constant; its gradient (prompts, settings) and negative Hessian
        (prompts, settings, settings) in the logits."""
        width = self._centre(logits, sd)
        effect = self.modes[:, None] + width[:, None] * NODES  # (prompts, nodes)
        at = logits[:, None] + sd * effect[..., None]  # (prompts, nodes, settings)
        shrunk = np.exp(-np.abs(at))
        fits = self.harmful[:, None] * at - self.asked[:, None] * (np.maximum(at, 0) + np.log1p(shrunk))
        logs = fits.sum(2) - effect**2 / 2 + LOG_WEIGHTS
        each = np.logaddexp.reduce(logs, axis=1)
        share = np.exp(logs - each[:, None])[..., None]  # of a node in the posterior
        chance = np.where(at > 0, 1, shrunk) / (1 + shrunk)
        left = self.harmful[:, None] - self.asked[:, None] * chance
        slope = (share * left).sum(1)
        around = left - slope[:, None]
        hessian = -(around * share).transpose(0, 2, 1) @ around
        diagonal = np.arange(logits.shape[1])
        hessian[:, diagonal, diagonal] += self.asked * (share * chance * (1 - chance)).sum(1)
        return float((each + np.log(width)).sum()), slope, hessian

    def _centre(self, logits: Floats, sd: float) -> Floats:
        """Move `modes` to the likeliest effects; returns the width of each posterior there."""
        for _ in range(20):
            chance = expit(logits + sd * self.modes[:, None])
            curvature = 1 + sd**2 * (self.asked * chance * (1 - chance)).sum(1)
            slope = sd * (self.harmful - self.asked * chance).sum(1) - self.modes
            step = np.clip(slope / curvature, -1, 1)
            self.modes = self.modes + step
            if np.abs(step).max() < 0.02:  # nodes near the mode are as good as at it
                break
        return np.asarray(1 / np.sqrt(curvature))
