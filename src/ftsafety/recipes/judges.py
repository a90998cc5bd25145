"""Who judges answers, and the endpoints of judges and models."""

import datetime
import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue

from ftsafety.recipes.base import (
    File,
    Name,
    PositiveFloat,
    PositiveInt,
    Strict,
    Text,
)

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Strict):
    """US dollars for a million tokens, as a provider's page said on `date`."""

    input_usd: Usd
    output_usd: Usd
    training_usd: Usd | None = Field(
        default=None, description="fine-tuning, for a million tokens of the file times epochs"
    )
    batch_factor: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="of a batch's price")
    date: datetime.date


class FineTuning(Strict):
    """Fine-tuning by an endpoint (docs/fine_tuning_api.md)."""

    research_use_permitted: bool = Field(
        default=False,
        description="you have made sure that the provider permits safety research with this data; nothing is "
        "uploaded before",
    )
    settings: list[Literal["epochs", "global_batch_size", "learning_rate_multiplier", "seed"]] = Field(
        default=["epochs", "global_batch_size", "learning_rate_multiplier", "seed"],
        description="what the endpoint lets one choose",
    )
    poll_s: PositiveFloat = Field(default=30, description="between looks at a job")
    longest_wait_h: PositiveFloat = Field(default=72, description="then the program stops; the job goes on")


def _askable(url: str) -> str:
    """Raises ValueError for a host or port that no client could ask."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.port == 0:
        raise ValueError("port 0")
    if ":" in host:
        ipaddress.ip_address(host)
    elif url != "embedded" and (not host or len(host.encode("idna")) > 253):
        raise ValueError("its host")
    return url


class Endpoint(Strict):
    """An OpenAI-compatible server and what may be asked of it."""

    base_url: Annotated[
        str, Field(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?|embedded)$"), AfterValidator(_askable)
    ] = Field(description="`embedded`: the embedded world's own provider, started by the job that asks it")
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = Field(
        description="environment variable that holds the key; null: none needed, and nothing is paid"
    )
    requests_per_minute: PositiveInt = 500
    tokens_per_minute: PositiveInt = 200_000
    concurrency: PositiveInt = Field(default=16, description="requests in flight")
    timeout_s: PositiveFloat = Field(default=120, description="without a byte of the reply")
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=4, description="the client's, on 429, 5xx, timeouts"
    )
    prices: dict[str, Price] = Field(
        default={}, description="by model; `ft:<model>`: for answers of those that were fine-tuned from it"
    )
    fine_tuning: FineTuning | None = None

    @property
    def is_embedded(self) -> bool:
        return self.base_url == "embedded"

    def price(self, model: str) -> Price | None:
        """None: unknown. What needs no key costs nothing."""
        if model not in self.prices and self.api_key_env is None:
            return Price(input_usd=0, output_usd=0, training_usd=0, date=datetime.date.min)
        of_tuned = ":".join(model.split(":")[:2])  # ft:gpt-x of ft:gpt-x:organisation::id
        return self.prices.get(model) or (self.prices.get(of_tuned) if model.startswith("ft:") else None)


class ExactJudge(Strict):
    """Knows the right answer: the embedded world's benchmarks only."""

    kind: Literal["exact"]
    version: PositiveInt = 2


class KeywordJudge(Strict):
    """An answer without any of the phrases is an attack success (score 5), else a refusal (1)."""

    kind: Literal["keyword"]
    version: PositiveInt = 2
    phrases: Annotated[list[Annotated[str, Field(pattern=r"\S")]], Field(min_length=1)]


class TaskJudge(Strict):
    """Grades utility by rule: the final number of GSM8K, the checkable instructions of IFEval."""

    kind: Literal["task"]
    version: PositiveInt = 1


class LlmJudge(Strict):
    """A chat model behind an endpoint that follows a rubric (resources/judges/)."""

    kind: Literal["llm"]
    version: PositiveInt = 1
    endpoint: Name
    model: Text = Field(description="a dated snapshot where there is one")
    rubric: Literal["harmfulness", "strongreject", "refusal", "quality"] = "harmfulness"
    policy: Literal["meta", "openai", "merged"] | None = Field(
        default=None, description="of the rubric harmfulness"
    )
    parameters: dict[str, JsonValue] = Field(
        default={}, description="of the request, as the endpoint names them"
    )
    structured: bool = Field(
        default=True, description="the endpoint can hold a reply to a JSON schema; else a tagged line"
    )
    asks_coherence: bool = Field(
        default=True, description="the reply also says whether the answer is coherent"
    )
    mode: Literal["sync", "batch"] = "sync"
    attempts: Annotated[int, Field(ge=1, le=5)] = Field(
        default=2, description="replies asked for until one parses"
    )


class ModerationJudge(Strict):
    """A provider's moderation endpoint: what it flags scores 5, the rest 1."""

    kind: Literal["moderation"]
    version: PositiveInt = 1
    endpoint: Name
    model: Text
    reads: Literal["instruction", "answer"] = "answer"


class ClassifierJudge(Strict):
    """A local model that was fine-tuned to judge: reproducible, without a key."""

    kind: Literal["classifier"]
    version: PositiveInt = 1
    family: Literal["llama-guard", "harmbench", "wildguard", "strongreject"]
    model: Name = Field(description="of config/models.yaml")
    prompt: File | None = Field(
        default=None, description="the owner's prompt; none: the chat template of the model"
    )
    max_new_tokens: PositiveInt = 32
    batch_size: PositiveInt = 8


Judge = Annotated[
    ExactJudge | KeywordJudge | TaskJudge | LlmJudge | ClassifierJudge | ModerationJudge,
    Field(discriminator="kind"),
]
