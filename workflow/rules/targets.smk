# needs: config/studies/
# makes: nothing; names what can be asked for


for _study in PLAN.studies:

    # A rule without files for each study, so that its name alone is a target.
    rule:
        name:
            _study
        input:
            ft.study_files(_study),
        localrule: True
