"""Licences: names are understood however they are written, and data made from several is never freer than one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.schemas import ConfigError
from tilth.schemas.licences import LICENCES, UNDECLARED, Licence, Reach, combine, licence

NAMES = st.sampled_from([*LICENCES, "other:ours", "other:theirs"])
SETS = st.lists(NAMES, min_size=1, max_size=4)


def no_freer(one: Licence, than: Licence) -> bool:
    """Whether `one` allows nothing that `than` forbids."""
    return (
        one.redistribute <= than.redistribute
        and one.derivatives <= than.derivatives
        and one.commercial <= than.commercial
        and one.share_alike >= than.share_alike
        and one.attribution >= than.attribution
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("CC-BY-4.0", "cc-by-4.0"),
        ("cc by nc sa 4.0", "cc-by-nc-sa-4.0"),
        ("attribution", None),
        ("CC0", "cc0-1.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("https://creativecommons.org/licenses/by-nd/4.0/deed.en", "cc-by-nd-4.0"),
        ("The MIT License", "mit"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("Apache-2.0", "apache-2.0"),
        ("ODbL-1.0", "odbl"),
        ("AGPL-3.0-only", "agpl-3.0"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("Internal", "internal"),
        (" other:Data-Use.2 ", "other:data-use.2"),
        ("", None),
    ],
)
def test_a_licence_is_known_however_it_is_written(text: str, wanted: str | None) -> None:
    """SPDX ids, the Hub's, addresses of Creative Commons and plain writing name one licence; the rest is refused."""
    if wanted is None:
        with pytest.raises(ConfigError, match="other:NAME"):
            licence(text)
    else:
        assert licence(text).id == wanted


def test_a_misspelt_licence_names_the_near_ones() -> None:
    """The refusal says what was probably meant."""
    with pytest.raises(ConfigError, match=r"cc-by-sa-4\.0"):
        licence("cc-by-as-4.0")


def test_every_known_licence_is_found_by_its_id() -> None:
    """Normalising never loses a name, so what is stored with a version can be read again."""
    assert all(licence(name) is one for name, one in LICENCES.items())


@given(SETS, st.randoms(use_true_random=False))
def test_the_order_of_sources_changes_nothing(names: list[str], chance: object) -> None:
    """Any order, and any source named twice, gives the same licence or the same refusal."""
    assert combine(sorted(names, reverse=True) + names) == combine(names) == combine(sorted(names))


@given(SETS)
def test_combined_is_never_freer_than_a_source(names: list[str]) -> None:
    """What comes out allows nothing that one of the sources forbids."""
    combined = combine(names).licence
    if combined:
        assert all(no_freer(combined, licence(name)) for name in names)


@given(SETS)
def test_combining_again_changes_nothing(names: list[str]) -> None:
    """Data that is made from the combination and the same sources again keeps its licence."""
    combined = combine(names).licence
    if combined:
        assert combine([combined.id]).licence == combined
        assert combine([combined.id, *names]).licence == combined


@given(SETS, NAMES)
def test_another_source_never_frees(names: list[str], more: str) -> None:
    """What is refused stays refused with one more source, and the licence gets no freer."""
    before, after = combine(names), combine([*names, more])
    if before.refusal:
        assert after.licence is None or after.licence.redistribute < Reach.ANYONE
    elif after.licence:
        assert before.licence
        assert no_freer(after.licence, before.licence)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["mit", "cc0-1.0"], "mit"),
        (["cc-by-nc-4.0", "apache-2.0", "cc-by-4.0"], "cc-by-nc-4.0"),
        (["cc-by-sa-3.0", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["cc-by-sa-4.0", "gpl-3.0"], "gpl-3.0"),
        (["cc-by-nc-sa-4.0", "cc-by-nc-4.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-4.0", "undeclared"], UNDECLARED),
        (["internal", "cc-by-sa-4.0"], "internal"),
        (["other:a", "other:b"], UNDECLARED),
        ([], UNDECLARED),
    ],
)
def test_what_follows_from_several_licences(names: list[str], wanted: str) -> None:
    """The most restrictive of compatible ones; what is not known stays so."""
    found = combine(names)
    assert found.licence
    assert (found.licence.id, found.refusal) == (wanted, None)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["cc-by-sa-4.0", "odbl"], "each ask for themselves"),
        (["cc-by-sa-4.0", "cc-by-nc-4.0"], "no commercial use"),
        (["mit", "cc-by-nd-4.0"], "cc-by-nd-4.0 forbids"),
        (["mit", "proprietary"], "proprietary forbids"),
        (["undeclared", "no-redistribution"], "no-redistribution forbids"),
    ],
)
def test_what_cannot_be_published_names_the_licence_in_the_way(names: list[str], named: str) -> None:
    """A refusal names the licences and what they forbid."""
    found = combine(names)
    assert found.licence is None
    assert named in str(found.refusal)
