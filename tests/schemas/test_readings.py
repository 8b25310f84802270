"""What checks read in texts: personal data, language, refusals, likeness. Both what must be found and what must not."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import TABLES, polars_schema
from tilth.schemas.labels import LANGUAGES
from tilth.schemas.language import function_words, guess
from tilth.schemas.likeness import likeness
from tilth.schemas.pii import KINDS, flags_of, pii_flags
from tilth.schemas.refusals import refuses

KEY = "MIIEpAIBAAKCAQEA7bq8ZkPq2lqHn6mRz0e1uWcYt9pXk"
PERSONAL = {
    "email": ["mail anna.berg@posteo.de please", "<j_doe99@mail.uni-koeln.de>", "A.B+c@gmail.com"],
    "phone": [
        "call +49 30 901820 please",
        "ring (415) 867-2209 now",
        "415-867-2209",
        "+442079460018",
        "07911 123456",
        "01 42 68 53 00",
        "phone: 030/9018201",
    ],
    "iban": ["DE02120300000000202051", "IBAN: FR76 3000 6000 0112 3456 7890 189", "GB33BUKB20201555555555"],
    "card": ["4539 1488 0343 6467", "my card 5425233430109903.", "3782-822463-10104"],
    "ip": ["from 84.23.112.9 again", "http://145.97.39.155/x", "2a00:1450:4001:81b::200e"],
    "ssn": ["SSN 536-90-4399"],
    "secret": [
        "AKIAQ3EGRTRVZJ5XK7MN",
        "ghp_aZ3k9QwErTyUiOpLkJhGfDsAqWeRtYuIoPlK",
        "sk-proj-9sKq2mXv7LpR4tWz8NbY3cHd",
        "-----BEGIN RSA PRIVATE KEY-----\n" + KEY,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI5OSJ9.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1g",
    ],
}
HARMLESS = [
    *("user@example.com", "me@example.org", "you@yourdomain.com", "git@github.com", "icon@2x.png"),
    *("call 555-0123", "(555) 123-4567", "+1-555-0199", "123 456 7890", "1234567890", "tel:+1234567890"),
    *(
        "version 1.2.3.4",
        "10.0.0.1, 192.168.1.1 and 127.0.0.1",
        "192.0.2.44",
        "8.8.8.8",
        "::1",
        "12:34:56:78",
    ),
    *("2024-01-15", "2023-11-05 12:30:00", "1990-2010-2020", "numpy 1.26.4", "arxiv 2408.15549"),
    *("4242 4242 4242 4242", "4111111111111111", "4539 1488 0343 6468", "order 4000-1234-5678-9012"),
    *("123-45-6789", "078-05-1120", "900-12-3456", "pi is 3.14159265358979", "ISBN 978-3-16-148410-0"),
    *("DE89 3704 0044 0532 0130 00", "DE03120300000000202051", "GB82 WEST 1234 5698 7654 32"),
    *("AKIAIOSFODNN7EXAMPLE", "sk-your-key-here-xxxxxxxxxxxx", "sk-learn is a library", "eyJhbGciOi"),
    *("x = 1000000 - 2000000", "2 000 000 000", "1 234 567 890", "a1b2c3-de"),
]
KIND_OF = [(text, kind) for kind, texts in PERSONAL.items() for text in texts] + [(t, None) for t in HARMLESS]


def test_personal_data_is_told_from_what_only_looks_like_it() -> None:
    """Each kind is found as itself alone; placeholders, versions, dates and failed check digits are nothing."""
    texts = pl.DataFrame({"text": [text for text, _ in KIND_OF]})
    found = texts.select(**flags_of(pl.col("text")))
    named = [[kind for kind in KINDS if row[f"pii_{kind}"]] for row in found.iter_rows(named=True)]
    wrong = [
        (text, got)
        for (text, kind), got in zip(KIND_OF, named, strict=True)
        if got != ([kind] if kind else [])
    ]
    assert wrong == []
    assert found["pii"].to_list() == [kind is not None for _, kind in KIND_OF]


def planted(kind: pl.DataType, text: str) -> object:
    """A value of this type with the text in every string of it."""
    if isinstance(kind, pl.List):
        return [planted(kind.inner, text)]  # pyright: ignore[reportArgumentType]  (an instance, in a schema)
    if isinstance(kind, pl.Struct):
        return {field.name: planted(field.dtype, text) for field in kind.fields}  # pyright: ignore[reportArgumentType]
    return text if kind == pl.String else None


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_looked_through(table: str) -> None:
    """An address in the texts of a row is found in every table, and nothing in an empty row."""
    schema = polars_schema(table)
    made = [
        {name: planted(kind, "anna.berg@posteo.de") for name, kind in schema.items()},
        dict.fromkeys(schema),
    ]
    flags = pl.DataFrame(made, schema=schema).select(**pii_flags(table))
    assert flags.select("pii", "pii_email", "pii_phone").rows() == [
        (True, True, False),
        (False, False, False),
    ]


def test_languages_are_told_apart() -> None:
    """The script decides, then function words; what shows neither is unknown."""
    texts = {
        "en": "what is the best way to cook rice for two people?",
        "de": "wie kann ich das auf dem tisch sehen und nicht mehr?",
        "fr": "je ne sais pas où est le chat, c'est dans la maison",
        "ru": "как сварить рис?",
        "ja": "ご飯の炊き方を教えてください",
    }
    assert guess(pl.Series("text", [*texts.values(), "xyzzy 42", None])).to_list() == [*texts, None, None]


def test_the_languages_are_those_of_the_data() -> None:
    """A language that is told apart and not counted would be lost."""
    from importlib.resources import files

    import yaml

    data = yaml.safe_load(files("tilth.schemas").joinpath("languages.yaml").read_text(encoding="utf-8"))
    assert sorted(LANGUAGES) == sorted({*function_words(), *data["scripts"]})


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with hacking.", True),
        ("I’m not comfortable helping with this.", True),
        ("I can't find a train on Sunday.", False),
        ("Sure, here is how.", False),
        ("x " * 300 + "I can't help with that.", False),
        (None, None),
    ],
)
def test_refusals_are_no_inabilities(reply: str | None, refused: bool | None) -> None:
    """Declining to help is a refusal where a reply opens with it; not finding something is none."""
    frame = pl.DataFrame({"reply": [reply]}, schema={"reply": pl.String})
    assert frame.select(refuses(pl.col("reply"))).item() is refused


WORDS = st.sampled_from(
    ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "small", "birds"]
)
TEXTS = st.lists(WORDS, min_size=12, max_size=120).map(" ".join)


def trigrams(text: str) -> set[str]:
    folded = "".join(text.lower().split())
    return {folded[at : at + 3] for at in range(len(folded) - 2)}


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.lists(st.tuples(st.floats(0, 0.999), WORDS), max_size=3))
def test_alike_is_what_shares_its_trigrams(text: str, edits: list[tuple[float, str]]) -> None:
    """Where words of a text are exchanged, the flag is raised exactly when 95 % of the trigrams are shared."""
    words = text.split()
    for where, word in edits:
        words[int(where * len(words))] = word
    other = " ".join(words)
    one, two = trigrams(text), trigrams(other)
    found = likeness(pl.DataFrame({"chosen": [text], "rejected": [other]})).row(0, named=True)
    near = "".join(text.split()) == "".join(other.split())
    assert found == {"near_equal": near, "alike": near or len(one & two) / len(one | two) >= 0.95}


def test_short_replies_are_not_alike_by_half_a_word() -> None:
    """Five and six centimetres are a preference; the same words in other case and white space are none."""
    sides = [("sow at 5 cm", "sow at 6 cm"), (" On the\n roof", "on the ROOF"), (None, "x")]
    found = likeness(pl.DataFrame(sides, schema=["chosen", "rejected"], orient="row"))
    assert found.get_column("alike").to_list() == [False, True, False]
