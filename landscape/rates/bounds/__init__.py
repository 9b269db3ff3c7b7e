"""Two-sided bounds on overdamped rates by variational principles: `bracket_rate`."""

from landscape.rates.bounds.bracket import BracketOptions, RateBracket, bracket_rate

__all__ = ["BracketOptions", "RateBracket", "bracket_rate"]
