"""Amounts of money in text: the number and the currency of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dltrain.data.tables import text


@dataclass(frozen=True)
class Amounts:
    """Texts as amounts of money: with a minus in place of parentheses and without the currency, where they are some.

    numbers: pyarrow strings, those that are no amounts as they were; units: (N,) the sign or code of the currency, or "".
    """

    numbers: Any
    units: NDArray[np.str_]


# of a dollar without a country, and those that name theirs; the codes of ISO 4217 that are traded most
_CURRENCY = (
    r"(?:US|CA|C|AU|A|NZ|HK|S|R)?\$|[€£¥₹₩₽₺₪₫₱฿₦₴]|S?Fr\.|kr\.?|zł|Kč|"
    "USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|BRL|MXN|ZAR|KRW|TRY|RUB|UAH|SGD|HKD|TWD|ILS|THB|"
    "IDR|MYR|PHP|VND|AED|SAR|CLP|COP"
)
_BLANK = r"[ \x{a0}\x{202f}]?"
_DIGITS = r"(?:\d[\d.,'’ \x{a0}\x{202f}]*|[.,]\d+)"
_AMOUNT = (
    rf"^(?P<open>\(?)(?P<sign>[+-]?){_BLANK}(?:(?P<before>{_CURRENCY}){_BLANK}(?P<inner>[+-]?)(?P<first>{_DIGITS})"
    rf"|(?P<second>{_DIGITS}?){_BLANK}(?P<after>{_CURRENCY}))(?P<close>\)?)$"
)
_FIRST_TEXTS = 1000


def amounts(texts: Any) -> Amounts:
    """Read `$1,234.50`, `12 €`, `EUR 12` and `($5)`, which is -5; a column without any among its first texts has none."""
    none = np.zeros(len(texts), "<U4")
    if not text.matches(texts.slice(0, _FIRST_TEXTS), _AMOUNT).any():
        return Amounts(texts, none)
    found = pc.extract_regex(texts, _AMOUNT)

    def joined(first: str, second: str) -> Any:
        parts = (pc.struct_field(found, name).fill_null("") for name in (first, second))
        return pc.binary_join_element_wise(*parts, "")

    sign = joined("sign", "inner")
    closed = text.flags(pc.equal(joined("open", "close"), "()"))
    good = text.flags(found.is_valid()) & text.matches(joined("first", "second"), r"\d")
    good &= text.flags(pc.equal(joined("open", "close"), "")) | (closed & text.flags(pc.equal(sign, "")))
    sign = pc.if_else(pa.array(closed), pa.scalar("-"), sign)
    plain = pc.utf8_trim_whitespace(pc.binary_join_element_wise(sign, joined("first", "second"), ""))
    numbers = pc.if_else(pa.array(good), plain, texts)
    units = joined("before", "after").to_numpy(zero_copy_only=False).astype(str)
    return Amounts(numbers, np.where(good, units, ""))


def bare(texts: Any) -> Any:
    """Return texts without the unit, the spaces and the apostrophes of a number: what is left shows its decimal mark."""
    texts = amounts(text.without_percent(texts)).numbers
    spaced = text.matches(texts, text.GROUPED_SPACE)
    if not spaced.any():
        return texts
    return pc.if_else(pa.array(spaced), pc.replace_substring_regex(texts, text.SPACES, ""), texts)
