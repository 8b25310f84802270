"""Settings: command line over environment over file; what is unknown is an error that names the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.flows.settings import known_keys, load
from tilth.schemas import ConfigError, NotFound


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _file(text: str) -> str:
    Path("tilth.yaml").write_text(text)
    return "tilth.yaml"


def test_command_line_over_environment_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three values for one key the command line's wins, then the environment's, then the file's."""
    _file("observed: {seed: 1}")
    assert load().observed.seed == 1
    monkeypatch.setenv("TILTH_OBSERVED__SEED", "2")
    assert load().observed.seed == 2
    assert load(pairs=["observed.seed=3"]).observed.seed == 3


def test_sources_merge_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key from one place does not hide its neighbours from another."""
    _file("observed: {seed: 1, pairs: {min_rank_gap: 2}}")
    monkeypatch.setenv("TILTH_OBSERVED__PAIRS__MIN_NET", "3")
    settings = load(pairs=["observed.bucket_rows=10"])
    recipe = settings.logs()
    assert (recipe.seed, recipe.bucket_rows) == (1, 10)
    assert (recipe.pairs.min_rank_gap, recipe.pairs.min_net) == (2, 3)


@pytest.mark.parametrize(
    ("text", "named", "near"),
    [
        ("sorces: [a]", "sorces", "sources"),
        (
            "observed: {pairs: {min_rank_gpa: 1}}",
            "observed.pairs.min_rank_gpa",
            "observed.pairs.min_rank_gap",
        ),
        ("observed: {min_rank_gap: 1}", "observed.min_rank_gap", "observed.pairs.min_rank_gap"),
    ],
)
def test_an_unknown_key_in_the_file_names_the_nearest(text: str, named: str, near: str) -> None:
    """A typing error in the file is an error, at every level."""
    with pytest.raises(ConfigError) as caught:
        load(_file(text))
    assert caught.value.found == named
    assert near in str(caught.value.do)


def test_an_unknown_variable_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the environment does not change nothing in silence."""
    monkeypatch.setenv("TILTH_WORKSPCE", "elsewhere")
    with pytest.raises(ConfigError, match="TILTH_WORKSPACE"):
        load()


@pytest.mark.parametrize("pair", ["observed.seed", "=1", "observed.sead=1", "observed.seed=often"])
def test_a_bad_pair_is_an_error(pair: str) -> None:
    """--set takes key=value, of a known key and the right kind."""
    with pytest.raises(ConfigError):
        load(pairs=[pair])


def test_impossible_margins_are_refused_when_settings_are_read() -> None:
    """A gap of nothing would let a tie pass as a preference."""
    with pytest.raises(ConfigError, match="min_rank_gap"):
        load(pairs=["observed.pairs.min_rank_gap=0"]).logs()


def test_a_file_that_is_named_must_be_there() -> None:
    """A missing --config is an error; a missing tilth.yaml is not."""
    assert load().sources == []
    with pytest.raises(NotFound, match=r"other\.yaml"):
        load("other.yaml")


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words"])
def test_a_file_that_holds_no_settings_is_named(text: str) -> None:
    """YAML that is broken or of another kind is an error that names the file."""
    with pytest.raises(ConfigError, match=r"tilth\.yaml"):
        load(_file(text))


def test_the_salt_has_one_place_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The salt reaches the recipe, and neither its settings nor their repr spell it out."""
    monkeypatch.setenv("TILTH_USER_SALT", "do-not-show")
    settings = load()
    assert settings.logs().ingest.user_salt == "do-not-show"
    assert "do-not-show" not in repr(settings)
    assert [key for key in known_keys() if "salt" in key] == ["user_salt"]
    with pytest.raises(ConfigError, match="environment"):
        load(pairs=["user_salt=do-not-show"])


def test_engine_arguments_pass_through_under_any_name() -> None:
    """Arguments of vLLM are not ours to know; their types are kept."""
    _file("engine: {kind: vllm, model: m, args: {enforce_eager: true}}")
    engine = load(pairs=["engine.args.max_model_len=1024", "engine.devices=['0', '1']"]).model()
    assert dict(engine.args) == {"enforce_eager": True, "max_model_len": 1024}
    assert (engine.kind, engine.devices) == ("vllm", ("0", "1"))


def test_sections_of_models_become_their_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caps, prices, window and patience come from file, environment and command line like any setting."""
    _file("prices: {prompt: 0.5}\nworker: {window: {maximum: 8}}")
    monkeypatch.setenv("TILTH_CAPS__MAX_CALLS", "7")
    settings = load(options={"caps": {"max_cost": 2}}, pairs=["worker.patience.reasks=0"])
    assert (settings.limits().max_calls, settings.limits().max_cost, settings.limits().max_tokens) == (
        7,
        2.0,
        None,
    )
    assert (settings.push().window.maximum, settings.push().patience.reasks) == (8, 0)
    assert settings.price_list().prompt == 0.5
    with pytest.raises(ConfigError, match=r"worker\.window\.size"):
        load(pairs=["worker.window.sise=4"])


def test_answers_are_kept_in_the_workspace_unless_a_database_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite beside the runs; another URL from the environment; a remote workspace needs one."""
    assert (
        load(options={"workspace": "here"}).answers_url()
        == f"sqlite:///{Path('here/cache/answers.sqlite').resolve()}"
    )
    with pytest.raises(ConfigError, match="TILTH_CACHE_URL"):
        load(options={"workspace": "s3://bucket/there"}).answers_url()
    monkeypatch.setenv("TILTH_CACHE_URL", "postgresql://me:do-not-show@host/db")
    settings = load(options={"workspace": "s3://bucket/there"})
    assert settings.answers_url() == "postgresql://me:do-not-show@host/db"
    assert "do-not-show" not in repr(settings)


def test_a_password_is_not_taken_from_the_command_line() -> None:
    """A URL without one is; one with a password is refused, and not repeated."""
    assert load(pairs=["cache_url=postgresql://me@host/db"]).answers_url() == "postgresql://me@host/db"
    with pytest.raises(ConfigError, match="TILTH_CACHE_URL") as caught:
        load(pairs=["cache_url=postgresql://me:do-not-show@host/db"])
    assert "do-not-show" not in str(caught.value)


def test_a_role_is_an_entry_of_engines_or_a_model_of_the_engine() -> None:
    """An entry of `engines` plays its part as `engine` does but for what it says; another name is a model there."""
    _file(
        "engine: {model: large, revision: r1, base_urls: ['http://one/v1']}\n"
        "engines: {judge: {model: other, revision: r2}, far: {base_urls: ['http://two/v1']}}"
    )
    settings = load()
    assert settings.role("model").model == "large"
    judge, far, named = settings.role("judge"), settings.role("far"), settings.role("org/small")
    assert (judge.model, judge.revision, judge.base_urls) == ("other", "r2", ("http://one/v1",))
    assert (far.model, far.revision, far.base_urls) == ("large", "r1", ("http://two/v1",))
    assert (named.model, named.revision, named.base_urls) == ("org/small", "", ("http://one/v1",))


def test_parts_without_an_entry_are_played_by_the_engine() -> None:
    """Judge and moderator are no models' names: without an entry the engine's own model plays them."""
    settings = load(options={"engine": {"model": "large"}})
    assert {settings.role(part).model for part in ("model", "judge", "moderator")} == {"large"}


def test_a_key_that_is_left_out_keeps_the_default_of_its_recipe() -> None:
    """Judges are asked five times at temperature 1 for training data, whoever is named; a policy's replies differ."""
    told = load(
        options={"judge_training": {"judging": {"judges": ["other"]}}, "rubrics": {"replies": {"top_p": 0.9}}}
    )
    judging, replies = told.section("judge_training").judging, told.section("rubrics").replies
    assert (judging.judges, judging.evidences, judging.temperature) == (("other",), 5, 1.0)
    assert (replies.top_p, replies.temperature) == (0.9, 1.0)
