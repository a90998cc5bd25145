# needs: verdicts of every run of a study
# makes: results/studies/<study>/{runs.tsv,*.parquet,*.csv,analysis/,figures/,report.html}
# why:   what a person looks at; editing a plot reruns these and nothing before them


rule score:
    """Put a study's verdicts into tidy tables with intervals, and check that no row is missing."""
    input:
        lambda w: ft.judged_packs(PLAN, w.study),
    output:
        runs="results/studies/{study}/runs.tsv",
        scores="results/studies/{study}/scores.parquet",
        cells="results/studies/{study}/cells.parquet",
        verdicts="results/studies/{study}/verdicts.parquet",
        parity="results/studies/{study}/parity.csv",
        contrasts="results/studies/{study}/contrasts.csv",
        provenance="results/studies/{study}/provenance.json",
    log:
        "results/logs/score/{study}.log",
    benchmark:
        "results/benchmarks/score/{study}.tsv"
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        identity=lambda w: ft.score_digest(PLAN, w.study),
    message:
        "score study {wildcards.study}"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/score.py" {wildcards.study:q} 2> {log:q}'


rule analyse:
    """Test, model and decompose what a study measured (src/ftsafety/analysis/)."""
    input:
        scores="results/studies/{study}/scores.parquet",
        cells="results/studies/{study}/cells.parquet",
        verdicts="results/studies/{study}/verdicts.parquet",
        people=lambda w: ft.people_files(PLAN, w.study),
    output:
        directory("results/studies/{study}/analysis"),
    log:
        "results/logs/analyse/{study}.log",
    benchmark:
        "results/benchmarks/analyse/{study}.tsv"
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        identity=lambda w: ft.analysis_digest(PLAN, w.study),
    message:
        "analyse study {wildcards.study}"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/analyse.py" {wildcards.study:q} 2> {log:q}'


rule figures:
    """Draw each grid and analysis of a study as PNG, SVG and PDF, with its data as CSV."""
    input:
        analysis="results/studies/{study}/analysis",
        cells="results/studies/{study}/cells.parquet",
        parity="results/studies/{study}/parity.csv",
    output:
        report(
            directory("results/studies/{study}/figures"),
            patterns=["{grid}.png"],
            caption="../report/figures.rst",
            category="Studies",
            subcategory="{study}",
            labels={"figure": "{grid}"},
        ),
    log:
        "results/logs/figures/{study}.log",
    benchmark:
        "results/benchmarks/figures/{study}.tsv"
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        identity=lambda w: ft.figures_digest(PLAN, w.study),
        study=lambda w: PLAN.project.studies[w.study].model_dump(),
    message:
        "draw the figures of study {wildcards.study}"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/figures.py" {wildcards.study:q} 2> {log:q}'


rule report:
    """Write a study's self-contained page."""
    input:
        runs="results/studies/{study}/runs.tsv",
        scores="results/studies/{study}/scores.parquet",
        cells="results/studies/{study}/cells.parquet",
        parity="results/studies/{study}/parity.csv",
        contrasts="results/studies/{study}/contrasts.csv",
        provenance="results/studies/{study}/provenance.json",
        analysis="results/studies/{study}/analysis",
        figures="results/studies/{study}/figures",
    output:
        report(
            "results/studies/{study}/report.html",
            caption="../report/page.rst",
            category="Studies",
            subcategory="{study}",
            labels={"figure": "report"},
        ),
    log:
        "results/logs/report/{study}.log",
    benchmark:
        "results/benchmarks/report/{study}.tsv"
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        identity=lambda w: ft.report_digest(PLAN, w.study),
        study=lambda w: PLAN.project.studies[w.study].model_dump(),
    message:
        "write results/studies/{wildcards.study}/report.html"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/report.py" {wildcards.study:q} 2> {log:q}'


rule card:
    """Write the safety card of an audited model: each line against its threshold."""
    input:
        verdicts="results/studies/{study}/verdicts.parquet",
        provenance="results/studies/{study}/provenance.json",
    output:
        audit="results/studies/{study}/audit.json",
        page=report(
            "results/studies/{study}/card.html",
            caption="../report/page.rst",
            category="Studies",
            subcategory="{study}",
            labels={"figure": "safety card"},
        ),
        section="results/studies/{study}/card.md",
    log:
        "results/logs/card/{study}.log",
    benchmark:
        "results/benchmarks/card/{study}.tsv"
    wildcard_constraints:
        study=ft.audits_pattern(PLAN),
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        identity=lambda w: ft.card_digest(PLAN, w.study),
    message:
        "write results/studies/{wildcards.study}/card.html and card.md"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/card.py" {wildcards.study:q} 2> {log:q}'
