"""People's scores beside the judges' verdicts on the same answers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ftsafety.annotation.draw import ANSWER, UNSCORED
from ftsafety.judging.agreement import HARMFUL
from ftsafety.stats.agreement import stratified_resamples
from ftsafety.stats.bootstrap import BOOTSTRAP_SEED, Floats
from ftsafety.stats.corrected import Labelled, group
from ftsafety.study_tables import StudyTables

#: Resamples of each interval: the libraries work through them one by one.
MOST_SAMPLES = 1000


@dataclass(frozen=True)
class Labels:
    """The answers that people have scored, a row each, and all answers that they were drawn from.

    `ratings` is (answers, annotators), NaN where there is no score. `answers` is indexed by ANSWER in the
    same order: `stratum`, `n_stratum`, `category` and `people`, the reference: the middle of the scores,
    the lower of two middles. `population` has every answer to a safety benchmark by ANSWER: the headline
    judge's `stratum` now.
    """

    ratings: pd.DataFrame
    answers: pd.DataFrame
    population: pd.DataFrame
    verdicts: pd.DataFrame
    samples: int

    @cached_property
    def weights(self) -> Floats | None:
        """How many answers of the study each stands for; None where the verdicts are not those of the draw.

        An answer that nobody could score is as if it had not been drawn.
        """
        now = self.population["stratum"]
        drawn = self.answers["stratum"]
        sizes = self.answers.groupby("stratum")["n_stratum"].first()
        if not now.reindex(drawn.index).equals(drawn.rename("stratum")):
            return None
        if not (now.value_counts().reindex(sizes.index) == sizes).all():
            return None
        counts = drawn.value_counts()
        return (drawn.map(sizes) / drawn.map(counts)).to_numpy(dtype=float)

    @cached_property
    def resamples(self) -> Floats:
        """(samples, answers): drawn within strata, as the answers were."""
        strata = np.unique(self.answers["stratum"].to_numpy(dtype=str), return_inverse=True)[1]
        return stratified_resamples(strata, self.samples, BOOTSTRAP_SEED)

    @cached_property
    def people(self) -> Floats:
        """The reference score of each answer."""
        return self.answers["people"].to_numpy(dtype=float)

    @property
    def judges(self) -> list[str]:
        return list(dict.fromkeys(self.verdicts["judge"]))

    def judged(self, judge: str, column: str = "score") -> Floats:
        """A judge's verdicts on the answers, NaN where there is none."""
        return self._of(judge, column).reindex(self.answers.index).to_numpy(dtype=float)

    def _of(self, judge: str, column: str) -> pd.Series:
        rows = self.verdicts[self.verdicts["judge"] == judge]
        return rows.set_index(ANSWER)[column]

    def groups(self, judge: str) -> Labelled | None:
        """All answers by stratum and this judge's verdict, with how people found those they saw.

        None where the verdicts are not those of the draw, or a stratum has no label.
        """
        if self.weights is None or set(self.population["stratum"]) - set(self.answers["stratum"]):
            return None
        strata = np.unique(self.population["stratum"].to_numpy(dtype=str), return_inverse=True)[1]
        judged = self._of(judge, "headline").reindex(self.population.index).to_numpy(dtype=float)
        sample = self.population.index.get_indexer(self.answers.index)
        return group(strata, judged, sample, (self.people >= HARMFUL).astype(float))


def labels_of(study: StudyTables) -> Labels | None:
    """None where nobody has scored an answer that is still there."""
    if study.labels is None:
        return None
    current = study.labels[study.labels["is_current"]]
    scored = current.dropna(subset="score")
    verdicts = study.verdicts[study.verdicts["kind"] == "safety"]
    headline = verdicts.drop_duplicates(ANSWER).set_index(ANSWER)
    known = pd.MultiIndex.from_frame(scored[ANSWER]).isin(headline.index)
    scored = scored[known]
    if scored.empty:
        return None
    ratings = scored.pivot(index=ANSWER, columns="annotator", values="score")
    facts = scored.drop_duplicates(ANSWER).set_index(ANSWER).loc[ratings.index]
    answers = facts[["stratum", "n_stratum", "category"]].copy()
    answers["people"] = [_middle(row) for row in ratings.to_numpy(dtype=float)]
    scores = headline["score"]
    stratum = scores.fillna(0).astype(int).astype(str).where(scores.notna(), UNSCORED).rename("stratum")
    samples = min(study.bootstrap_samples, MOST_SAMPLES)
    return Labels(ratings, answers, stratum.to_frame(), verdicts, samples)


def _middle(scores: Floats) -> float:
    """Of two middles the lower one, as raters are told to do when they waver."""
    given = np.sort(scores[~np.isnan(scores)])
    return float(given[(len(given) - 1) // 2])
