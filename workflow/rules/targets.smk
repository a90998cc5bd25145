# needs: config/config.yaml, config/studies/
# makes: nothing; names what can be asked for


rule all:
    """Every study that config/config.yaml names."""
    default_target: True
    input:
        [ft.study_files(study) for study in PLAN.project.settings.studies],
    localrule: True


for _study in PLAN.studies:

    # A rule without files for each study, so that its name alone is a target.
    rule:
        name:
            _study
        input:
            ft.study_files(_study),
        localrule: True
