"""Amounts of money, measured quantities and durations in text: the number and the unit of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dltrain.data.tables import durations, text


@dataclass(frozen=True)
class Amounts:
    """Texts as amounts: with a minus in place of parentheses and without the unit, where they are some.

    numbers: pyarrow strings, those that are no amounts as they were, and durations, too; units: (N,) the sign or code of the
    currency, or the unit of measurement, or "".
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
# `(1,603.86)` in the books of a company
_CLOSED = rf"^\(({_DIGITS})\)$"
# Units that may stand side by side in a column by mistake; any other short word is a unit where the whole column has it. Single capitals
# are none of them: a house number such as 12A has one, too.
MEASURES = frozenset(
    "kg g mg µg μg t lb lbs oz km m dm cm mm µm μm nm mi ft in yd h hr hrs min s sec ms yr yrs °C °F kW MW Wh kWh MWh "
    "mV kV mA Hz kHz MHz GHz Pa hPa kPa MPa bar mbar psi l ml mL cl dl gal m² m2 cm² cm2 km² km2 m³ m3 cm³ cm3 ha km/h mph "
    "m/s kJ kcal cal kN kB KB MB GB TB ppm ppb px dB rpm ° lx lm mol mmol mg/dl mg/l g/l mmol/l bpm".split()
)
# other spellings of square and cubic meters
_SPELLINGS = {"qm": "m²"} | {
    f"{unit}{power}": f"{unit}{sign}" for unit in ("m", "cm", "km") for power, sign in ("2²", "3³")
}
_LONG = (
    r"years?|months?|weeks?|days?|hours?|minutes?|seconds?|meters?|metres?|grams?|kilos?|pounds?|ounces?|inch|inches|miles?|"
    r"litres?|liters?|sq\.? ?ft|sq\.? ?m"
)
_SYMBOL = r"°?[A-Za-zµμΩ]{1,4}[²³23]?"
_MEASURE = rf"^(?P<number>[+-]?{_DIGITS}){_BLANK}(?P<unit>{_LONG}|{_SYMBOL}(?:/{_SYMBOL})?|°)$"
_MEASURED = f"(?:{_MEASURE})|{durations.DURATION}"
# what follows a number and counts or times instead of measuring
COUNTING = frozenset(("st", "nd", "rd", "th", "am", "pm", "AM", "PM"))


def amounts(texts: Any) -> Amounts:
    """Read `$1,234.50`, `12 €`, `EUR 12` and `($5)`, which is -5."""
    known = Amounts(texts, np.zeros(len(texts), "<U4"))
    return _with(known, text.matches(texts, _AMOUNT), _amounts)


def _with(known: Amounts, chosen: text.Flags, read: Callable[[Any], Amounts]) -> Amounts:
    """Return texts with the `chosen` ones read. Extracting parts is slower than matching, so that only these are extracted."""
    if not chosen.any():
        return known
    if chosen.all():
        return read(known.numbers)
    found = read(known.numbers.filter(pa.array(chosen)))
    units = known.units.astype(np.result_type(known.units, found.units))
    units[chosen] = found.units
    return Amounts(pc.replace_with_mask(known.numbers, pa.array(chosen), found.numbers), units)


def _amounts(texts: Any) -> Amounts:
    """Read texts all of which match `_AMOUNT`; a currency alone, and two signs, are no amount."""
    found = pc.extract_regex(texts, _AMOUNT)

    def joined(first: str, second: str) -> Any:
        parts = (pc.struct_field(found, name).fill_null("") for name in (first, second))
        return pc.binary_join_element_wise(*parts, "")

    sign = joined("sign", "inner")
    closed = text.flags(pc.equal(joined("open", "close"), "()"))
    good = text.matches(joined("first", "second"), r"\d")
    good &= text.flags(pc.equal(joined("open", "close"), "")) | (closed & text.flags(pc.equal(sign, "")))
    sign = pc.if_else(pa.array(closed), pa.scalar("-"), sign)
    plain = pc.utf8_trim_whitespace(pc.binary_join_element_wise(sign, joined("first", "second"), ""))
    numbers = pc.if_else(pa.array(good), plain, texts)
    units = joined("before", "after").to_numpy(zero_copy_only=False).astype(str)
    return Amounts(numbers, np.where(good, units, ""))


def quantities(texts: Any) -> Amounts:
    """Read amounts of money and, of the other texts, numbers with a short word behind them: `80.2 kg`, `-5 °C`, `12cm`.

    Durations such as `17:25:00` have the unit of seconds.
    """
    found = amounts(texts)
    return _with(found, text.matches(texts, _MEASURED) & (found.units == ""), _measures)


def _measures(texts: Any) -> Amounts:
    """Read texts all of which match `_MEASURED`."""
    parts = pc.extract_regex(texts, _MEASURE)
    valid = text.flags(parts.is_valid())
    # 1e3 is a number
    good = valid & ~text.is_number(texts)
    plain = pc.utf8_trim_whitespace(pc.struct_field(parts, "number").fill_null(""))
    words = pc.struct_field(parts, "unit").fill_null("").to_pylist()
    units = np.where(good, np.array([spelled(word) for word in words], str), "")
    if not valid.all():
        units = np.where(durations.are_durations(texts), durations.UNIT, units)
    return Amounts(pc.if_else(pa.array(good), plain, texts), units)


def spelled(unit: str) -> str:
    """Return a unit as it is written most often: m2 and qm are m²."""
    return _SPELLINGS.get(unit, unit)


def is_closed(texts: Any) -> text.Flags:
    """Tell which texts are numbers in parentheses without a currency."""
    return text.matches(texts, _CLOSED)


def opened(texts: Any) -> Any:
    """Return texts with a minus in place of the parentheses around a number."""
    return pc.replace_substring_regex(texts, _CLOSED, r"-\1")


def are_measured(texts: Any) -> bool:
    """Tell whether all texts are numbers with a common unit of measurement, or durations."""
    return set(quantities(texts).units.tolist()) <= MEASURES | durations.SECONDS.keys()


def bare(texts: Any, measured: bool = True) -> Any:
    """Return texts without the unit, the parentheses, the spaces and the apostrophes of a number: what is left shows its decimal mark."""
    texts = text.without_percent(texts)
    texts = opened((quantities(texts) if measured else amounts(texts)).numbers)
    spaced = text.matches(texts, text.GROUPED_SPACE)
    if not spaced.any():
        return texts
    return pc.if_else(pa.array(spaced), pc.replace_substring_regex(texts, text.SPACES, ""), texts)
