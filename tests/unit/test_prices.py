"""What moving and keeping objects costs."""

from __future__ import annotations

import pytest

from dicomfs import config
from dicomfs.errors import ConfigError
from dicomfs.index.records import ObjectRecord
from dicomfs.model import ObjectKey
from dicomfs.prices import LIST_PRICES, Cost, Prices

GB = 10**9
PIXEL = ObjectKey(f"pixel/00/{'00' * 32}")
HEADER = ObjectKey(f"header/00/{'00' * 32}")
EXTERNAL = "[tiers.external]\nurl = 's3://bucket/prefix'\n"


def prices(text: str) -> Prices:
    return Prices(config.parse(text))


def record(size: int, *tiers: str, key: ObjectKey = PIXEL) -> ObjectRecord:
    return ObjectRecord(key, size, dict.fromkeys(tiers, 0))


def test_storage_costs_by_size_and_class() -> None:
    objects = [record(10 * GB, "external"), record(10 * GB, "external", key=HEADER)]
    standard = prices(EXTERNAL).stored("external", objects)
    assert standard.monthly == pytest.approx(20 * 0.023)
    assert (standard.once, standard.currency, standard.listed) == (0.0, "USD", True)
    # Header packs stay on the store's default.
    cold = prices(f"{EXTERNAL}storage_class = 'DEEP_ARCHIVE'").stored("external", objects)
    assert cold.monthly == pytest.approx(10 * 0.023 + 10 * 0.00099, rel=1e-3)


def test_small_objects_are_billed_as_the_class_bills_them() -> None:
    found = prices(f"{EXTERNAL}storage_class = 'STANDARD_IA'").stored("external", [record(1000)] * 1000)
    assert found.monthly == pytest.approx(1000 * 128_000 / GB * 0.0125)


def test_copying_pays_for_puts_and_for_reading_back() -> None:
    one = [record(80 << 20, "local")]
    found = prices(f"{EXTERNAL}storage_class = 'GLACIER_IR'").copied("external", one)
    price = LIST_PRICES["GLACIER_IR"]
    puts, gets = 5 + 2, 1 + 10
    read = (80 << 20) / GB * price.retrieval_gb
    assert found.once == pytest.approx(puts * price.put_1000 / 1000 + gets * price.get_1000 / 1000 + read)
    unread = prices(f"{EXTERNAL}storage_class = 'GLACIER_IR'\nread_back = false").copied("external", one)
    assert unread.once == pytest.approx(found.once - read - 10 * price.get_1000 / 1000)
    # What must be restored cannot be read back.
    frozen = prices(f"{EXTERNAL}storage_class = 'DEEP_ARCHIVE'").copied("external", one)
    assert frozen.once == pytest.approx(puts * 0.05 / 1000 + 0.0004 / 1000)


def test_warming_pays_for_retrieval_restores_and_traffic() -> None:
    one = [record(GB, "external")]
    found = prices(f"{EXTERNAL}storage_class = 'DEEP_ARCHIVE'").copied("local", one)
    assert found.once == pytest.approx(0.02 + 0.1 / 1000 + 120 * 0.0004 / 1000)
    assert found.monthly == 0
    text = f"{EXTERNAL}[tiers.external.prices]\ntraffic_gb = 0.09\n"
    assert prices(text).copied("local", one).once == pytest.approx(0.09)


def test_the_nearest_copy_is_what_is_read() -> None:
    text = f"[tiers.laboratory]\nurl = 'file:///nas'\n{EXTERNAL}"
    assert prices(text).copied("local", [record(GB, "laboratory", "external")]).once == 0


def test_leaving_a_tier_saves_its_storage() -> None:
    found = prices(EXTERNAL).evicted("external", [record(10 * GB, "local", "external")])
    assert found.once == 0.0
    assert found.monthly == pytest.approx(-0.23)


def test_given_prices_replace_all_list_prices() -> None:
    text = f"{EXTERNAL}[tiers.external.prices]\nstorage_gb_month = 0.006\n[prices]\ncurrency = 'EUR'\n"
    found = prices(text).copied("external", [record(GB, "local")])
    assert found == Cost("EUR", 0.0, found.monthly)
    assert found.monthly == pytest.approx(0.006)
    house = "[tiers.laboratory]\nurl = 'file:///nas'\n[tiers.laboratory.prices]\nstorage_gb_month = 0.01\n"
    assert prices(house).stored("laboratory", [record(GB)]).monthly == pytest.approx(0.01)


@pytest.mark.parametrize(
    "text",
    [
        f"{EXTERNAL}[prices]\ncurrency = 'EUR'\n",
        f"{EXTERNAL}endpoint = 'https://objects.example'\n",
        f"{EXTERNAL}storage_class = 'SOMETHING_ELSE'\n",
    ],
)
def test_a_price_that_nobody_knows_is_told_as_that(text: str) -> None:
    found = prices(text).stored("external", [record(GB)])
    assert (found.monthly, found.unknown, found.listed) == (0.0, ("external",), False)


def test_folders_cost_nothing_unless_somebody_says_so() -> None:
    assert prices("[tiers.laboratory]\nurl = 'file:///nas'\n").copied("laboratory", [record(GB)]) == Cost(
        "USD"
    )


def test_how_long_it_takes_follows_from_the_slowest_bandwidth() -> None:
    text = f"[tiers.laboratory]\nurl = 'file:///nas'\nbandwidth = 1000\n{EXTERNAL}bandwidth = 100\n"
    assert prices(text).seconds("external", [record(1000, "laboratory")]) == pytest.approx(20)
    assert prices(text).seconds("local", [record(1000, "external"), record(1000, "laboratory")]) == 10
    assert prices(text).seconds("laboratory", [record(1000, "local")]) == 2
    assert prices(EXTERNAL).seconds("external", [record(1000, "local")]) is None


def test_a_wrong_price_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"tiers\.\*\.prices\.storage_gb_month"):
        config.parse(f"{EXTERNAL}[tiers.external.prices]\nstorage_gb_month = -1\n")
    with pytest.raises(ConfigError, match="storage"):
        config.parse(f"{EXTERNAL}[tiers.external.prices]\nstorage = 1\n")
