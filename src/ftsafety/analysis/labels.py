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

#: The share of all answers that unscored ones may have and be left out, where people scored none of them.
NEGLIGIBLE = 0.01
#: Resamples of each interval: the libraries work through them one by one.
MOST_SAMPLES = 1000


@dataclass(frozen=True)
class Labels:
    """The answers that people have scored, a row each, and all answers that they were drawn from.

    `ratings` is (answers, annotators), NaN where there is no score; `first_ratings` has the scores that were
    imported first, as before annotators talked. `answers` is indexed by ANSWER in the same order: `stratum`,
    `n_stratum`, `category` and `people`, the reference: the middle of the scores, the lower of two middles.
    `population` has every answer to a safety benchmark by ANSWER: the headline judge's `stratum` now.
    """

    ratings: pd.DataFrame
    first_ratings: pd.DataFrame
    answers: pd.DataFrame
    population: pd.DataFrame
    verdicts: pd.DataFrame
    samples: int

    @cached_property
    def is_as_drawn(self) -> bool:
        """Are the verdicts those of the draw?"""
        now, drawn = self.population["stratum"], self.answers["stratum"]
        sizes = self.answers.groupby("stratum")["n_stratum"].first()
        same_sizes = (now.value_counts().reindex(sizes.index) == sizes).all()
        return bool(same_sizes) and now.reindex(drawn.index).equals(drawn)

    @cached_property
    def covered(self) -> pd.DataFrame:
        """The population that the answers stand for: without its unscored answers, where they are few and
        people could score none of them."""
        unscored = self.population["stratum"] == UNSCORED
        has_label = (self.answers["stratum"] == UNSCORED).any()
        return self.population if has_label or unscored.mean() > NEGLIGIBLE else self.population[~unscored]

    @cached_property
    def weights(self) -> Floats | None:
        """How many answers of the study each stands for.

        None where the verdicts are not those of the draw, or answers with some score have no label. An answer
        that nobody could score is as if it had not been drawn.
        """
        drawn = self.answers["stratum"]
        if not self.is_as_drawn or set(self.covered["stratum"]) - set(drawn):
            return None
        return (self.answers["n_stratum"] / drawn.map(drawn.value_counts())).to_numpy(dtype=float)

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
        """All answers that are covered, by stratum and this judge's verdict, with how people found those they
        saw. None where there are no weights."""
        if self.weights is None:
            return None
        strata = np.unique(self.covered["stratum"].to_numpy(dtype=str), return_inverse=True)[1]
        judged = self._of(judge, "headline").reindex(self.covered.index).to_numpy(dtype=float)
        sample = self.covered.index.get_indexer(self.answers.index)
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
    ratings, first_ratings = (
        scored.pivot(index=ANSWER, columns="annotator", values=score) for score in ("score", "first_score")
    )
    facts = scored.drop_duplicates(ANSWER).set_index(ANSWER).loc[ratings.index]
    answers = facts[["stratum", "n_stratum", "category"]].copy()
    answers["people"] = [_middle(row) for row in ratings.to_numpy(dtype=float)]
    scores = headline["score"]
    stratum = scores.fillna(0).astype(int).astype(str).where(scores.notna(), UNSCORED).rename("stratum")
    samples = min(study.bootstrap_samples, MOST_SAMPLES)
    return Labels(ratings, first_ratings, answers, stratum.to_frame(), verdicts, samples)


def _middle(scores: Floats) -> float:
    """Of two middles the lower one, as raters are told to do when they waver."""
    given = np.sort(scores[~np.isnan(scores)])
    return float(given[(len(given) - 1) // 2])
