"""What annotators have to talk over: the answers that they scored differently."""

import pandas as pd

#: What a row is about; then each annotator's token and score. No text, and nothing of models or judges.
ITEM = ["item", "benchmark", "prompt_id", "category"]


def differences(key: pd.DataFrame, scores: dict[str, str]) -> pd.DataFrame:
    """A row for each answer of the key with more than one score, from scores by token; U counts as one."""
    scored = key.assign(score=key["token"].map(scores)).dropna(subset="score")
    n_scores = scored.groupby("item")["score"].transform("nunique")
    differing = scored[n_scores > 1].sort_values("item")
    rows = differing.drop_duplicates("item")[ITEM].set_index("item")
    for annotator, mine in scored.groupby("annotator"):
        by_item = mine.set_index("item")[["token", "score"]]
        rows = rows.join(by_item.add_prefix(f"{annotator}_"))
    return rows.reset_index()
