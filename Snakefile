# ftsafety: how fine-tuning changes a chat model's safety. Stages, one rule file each:
#
#   config/studies/*.yaml ─▶ prepare_data ─▶ train ─▶ generate ─▶ judge ─▶ score ─▶ figures ─▶ report
#
# Where everything lies (src/ftsafety/paths.py):
#
#   results/runs/<model>/<dataset[+mitigation]>/<method>-lr…-bs…-s…-<hash8>/epoch-<e>/
#   results/runs/<model>/initial-<template>/epoch-0/          the untouched model
#   results/packs/<pack>/{trained,answered,judged}.json       what one job trains, answers, judges
#   results/studies/<study>/{runs.tsv,scores.parquet,figures/,report.html}
#
# Every file in config/studies is a target: snakemake --profile profiles/local smoke
from pathlib import Path

from snakemake.utils import min_version

from ftsafety.cli import user_errors
from ftsafety.loading import read_yaml

min_version("9.27")

if Path("config/config.yaml").exists():
    with user_errors():
        read_yaml(Path(), "config/config.yaml")  # what Snakemake reads, which passes over repeated keys


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/study.smk"
include: "workflow/rules/targets.smk"


# Here and not in a rule file: an included file cannot set the default target.
rule all:
    default_target: True
    input:
        [asked(study) for study in PLAN.project.settings.studies],
    localrule: True
