# needs: config/studies/
# makes: nothing; names what can be asked for


for _study in PLAN.project.studies:

    # A rule without files for each study, so that its name alone is a target.
    rule:
        name:
            _study
        input:
            asked(_study),
        localrule: True
