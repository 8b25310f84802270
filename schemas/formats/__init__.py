"""Training formats: pure projections of tables into the columns that trainers read; what each is for is in `FORMATS`.

Messages stay lists of role and content, a prompt always ends with a user's turn, JSON in a column is one whole value,
and what a format cannot hold is left out and counted by reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import polars as pl

from tilth.schemas.formats import pairs, replies, rubrics
from tilth.schemas.formats.form import Format, Made, Projection, Tables, Unfit
from tilth.schemas.formats.rationales import cut_triples, rationale_dpo, rationale_sft
from tilth.schemas.formats.turns import NO_TOOLS_IN_PAIR, NO_TOOLS_IN_PROMPT, without_tools

__all__ = ["FORMATS", "Format", "Made", "Projection", "cut_triples"]


def _of(
    table: str, project: Callable[[pl.DataFrame], pl.DataFrame], unfit: Unfit, merges: str = ""
) -> Projection:
    def alone(tables: Tables) -> pl.DataFrame:
        return project(tables[table])

    return Projection(alone, unfit, merges)


def _of_rationales(
    project: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame], unfit: Unfit, merges: str = ""
) -> Projection:
    def both(tables: Tables) -> pl.DataFrame:
        known = tables["pairs"]
        return project(tables["rationales"], without_tools(known) if unfit else known)

    return Projection(both, unfit, merges, ("pairs",))


def _pairs(project: Callable[[pl.DataFrame], pl.DataFrame], more: Unfit | None = None) -> Projection:
    return _of("pairs", project, {**pairs.NO_TOOLS, **(more or {})})


def _rubrics(project: Callable[[pl.DataFrame], pl.DataFrame]) -> Projection:
    return _of("rubrics", project, NO_TOOLS_IN_PROMPT)


def _formats() -> dict[str, Format]:
    listed = (
        Format(
            "trl",
            "preferences with an explicit prompt (TRL's DPO; axolotl)",
            {"pairs": _pairs(pairs.preferences)},
        ),
        Format(
            "trl-implicit",
            "preferences as whole conversations (TRL's RewardTrainer)",
            {"pairs": _pairs(pairs.conversations)},
        ),
        Format(
            "reward",
            "preferences as whole conversations, with the margin that the reward is to keep (TRL's RewardTrainer)",
            {"pairs": _pairs(pairs.reward, pairs.NO_MARGIN)},
        ),
        Format(
            "kto",
            "replies labelled good or bad, shuffled, those to one prompt apart (TRL's KTO)",
            {"unpaired": _of("unpaired", replies.kto, replies.NO_TOOLS)},
        ),
        Format(
            "sft",
            "the best reply to each prompt, or all that are labelled good (TRL's SFT)",
            {
                "pairs": _of(
                    "pairs",
                    replies.best_chosen,
                    pairs.NO_TOOLS,
                    "another reply to its prompt is better, or one that is equal is rejected",
                ),
                "unpaired": _of(
                    "unpaired",
                    replies.labelled_good,
                    {**replies.BAD, **replies.NO_TOOLS},
                    "an equal reply to its prompt is there",
                ),
                "ratings": _of(
                    "ratings",
                    replies.best_rated,
                    NO_TOOLS_IN_PROMPT,
                    "another reply to its prompt is rated better",
                ),
            },
        ),
        Format(
            "grpo-rubric",
            "prompts with rubrics for reward functions (TRL's GRPO, Rubrics as Rewards)",
            {"rubrics": _rubrics(rubrics.grpo_rubric)},
        ),
        Format(
            "llama-factory",
            "preferences (DPO, reward model) or labelled replies (KTO), with their dataset_info.json (LLaMA-Factory)",
            {
                "pairs": _pairs(pairs.llama_factory, {**pairs.ONE_MESSAGE, **pairs.IN_TURN}),
                "unpaired": _of(
                    "unpaired",
                    replies.llama_factory,
                    {**replies.NO_TOOLS, **replies.ONE_MESSAGE, **pairs.IN_TURN},
                ),
            },
            {"dataset_info.json": pairs.llama_factory_entry},
        ),
        Format(
            "openrlhf",
            "preferences with an explicit prompt and a margin (OpenRLHF's DPO and reward model)",
            {"pairs": _pairs(pairs.preferences)},
        ),
        Format(
            "nemo-rl",
            "preferences as ranked completions of a context (NeMo-RL's DPO and reward model)",
            {"pairs": _pairs(pairs.nemo_rl)},
        ),
        Format(
            "open-instruct",
            "preferences as whole conversations (DPO), or prompts with rubrics for its verifier (RLVR)",
            {"pairs": _pairs(pairs.conversations), "rubrics": _rubrics(rubrics.open_instruct)},
        ),
        Format(
            "verl",
            "prompts with rubrics as its reward model's ground truth (verl; Parquet only)",
            {"rubrics": _rubrics(rubrics.verl)},
            forms=(".parquet",),
        ),
        Format(
            "verifiers",
            "prompts with criteria for a judge, none of a weight below 0 (verifiers, prime-rl)",
            {"rubrics": _rubrics(rubrics.verifiers)},
        ),
        Format(
            "healthbench",
            "prompts with signed criteria, as HealthBench has them",
            {"rubrics": _rubrics(rubrics.healthbench)},
        ),
        Format(
            "rationale-sft",
            "which reply is better, and why, as prompt and completion (TRL's SFT)",
            {"rationales": _of_rationales(rationale_sft, {})},
        ),
        Format(
            "rationale-dpo",
            "preferences with a rationale beside them (RDPO)",
            {
                "rationales": _of_rationales(
                    rationale_dpo, NO_TOOLS_IN_PAIR, "another rationale of its pair and kind ranks better"
                )
            },
        ),
        Format(
            "cut",
            "judged replies with aligned and misaligned prompts (CUT)",
            {
                "rationales": _of_rationales(
                    cut_triples,
                    NO_TOOLS_IN_PAIR,
                    "it judges no rejected reply, is blank, or says what another says of the same reply",
                )
            },
        ),
    )
    return {one.name: one for one in listed}


FORMATS: Final[Mapping[str, Format]] = _formats()
"""All training formats by name."""
