"""Dollars: what requests may cost, what replies did cost, and what may still be spent."""

from collections.abc import Iterable
from dataclasses import dataclass

from ftsafety.api.requests import Request
from ftsafety.errors import UserError
from ftsafety.recipes import Endpoint, Price

CONFIG, CATALOGUE = "config/config.yaml", "config/endpoints.yaml"


def cost(price: Price | None, input_tokens: int, output_tokens: int, *, batch: bool) -> float | None:
    """US dollars, or None where the price is unknown."""
    if price is None:
        return None
    usd = (input_tokens * price.input_usd + output_tokens * price.output_usd) / 1_000_000
    return usd * price.batch_factor if batch else usd


def estimate(endpoint: Endpoint, requests: Iterable[Request], *, batch: bool) -> float | None:
    """Most that requests are reckoned to cost: whole bodies, and replies as long as they may get."""
    total = 0.0
    for request in requests:
        price = endpoint.price(request.model)
        usd = cost(price, request.input_tokens, request.max_output_tokens, batch=batch)
        if usd is None:
            return None
        total += usd
    return total


def check_prices(name: str, endpoint: Endpoint, requests: Iterable[Request]) -> None:
    """A limit in dollars needs every price. Raises UserError naming the models without one."""
    unknown = sorted({r.model for r in requests if endpoint.price(r.model) is None})
    if unknown:
        raise UserError(
            f"max_usd is set, but the price of {', '.join(unknown)} is unknown",
            file=CATALOGUE,
            field=f"{name}.prices",
            mend="add the price there (0 where it costs nothing), or remove max_usd from " + CONFIG,
        )


@dataclass
class Budget:
    """`spent` is all that the store has recorded; `in_flight` is reckoned for what is not answered yet."""

    max_usd: float | None
    spent: float
    in_flight: float = 0.0

    def allows(self, usd: float) -> bool:
        return self.max_usd is None or self.spent + self.in_flight + usd <= self.max_usd

    def reached(self, usd: float) -> UserError:
        waiting = f", {dollars(self.in_flight)} reckoned for what is in flight" if self.in_flight else ""
        return UserError(
            f"budget reached: spent {dollars(self.spent)} of {dollars(self.max_usd)}{waiting}; "
            f"the next may cost {dollars(usd)}",
            file=CONFIG,
            field="max_usd",
            mend=f"raise max_usd in {CONFIG}, then run again: what was answered is kept",
        )


def dollars(usd: float | None) -> str:
    if usd is None:
        return "price unknown"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.6f}".rstrip("0").rstrip(".")
