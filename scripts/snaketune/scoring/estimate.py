"""A measured value with its uncertainty, as reports store it."""

from pydantic import BaseModel, ConfigDict


class Estimate(BaseModel):
    """A share, or a mean, of `n` answers with its 95 % confidence interval, `low` to `high`."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float
    n: int

    def differs_from(self, other: "Estimate") -> bool:
        """Whether the two intervals do not overlap."""
        return self.high < other.low or other.high < self.low
